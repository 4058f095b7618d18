//! Stage `structure`: what is left of a tower without some of its heads, channels and blocks, masks that remove the rest, and their certificate.

use ressa_checkpoint::{Removable, read_config};
use ressa_experiment::{Stage, StageNode, Tower, record::Certificate, structure::TowerStructure};
use ressa_models::{MaskSet, TowerCut, VisionLanguage};
use ressa_prune::structure::{StructureRequest, TowerRemoval, certify_structure, numbers_in_words, remove_groups};
use ressa_store::{Draft, Entry};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    changes::Changes,
    executor::{Progress, plain},
    prune::MASKS,
    samples::Calibration,
};

/// File of what is left of the tower.
pub(crate) const STRUCTURE: &str = "structure.safetensors";
/// Field of the result that holds the numbers of what is left.
const LEFT: &str = "left";

/// Removes what is asked for, publishes what is left, and certifies what was written by reading it back.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Structure { tower, target, calibration, data, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a structure stage".to_owned()));
    };
    refuse(executor, node, *tower, target)?;
    let dense = executor.dense(node)?;
    let Calibration { samples, short } = match (calibration, data) {
        (Some(calibration), Some(data)) => {
            executor.samples(data, &dense)?.calibration(calibration, seed.unwrap_or_default())?
        }
        _ => Calibration::default(),
    };
    let request = request(node)?;
    let (mut model, before) = masked(executor, node)?;
    let message = format!("structure {tower}");
    let earlier = before.cuts.tower(*tower);
    let TowerRemoval { cut, masks } =
        remove_groups(model.as_mut(), &request, earlier, &samples, &mut |share| progress(share, &message))?;
    let path = draft.folder().join(MASKS);
    masks.save(&path)?;
    let written = draft.folder().join(STRUCTURE);
    cut.save(&written, |name| size(model.as_ref(), name))?;

    let written = TowerRemoval { cut: TowerCut::load(&written)?, masks: MaskSet::load(&path)? };
    let mut certificate = certify_structure(model.as_ref(), *tower, &written);
    certificate.calibration = short;
    if !certificate.holds() {
        return Err(PipelineError::Certificate(certificate.violations));
    }
    let mut result = plain(&certificate)?;
    result[LEFT] = plain(&numbers_in_words(&written.cut.numbers))?;
    Ok(result)
}

/// Recounts what was published.
pub(crate) fn recounted(
    executor: &mut Executor,
    node: &StageNode,
    entry: &Entry,
) -> Result<Certificate, PipelineError> {
    let Stage::Structure { tower, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a structure stage".to_owned()));
    };
    let (model, _) = masked(executor, node)?;
    let written =
        TowerRemoval { cut: TowerCut::load(&entry.file(STRUCTURE)?)?, masks: MaskSet::load(&entry.file(MASKS)?)? };
    Ok(certify_structure(model.as_ref(), *tower, &written))
}

/// The model of the state that the step begins with, under its masks, and what made it.
fn masked(executor: &mut Executor, node: &StageNode) -> Result<(Box<dyn VisionLanguage>, Changes), PipelineError> {
    let (mut model, before) = executor.changed(node)?;
    before.masks.apply(model.as_mut())?;
    Ok((model, before))
}

fn request(node: &StageNode) -> Result<StructureRequest, PipelineError> {
    let &Stage::Structure { tower, target, score, block_score, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a structure stage".to_owned()));
    };
    Ok(StructureRequest { tower, target, score, block_score, seed: seed.unwrap_or_default() })
}

/// Refuses what the configuration of the model could not say.
fn refuse(executor: &Executor, node: &StageNode, tower: Tower, target: &TowerStructure) -> Result<(), PipelineError> {
    let (folder, _) = executor.folder(node)?;
    let config = read_config(&folder).map_err(ressa_models::ModelError::from)?;
    match Removable::of(&config, tower).refusals(tower, target).into_iter().next() {
        None => Ok(()),
        Some((setting, what)) => Err(PipelineError::Unsupported(format!("`{setting}`: {what}"))),
    }
}

/// Rows and columns of a matrix, by its layer's module path or by the name of a table.
fn size(model: &dyn VisionLanguage, name: &str) -> Option<(i64, i64)> {
    if let Some((_, linear)) = model.linears().into_iter().find(|(id, _)| id.name == name) {
        return Some(linear.shape());
    }
    let tensors = model.tensors();
    let size = tensors.get(name)?.size();
    Some((size[0], *size.get(1)?))
}

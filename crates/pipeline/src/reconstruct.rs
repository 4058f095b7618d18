//! Stage `reconstruct`: other weights under the same masks for a tower, from what the dense model puts out. Resumable behind every finished window.

use ressa_experiment::{Stage, StageNode, Tower, record::Certificate};
use ressa_models::{MaskSet, VisionLanguage, WeightSet};
use ressa_prune::reconstruct::{ReconstructRequest, TowerReconstruction, certify_reconstructed, reconstruct_tower};
use ressa_restore::adapters::in_window;
use ressa_store::{Draft, Entry};
use serde_json::{Value, json};

use crate::{
    Executor, PipelineError,
    changes::Changes,
    executor::{Progress, plain},
    prune::{MASKS, WEIGHTS},
};

/// Field of the result that holds the error of each window before and after, as a share of what the dense model puts out.
const ERRORS: &str = "errors";

/// Reconstructs the tower, publishes what came out, and certifies what was written by reading it back.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Reconstruct { tower, training, calibration, data, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a reconstruct stage".to_owned()));
    };
    let dense = executor.dense(node)?;
    let calibration = executor.samples(data, &dense)?.calibration(calibration, *seed)?;
    let (mut student, before) = executor.changed(node)?;
    before.masks.apply(student.as_mut())?;
    let mut teacher = dense.model.shallow_clone();
    before.masks.join(teacher.as_mut());
    let starts = |weight: &_| in_window(weight, training, *seed);
    let scratch = executor.store.scratch(&node.key.hex())?;
    let request = ReconstructRequest { tower: *tower, training, starts: &starts, seed: *seed, scratch: Some(&scratch) };
    let TowerReconstruction { weights, errors, steps } =
        reconstruct_tower(student.as_mut(), teacher.as_ref(), &request, &calibration.samples, progress)?;
    let mut masks = MaskSet::of(student.as_ref());
    let of_tower = names(student.as_ref(), *tower);
    masks.retain(|layer| of_tower.iter().any(|name| name == layer));
    drop((student, teacher));
    masks.save(&draft.folder().join(MASKS))?;
    let changed = draft.folder().join(WEIGHTS);
    if !weights.is_empty() {
        weights.save(&changed, &masks)?;
    }

    let written = MaskSet::load(&draft.folder().join(MASKS))?;
    let (mut model, _) = executor.changed(node)?;
    if !weights.is_empty() {
        WeightSet::load(&changed, &written)?.apply(model.as_mut())?;
    }
    let mut certificate = certify(model.as_ref(), (*tower, &before), &written, &errors);
    certificate.calibration = calibration.short;
    if !certificate.holds() {
        return Err(PipelineError::Certificate(certificate.violations));
    }
    let mut result = plain(&certificate)?;
    let unhelped: Vec<&String> = errors.iter().filter(|(_, e)| e.after >= e.before).map(|(name, _)| name).collect();
    result["steps"] = json!(steps);
    // Windows that are as they were, because training made them no better.
    if !unhelped.is_empty() {
        result["unchanged"] = json!(unhelped);
    }
    result[ERRORS] = plain(&errors)?;
    Ok(result)
}

/// Recounts published masks on the weights they belong to.
pub(crate) fn recounted(
    executor: &mut Executor,
    node: &StageNode,
    entry: &Entry,
) -> Result<Certificate, PipelineError> {
    let Stage::Reconstruct { tower, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a reconstruct stage".to_owned()));
    };
    let (mut model, before) = executor.changed(node)?;
    let masks = MaskSet::load(&entry.file(MASKS)?)?;
    crate::prune::changes(entry, &masks)?.apply(model.as_mut())?;
    Ok(certify(model.as_ref(), (*tower, &before), &masks, &Default::default()))
}

fn certify(
    model: &dyn VisionLanguage,
    (tower, before): (Tower, &Changes),
    masks: &MaskSet,
    errors: &std::collections::BTreeMap<String, ressa_prune::refine::Change>,
) -> Certificate {
    certify_reconstructed(model, (tower, &before.patterns), (masks, &before.masks), errors, &before.cuts)
}

/// Layers of a tower.
fn names(model: &dyn VisionLanguage, tower: Tower) -> Vec<String> {
    let of_tower = model.linears().into_iter().filter(|(id, _)| id.tower == tower);
    of_tower.map(|(id, _)| id.name.clone()).collect()
}

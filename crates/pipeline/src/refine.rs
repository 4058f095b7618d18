//! Stage `refine`: other masks of the same size, or other weights under the same masks, for a tower that was pruned.

use ressa_experiment::{
    Pattern, Stage, StageNode, Tower, config::StatisticsNeeds, record::Certificate, refine::RefineMethod,
};
use ressa_models::{MaskSet, VisionLanguage};
use ressa_prune::{
    TowerInputs,
    refine::{LeastSquares, RefineRequest, Refinement, SparseSwaps, TowerRefinement, certify_refined, refine_tower},
    walk::Look,
};
use ressa_store::{Draft, Entry};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    changes::Changes,
    executor::{Progress, plain},
    prune::{MASKS, WEIGHTS},
    samples::Calibration,
    statistics::wanted,
};

/// Field of the result that holds the error of each layer before and after, as a share of what it puts out.
const ERRORS: &str = "errors";

/// Refines the tower, publishes what came out, and certifies what was written by reading it back.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Refine { tower, method, iterations, calibration, data, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a refine stage".to_owned()));
    };
    let stored = executor.statistics(node)?;
    let Calibration { samples, short } = match &stored {
        Some(stored) => Calibration { samples: Vec::new(), short: stored.short()? },
        None => {
            let dense = executor.dense(node)?;
            executor.samples(data, &dense)?.calibration(calibration, *seed)?
        }
    };
    let (mut model, before) = executor.changed(node)?;
    let unpruned = executor.unpruned(node, &before)?;
    before.masks.apply(model.as_mut())?;
    let pattern = pattern(model.as_ref(), &before, *tower)?;
    let refinement: Box<dyn Refinement> = match method {
        RefineMethod::SparseSwaps => {
            Box::new(SparseSwaps { max_swaps: *iterations as usize, ..SparseSwaps::default() })
        }
        RefineMethod::LeastSquares => Box::new(LeastSquares { steps: *iterations as usize, ..LeastSquares::default() }),
        RefineMethod::None => return Err(PipelineError::Internal("nothing is refined".to_owned())),
    };
    let needs = wanted(StatisticsNeeds { gram: true, ..StatisticsNeeds::default() });
    let changed = |layer: &str| before.is_changed(layer);
    let gone = |layer: &str| before.gone(layer);
    let look = Look { needs, tokens: calibration.tokens };
    let request = RefineRequest {
        tower: *tower,
        method: refinement.as_ref(),
        pattern,
        look,
        changed: &changed,
        gone: &gone,
        cuts: &before.cuts,
    };
    let of_block = stored.map(|stored| move |block| stored.block(block));
    let inputs = TowerInputs {
        samples: &samples,
        statistics: of_block.as_ref().map(|of_block| of_block as _),
        ..TowerInputs::default()
    };
    let message = format!("{} {tower}", method.name());
    let TowerRefinement { masks, weights, errors } =
        refine_tower(model.as_ref(), unpruned.as_ref(), request, inputs, &mut |share| progress(share, &message))?;
    let (path, changed) = (draft.folder().join(MASKS), draft.folder().join(WEIGHTS));
    masks.save(&path)?;
    if !weights.is_empty() {
        weights.save(&changed, &masks)?;
    }

    let written = MaskSet::load(&path)?;
    let mut model = unpruned;
    if !weights.is_empty() {
        ressa_models::WeightSet::load(&changed, &written)?.apply(model.as_mut())?;
    }
    let mut certificate =
        certify_refined(model.as_ref(), (*tower, pattern), &written, &before.masks, &errors, &before.cuts);
    certificate.calibration = short;
    if !certificate.holds() {
        return Err(PipelineError::Certificate(certificate.violations));
    }
    let mut result = plain(&certificate)?;
    result[ERRORS] = plain(&errors)?;
    Ok(result)
}

/// Recounts published masks on the weights they belong to.
pub(crate) fn recounted(
    executor: &mut Executor,
    node: &StageNode,
    entry: &Entry,
) -> Result<Certificate, PipelineError> {
    let Stage::Refine { tower, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a refine stage".to_owned()));
    };
    let (_, before) = executor.changed(node)?;
    let mut model = executor.unpruned(node, &before)?;
    let masks = MaskSet::load(&entry.file(MASKS)?)?;
    crate::prune::changes(entry, &masks)?.apply(model.as_mut())?;
    let request = (*tower, pattern(model.as_ref(), &before, *tower)?);
    Ok(certify_refined(model.as_ref(), request, &masks, &before.masks, &Default::default(), &before.cuts))
}

/// The pattern that a tower was pruned to.
fn pattern(model: &dyn VisionLanguage, before: &Changes, tower: Tower) -> Result<Pattern, PipelineError> {
    let none = || PipelineError::Internal(format!("tower `{tower}` was not pruned"));
    before.pattern(model, tower).ok_or_else(none)
}

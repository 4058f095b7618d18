//! Stage `prune`: masks of one tower, weights that the method changed, and their certificate.

use ressa_experiment::{Stage, StageNode, config::Propagate, record::Certificate};
use ressa_models::{MaskSet, VisionLanguage, WeightSet};
use ressa_prune::{
    PruneRequest, TowerInputs, TowerSolution, allocation::Counts, certify_tower_divided, certify_tower_within,
    solve_tower,
};
use ressa_store::{Draft, Entry};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    changes::Changes,
    executor::{Progress, plain},
    samples::Calibration,
    sensitivity,
};

/// File of the keep masks.
pub(crate) const MASKS: &str = "masks.safetensors";
/// File of the kept values of weights that the method changed; not there for methods that only choose.
pub(crate) const WEIGHTS: &str = "weights.safetensors";

/// Prunes the tower, publishes the masks, and certifies what was written by reading it back.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let request = request(node)?;
    let counts = sensitivity::counts(executor, node)?;
    let stored = executor.statistics(node)?;
    let calibration = match &stored {
        Some(stored) => Calibration { samples: Vec::new(), short: stored.short()? },
        None => calibration(executor, node)?,
    };
    let (mut model, before) = executor.changed(node)?;
    before.masks.apply(model.as_mut())?;
    let message = format!("{} {}", request.metric.name(), request.tower);
    let mut show = |share| progress(share, &message);
    let of_block = stored.map(|stored| move |block| stored.block(block));
    let inputs = TowerInputs {
        samples: &calibration.samples,
        counts: counts.as_ref(),
        statistics: of_block.as_ref().map(|of_block| of_block as _),
        cuts: Some(&before.cuts),
    };
    let TowerSolution { masks, weights, rank } = solve_tower(model.as_mut(), &request, inputs, &mut show)?;
    let path = draft.folder().join(MASKS);
    masks.save(&path)?;
    let changed = draft.folder().join(WEIGHTS);
    if !weights.is_empty() {
        weights.save(&changed, &masks)?;
    }

    let written = MaskSet::load(&path)?;
    if !weights.is_empty() {
        WeightSet::load(&changed, &written)?.apply(model.as_mut())?;
    }
    let mut certificate = recount(model.as_ref(), &request, counts.as_ref(), (&written, &before))?;
    certificate.calibration = calibration.short;
    if !certificate.holds() {
        return Err(PipelineError::Certificate(certificate.violations));
    }
    let mut result = plain(&certificate)?;
    if let (Some(warning), Some(result)) = (rank.warning(), result.as_object_mut()) {
        result.insert("rank-deficit".to_owned(), plain(&rank)?);
        result.insert("warning".to_owned(), Value::String(warning.clone()));
        progress(1.0, &warning);
    }
    Ok(result)
}

/// Recounts published masks on the weights they belong to.
pub(crate) fn recounted(
    executor: &mut Executor,
    node: &StageNode,
    entry: &Entry,
) -> Result<Certificate, PipelineError> {
    let request = request(node)?;
    let counts = sensitivity::counts(executor, node)?;
    let (mut model, before) = executor.changed(node)?;
    let masks = MaskSet::load(&entry.file(MASKS)?)?;
    changes(entry, &masks)?.apply(model.as_mut())?;
    recount(model.as_ref(), &request, counts.as_ref(), (&masks, &before))
}

/// Weights that a published stage changed, beside its masks.
pub(crate) fn changes(entry: &Entry, masks: &MaskSet) -> Result<WeightSet, PipelineError> {
    if !entry.manifest.files.contains_key(WEIGHTS) {
        return Ok(WeightSet::new());
    }
    Ok(WeightSet::load(&entry.file(WEIGHTS)?, masks)?)
}

fn recount(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    counts: Option<&Counts>,
    (masks, before): (&MaskSet, &Changes),
) -> Result<Certificate, PipelineError> {
    Ok(match counts {
        Some(counts) => certify_tower_divided(model, request, counts, masks, &before.masks)?,
        None => certify_tower_within(model, request, &before.cuts, masks, &before.masks)?,
    })
}

fn request(node: &StageNode) -> Result<PruneRequest, PipelineError> {
    let Stage::Prune { tower, metric, pattern, sparsity, group, calibration, seed, method, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a prune stage".to_owned()));
    };
    Ok(PruneRequest {
        tower: *tower,
        metric: *metric,
        method: method.as_deref().copied().unwrap_or_default(),
        pattern: *pattern,
        sparsity: *sparsity,
        group: *group,
        propagate: calibration.as_ref().map_or(Propagate::Dense, |c| c.propagate),
        tokens: calibration.as_ref().map(|c| c.tokens).unwrap_or_default(),
        seed: seed.unwrap_or(0),
    })
}

fn calibration(executor: &mut Executor, node: &StageNode) -> Result<Calibration, PipelineError> {
    let Stage::Prune { calibration: Some(calibration), data: Some(data), seed, .. } = &*node.stage else {
        return Ok(Calibration::default());
    };
    let dense = executor.dense(node)?;
    executor.samples(data, &dense)?.calibration(calibration, seed.unwrap_or(0))
}

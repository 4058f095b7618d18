//! Stage `prune`: masks of one tower with their certificate.

use ressa_experiment::{Stage, StageNode, config::Propagate, record::Certificate};
use ressa_models::{MaskSet, Sample, VisionLanguage};
use ressa_prune::{
    PruneRequest, allocation::Counts, certify_tower, certify_tower_divided, prune_tower, prune_tower_divided,
};
use ressa_store::{Draft, Entry};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    executor::{Progress, plain},
    sensitivity,
};

/// File of the keep masks.
pub(crate) const MASKS: &str = "masks.safetensors";

/// Prunes the tower, publishes the masks, and certifies what was written by reading it back.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let request = request(node)?;
    let counts = sensitivity::counts(executor, node)?;
    let samples = calibration(executor, node)?;
    let mut model = executor.masked(node)?;
    let message = format!("{} {}", request.metric.name(), request.tower);
    let mut show = |share| progress(share, &message);
    let pruned = match &counts {
        Some(counts) => prune_tower_divided(model.as_mut(), &request, counts, &samples, &mut show)?,
        None => prune_tower(model.as_mut(), &request, &samples, &mut show)?,
    };
    let path = draft.folder().join(MASKS);
    pruned.masks.save(&path)?;

    let written = MaskSet::load(&path)?;
    written.apply(model.as_mut())?;
    let certificate = recount(model.as_ref(), &request, counts.as_ref(), &written)?;
    if !certificate.holds() {
        return Err(PipelineError::Certificate(certificate.violations));
    }
    plain(&certificate)
}

/// Recounts published masks on the dense weights.
pub(crate) fn verify(executor: &mut Executor, node: &StageNode, entry: &Entry) -> Result<Vec<String>, PipelineError> {
    let request = request(node)?;
    let counts = sensitivity::counts(executor, node)?;
    let mut model = executor.dense(node)?.model.shallow_clone();
    let masks = MaskSet::load(&entry.file(MASKS)?)?;
    masks.apply(model.as_mut())?;
    let found = recount(model.as_ref(), &request, counts.as_ref(), &masks)?;
    let published: Certificate = entry.result()?;
    let mut violations = found.violations.clone();
    if found.tensors != published.tensors {
        violations.push("a recount differs from the published certificate".to_owned());
    }
    Ok(violations)
}

fn recount(
    model: &dyn VisionLanguage,
    request: &PruneRequest,
    counts: Option<&Counts>,
    masks: &MaskSet,
) -> Result<Certificate, PipelineError> {
    Ok(match counts {
        Some(counts) => certify_tower_divided(model, request, counts, masks)?,
        None => certify_tower(model, request, masks)?,
    })
}

fn request(node: &StageNode) -> Result<PruneRequest, PipelineError> {
    let Stage::Prune { tower, metric, pattern, sparsity, group, calibration, seed, .. } = &node.stage else {
        return Err(PipelineError::Internal("not a prune stage".to_owned()));
    };
    Ok(PruneRequest {
        tower: *tower,
        metric: *metric,
        pattern: *pattern,
        sparsity: *sparsity,
        group: *group,
        propagate: calibration.as_ref().map_or(Propagate::Dense, |c| c.propagate),
        seed: seed.unwrap_or(0),
    })
}

fn calibration(executor: &mut Executor, node: &StageNode) -> Result<Vec<Sample>, PipelineError> {
    let Stage::Prune { calibration: Some(calibration), data: Some(data), seed, .. } = &node.stage else {
        return Ok(Vec::new());
    };
    let dense = executor.dense(node)?;
    executor.samples(data, &dense)?.calibration(calibration, seed.unwrap_or(0))
}

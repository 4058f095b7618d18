//! Stage `merge`: adapters folded into the weights, proven and certified. The weights themselves are not stored: they follow from the
//! dense model, the masks and the adapters in milliseconds.

use ressa_experiment::{Stage, StageNode, record::Certificate};
use ressa_models::VisionLanguage;
use ressa_restore::{Merged, merge};
use ressa_store::{Draft, Entry};
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    executor::{Progress, plain},
};

/// Merges and certifies.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    _draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    progress(0.0, "merging");
    let (_, merged) = executor.merged(node)?;
    if !merged.certificate.holds() {
        return Err(PipelineError::Certificate(merged.certificate.violations));
    }
    plain(&merged.certificate)
}

/// Merges again and compares with what was published.
pub(crate) fn verify(executor: &mut Executor, node: &StageNode, entry: &Entry) -> Result<Vec<String>, PipelineError> {
    let (_, merged) = executor.merged(node)?;
    let published: Certificate = entry.result()?;
    let mut violations = merged.certificate.violations.clone();
    if merged.certificate.tensors != published.tensors {
        violations.push("a recount differs from the published certificate".to_owned());
    }
    Ok(violations)
}

impl Executor {
    /// The model with its adapters merged, and what the merge found.
    pub(crate) fn merged(&mut self, node: &StageNode) -> Result<(Box<dyn VisionLanguage>, Merged), PipelineError> {
        let Stage::Merge { method } = &node.stage else {
            return Err(PipelineError::Internal("not a merge stage".to_owned()));
        };
        let adapter =
            node.inputs.adapter.as_ref().ok_or_else(|| PipelineError::Internal("the merge reads no adapter".to_owned()))?;
        let adapters = self.adapters(adapter)?;
        let mut model = self.masked(&node.inputs)?;
        let merged = merge(model.as_mut(), &adapters, *method)?;
        Ok((model, merged))
    }
}

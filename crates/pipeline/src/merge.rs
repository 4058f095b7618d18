//! Stage `merge`: adapters folded into the weights, proven and certified. The weights themselves are not stored: they follow from the
//! dense model, the masks and the adapters in milliseconds, see [`crate::changes`].

use ressa_experiment::{ReadingKind, Stage, StageNode, record::Certificate};
use ressa_restore::{MergeRequest, Merged, merge};
use ressa_store::Draft;
use serde_json::Value;

use crate::{
    Executor, PipelineError,
    adapt::evolved,
    changes::Changes,
    executor::{Progress, plain},
    resident::node_of,
};

/// Merges and certifies.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    _draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    progress(0.0, "merging");
    let merged = executor.merged(node)?;
    if !merged.certificate.holds() {
        return Err(PipelineError::Certificate(merged.certificate.violations));
    }
    plain(&merged.certificate)
}

/// Merges again.
pub(crate) fn recounted(executor: &mut Executor, node: &StageNode) -> Result<Certificate, PipelineError> {
    Ok(executor.merged(node)?.certificate)
}

impl Executor {
    /// What a merge makes of the dense model and what earlier steps changed of it. The outputs before and after are compared on a few calibration samples.
    pub(crate) fn merged(&mut self, node: &StageNode) -> Result<Merged, PipelineError> {
        let Stage::Merge { method, .. } = &*node.stage else {
            return Err(PipelineError::Internal("not a merge stage".to_owned()));
        };
        let missing = || PipelineError::Internal("the merge reads no adapter".to_owned());
        let adapter = node.inputs.adapter.as_ref().ok_or_else(missing)?;
        let adapters = self.adapters(adapter)?;
        let (mut pruned, mut changes) = self.changed(node)?;
        let entry = self.store.require(&adapter.hex())?;
        let evolved = evolved(&entry)?;
        let before = evolved.as_ref().map(|_| changes.masks.shallow_clone());
        if let Some((masks, weights)) = evolved {
            weights.apply(pruned.as_mut())?;
            changes.masks.extend(masks);
        }
        let adapted = node_of(&entry)?;
        let Stage::Adapt { data, .. } = &*adapted.stage else {
            return Err(missing());
        };
        let mut data = data.clone();
        if let Some(reading) = node.readings.of(ReadingKind::Data) {
            data.root = Some((&reading.place).into());
        }
        let dense = self.dense(node)?;
        let probe = self.samples(&data, &dense)?.probe()?;
        let Changes { masks, patterns, cuts, .. } = &changes;
        let request =
            MergeRequest { method: *method, masks, adapters: &adapters, patterns, cuts, before: before.as_ref() };
        Ok(merge(pruned.as_ref(), request, &probe)?)
    }
}

//! Stage `statistics`: what the layers of a tower of the dense model see, once for every method, ratio and pattern that is pruned from it.

use ressa_experiment::{Stage, StageKey, StageNode, config::StatisticsNeeds};
use ressa_prune::{
    PruneError,
    calibrate::{BlockStatistics, Calibration},
    statistics::Needs,
};
use ressa_store::{Draft, Entry};
use serde_json::{Value, json};

use crate::{Executor, PipelineError, executor::Progress};

/// File of a block's statistics.
fn file(block: usize) -> String {
    format!("block-{block:03}.safetensors")
}

/// Collects and publishes the statistics, one file per block.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Statistics { tower, needs, calibration, data, seed, .. } = &node.stage else {
        return Err(PipelineError::Internal("not a statistics stage".to_owned()));
    };
    let dense = executor.dense(node)?;
    let samples = executor.samples(data, &dense)?.calibration(calibration, *seed)?;
    let model = dense.model.as_ref();
    let mut pass = Calibration::enter(model, *tower, calibration.propagate, wanted(*needs), &samples);
    pass = pass.weighing(calibration.tokens);
    let blocks = model.blocks(*tower);
    for block in 0..blocks {
        pass.observe(model, block)?.save(&draft.folder().join(file(block)))?;
        progress((block + 1) as f64 / blocks as f64, &format!("statistics {tower}"));
    }
    Ok(json!({ "blocks": blocks }))
}

/// The published statistics of a `prune` stage; `None` where they are not there, and have to be collected on the way.
pub(crate) fn stored(executor: &Executor, key: Option<&StageKey>) -> Result<Option<Entry>, PipelineError> {
    match key {
        Some(key) if executor.store.usable(&key.0)? => Ok(executor.store.entry(&key.0)?),
        _ => Ok(None),
    }
}

/// The statistics of a block, on the executor's device.
pub(crate) fn block(executor: &Executor, entry: &Entry, block: usize) -> Result<BlockStatistics, PruneError> {
    let path = entry.file(&file(block)).map_err(|e| PruneError::Statistics { reason: e.to_string() })?;
    BlockStatistics::load(&path, executor.device)
}

fn wanted(needs: StatisticsNeeds) -> Needs {
    Needs { norms: needs.norms, moments: needs.moments, gram: needs.gram }
}

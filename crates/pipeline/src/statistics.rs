//! Stage `statistics`: what the layers of a tower see before a step prunes it, once for every method, ratio and pattern that is pruned from it.

use std::rc::Rc;

use ressa_experiment::{Stage, StageNode, config::StatisticsNeeds, record::Shortfall};
use ressa_prune::{
    PruneError, collect,
    statistics::{BlockStatistics, Needs},
    walk::Look,
};
use ressa_runtime::Device;
use ressa_store::{Draft, Entry};
use serde_json::{Value, json};

use crate::{Executor, PipelineError, executor::Progress, samples::Calibration};

/// Field of the result that holds what was missing of the calibration images.
const CALIBRATION: &str = "calibration";

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
    let Stage::Statistics { tower, needs, calibration, data, seed, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a statistics stage".to_owned()));
    };
    let dense = executor.dense(node)?;
    let Calibration { samples, short } = executor.samples(data, &dense)?.calibration(calibration, *seed)?;
    let model = executor.masked(node)?;
    let model = model.as_ref();
    let look = Look { needs: wanted(*needs), tokens: calibration.tokens };
    let blocks = model.blocks(*tower);
    collect(model, *tower, look, &samples, &mut |block, statistics| {
        statistics.save(&draft.folder().join(file(block)))?;
        progress((block + 1) as f64 / blocks as f64, &format!("statistics {tower}"));
        Ok(())
    })?;
    let mut result = json!({ "blocks": blocks });
    if let Some(short) = short {
        result[CALIBRATION] = json!(short);
    }
    Ok(result)
}

/// Statistics up to this many bytes stay in memory for the next stage that reads them.
const KEPT: u64 = 512 << 20;

/// Published statistics of a tower.
pub(crate) struct Published {
    entry: Entry,
    device: Device,
    /// Every block's, where they are few enough to stay.
    blocks: Option<Vec<BlockStatistics>>,
}

impl Published {
    /// What was missing of the calibration images.
    pub fn short(&self) -> Result<Option<Shortfall>, PipelineError> {
        let result: Value = self.entry.result()?;
        Ok(result.get(CALIBRATION).and_then(|short| serde_json::from_value(short.clone()).ok()))
    }

    /// The statistics of a block.
    pub fn block(&self, block: usize) -> Result<BlockStatistics, PruneError> {
        match &self.blocks {
            Some(blocks) => blocks
                .get(block)
                .cloned()
                .ok_or_else(|| PruneError::Statistics { reason: format!("there is no block {block}") }),
            None => load(&self.entry, block, self.device),
        }
    }
}

impl Executor {
    /// The published statistics that a stage reads; `None` where they are not there, and have to be collected on the way.
    pub(crate) fn statistics(&mut self, node: &StageNode) -> Result<Option<Rc<Published>>, PipelineError> {
        let Some(key) = &node.inputs.statistics else { return Ok(None) };
        if let Some(known) = self.resident.statistics.get(key) {
            return Ok(Some(Rc::clone(known)));
        }
        if !self.store.usable(&key.hex())? {
            return Ok(None);
        }
        let entry = self.store.require(&key.hex())?;
        let bytes = |published: &Published| published.entry.manifest.files.values().map(|file| file.bytes).sum::<u64>();
        let mut published = Published { entry, device: self.device, blocks: None };
        let held: u64 = self.resident.statistics.values().map(|known| bytes(known)).sum();
        if bytes(&published) > KEPT {
            return Ok(Some(Rc::new(published)));
        }
        if held + bytes(&published) > KEPT {
            self.resident.statistics.clear();
        }
        let blocks = published.entry.manifest.files.len();
        let load = |block| {
            let mut statistics = load(&published.entry, block, self.device)?;
            statistics.remember();
            Ok::<_, PruneError>(statistics)
        };
        published.blocks = Some((0..blocks).map(load).collect::<Result<_, _>>()?);
        let published = Rc::new(published);
        self.resident.statistics.insert(*key, Rc::clone(&published));
        Ok(Some(published))
    }
}

fn load(entry: &Entry, block: usize, device: Device) -> Result<BlockStatistics, PruneError> {
    let path = entry.file(&file(block)).map_err(|e| PruneError::Statistics { reason: e.to_string() })?;
    BlockStatistics::load(&path, device)
}

/// What is collected, as pruning calls it.
pub(crate) fn wanted(needs: StatisticsNeeds) -> Needs {
    Needs { norms: needs.norms, moments: needs.moments, gram: needs.gram }
}

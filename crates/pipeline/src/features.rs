//! Which evaluations share image features: those of one image encoder, on one kind of device.

use ressa_eval::FeatureCache;
use ressa_experiment::{
    Stage, StageKey, StageNode, Tower,
    config::{DataConfig, DataSource},
};
use serde_json::json;

use crate::{Executor, PipelineError, resident::node_of};

impl Executor {
    /// The cache of the image encoder that an evaluation looks through; `None` where there is no cache, where images are drawn, and
    /// where the encoder was trained in this run, so that no other run has it.
    pub(crate) fn feature_cache(
        &self,
        node: &StageNode,
        data: &DataConfig,
    ) -> Result<Option<FeatureCache>, PipelineError> {
        let Some(cache) = self.loading.cache.as_ref().filter(|_| data.source == DataSource::Folder) else {
            return Ok(None);
        };
        let mut inputs = node.inputs.clone();
        if let Some(merge) = &node.inputs.merge {
            inputs = node_of(&self.store.require(&merge.hex())?)?.inputs;
        }
        if let Some(adapter) = &inputs.adapter
            && self.trains_vision(adapter)?
        {
            return Ok(None);
        }
        let mut masks = Vec::new();
        for key in &inputs.masks {
            let entry = self.store.require(&key.hex())?;
            if matches!(&*node_of(&entry)?.stage, Stage::Prune { tower: Tower::Vision, .. }) {
                let files: Vec<&str> = entry.manifest.files.values().map(|file| file.blake3.as_str()).collect();
                masks.push(json!({ "stage": key, "files": files }));
            }
        }
        let encoder = json!({
            "dense": inputs.dense.as_ref(),
            "masks": masks,
            "compute": node.stage.compute(),
            "arithmetic": self.arithmetic(),
        });
        Ok(Some(FeatureCache::new(cache, encoder.to_string())))
    }

    fn trains_vision(&self, adapter: &StageKey) -> Result<bool, PipelineError> {
        let node = node_of(&self.store.require(&adapter.hex())?)?;
        let Stage::Adapt { training, .. } = &*node.stage else {
            return Err(PipelineError::Internal("the merge reads no adapter".to_owned()));
        };
        Ok(training.vision.as_ref().is_some_and(|adapter| adapter.tune && adapter.rank > 0))
    }
}

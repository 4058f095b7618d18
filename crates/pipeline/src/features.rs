//! Which evaluations and trainings share image features: those of one image encoder, on one kind of device.

use std::path::Path;

use ressa_data::{ImageLoader, Picture, parallel};
use ressa_eval::FeatureCache;
use ressa_experiment::{
    Stage, StageKey, StageNode, Tower,
    config::{DataConfig, DataSource},
    stage::Inputs,
};
use ressa_models::VisionLanguage;
use ressa_runtime::{Device, Levels};
use ressa_store::CacheKey;
use serde_json::{Value, json};

use crate::{Executor, PipelineError, executor::Progress, resident::node_of};

/// Image files as a model reads them.
pub(crate) struct ImagesOf<'a> {
    /// What opens them.
    pub loader: &'a ImageLoader,
    /// Each once.
    pub paths: &'a [&'a Path],
}

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
        let mut masks = Vec::new();
        if self.trains_vision(&node.inputs, &mut masks)? {
            return Ok(None);
        }
        let encoder = json!({
            "dense": node.inputs.dense.as_ref(),
            "masks": masks,
            "compute": node.stage.compute(),
            "arithmetic": self.arithmetic(),
        });
        Ok(Some(FeatureCache::new(cache, encoder.to_string())))
    }

    /// Encodes images that the cache has no features of, and answers with the cache; `None` where there is none or where the features of all
    /// would fill more than half of it. Images that cannot be read are left to whoever opens them next.
    pub(crate) fn encoded_before(
        &self,
        node: &StageNode,
        data: &DataConfig,
        model: &dyn VisionLanguage,
        images: &ImagesOf<'_>,
        progress: Progress<'_>,
    ) -> Result<Option<FeatureCache>, PipelineError> {
        /// Images that are encoded at once.
        const AT_ONCE: usize = 16;
        let ImagesOf { loader, paths } = images;
        let processor = loader.processor();
        // Features of images of different sizes do not make a batch.
        let fixed = processor.images().has_one_size();
        let Some(cache) =
            self.feature_cache(node, data)?.map(|cache| cache.after(processor.images())).filter(|_| fixed)
        else {
            return Ok(None);
        };
        let unknown: Vec<(&Path, CacheKey)> = paths
            .iter()
            .filter_map(|path| Some((*path, cache.key(&Picture::File(path.to_path_buf()))?)))
            .filter(|(_, key)| cache.get(key).is_none())
            .collect();
        for (number, part) in unknown.chunks(AT_ONCE).enumerate() {
            progress(0.0, &format!("encoding image {} of {}", number * AT_ONCE, unknown.len()));
            let opened = parallel(part.len(), tch::get_num_threads().max(1) as usize, |at| {
                Ok::<_, PipelineError>(loader.levels(part[at].0).ok())
            })?;
            let read: Vec<(&CacheKey, Vec<u8>)> =
                part.iter().zip(opened).filter_map(|((_, key), image)| Some((key, image?.levels))).collect();
            if read.is_empty() {
                continue;
            }
            let (keys, levels): (Vec<&CacheKey>, Vec<Vec<u8>>) = read.into_iter().unzip();
            let levels = Levels::new(levels.concat(), processor.image_size(), self.device);
            let pixels = levels.pixels(0, levels.images(), processor.images().table());
            let features = model.encode_images(&pixels).to_device(Device::Cpu);
            let bytes = features.numel() * features.kind().elt_size_in_bytes() / keys.len();
            if !cache.has_room(paths.len(), bytes) {
                return Ok(None);
            }
            keys.iter().enumerate().for_each(|(row, key)| cache.put(key, &features.get(row as i64)));
        }
        Ok(Some(cache))
    }

    /// Whether a restoration before a stage trained the image encoder; `masks` gets what pruned it.
    fn trains_vision(&self, inputs: &Inputs, masks: &mut Vec<Value>) -> Result<bool, PipelineError> {
        if let Some(merge) = &inputs.merge {
            let merge = node_of(&self.store.require(&merge.hex())?)?;
            let trains = merge.inputs.adapter.as_ref().map_or(Ok(false), |adapter| self.is_of_vision(adapter))?;
            if trains || self.trains_vision(&merge.inputs, masks)? {
                return Ok(true);
            }
        }
        for key in &inputs.masks {
            let entry = self.store.require(&key.hex())?;
            if node_of(&entry)?.stage.masks() == Some(Tower::Vision) {
                let files: Vec<&str> = entry.manifest.files.values().map(|file| file.blake3.as_str()).collect();
                masks.push(json!({ "stage": key, "files": files }));
            }
        }
        Ok(false)
    }

    fn is_of_vision(&self, adapter: &StageKey) -> Result<bool, PipelineError> {
        let node = node_of(&self.store.require(&adapter.hex())?)?;
        let Stage::Adapt { training, .. } = &*node.stage else {
            return Err(PipelineError::Internal("the merge reads no adapter".to_owned()));
        };
        Ok(training.vision.as_ref().is_some_and(|adapter| adapter.tune && adapter.trains()))
    }
}

//! What an executor keeps in memory between stages: the dense model, the masked model it worked on last, worlds and benchmarks.

use std::{collections::HashMap, rc::Rc};

use ressa_data::{Benchmark, Processor, World};
use ressa_eval::Prepared;
use ressa_experiment::{
    Stage, StageKey, StageNode, Task,
    config::{AskingConfig, DataConfig},
    stage::Inputs,
};
use ressa_models::{AdapterSet, MaskSet, VisionLanguage};
use ressa_store::{Entry, Manifest};

use crate::{Executor, PipelineError};

/// A dense model with the files that feed it.
pub(crate) struct Dense {
    pub key: String,
    pub model: Box<dyn VisionLanguage>,
    pub processor: Processor,
}

/// The caches. Each holds what the scheduler is likely to ask for next, and nothing more.
#[derive(Default)]
pub(crate) struct Resident {
    dense: Option<Rc<Dense>>,
    worlds: HashMap<String, Rc<World>>,
    prepared: HashMap<String, Rc<Prepared>>,
    state: Option<(Inputs, Rc<dyn VisionLanguage>)>,
}

impl Executor {
    /// The dense model a stage reads.
    pub(crate) fn dense(&mut self, inputs: &Inputs) -> Result<Rc<Dense>, PipelineError> {
        let key = inputs
            .dense
            .as_ref()
            .ok_or_else(|| PipelineError::Internal("the stage reads no dense model".to_owned()))?;
        if let Some(dense) = self.resident.dense.as_ref().filter(|d| d.key == key.0) {
            return Ok(dense.clone());
        }
        let folder = self.model_folder(key)?;
        let dense = Rc::new(Dense {
            key: key.0.clone(),
            model: ressa_models::load_folder(&folder, self.device)?,
            processor: Processor::load(&folder)?,
        });
        self.resident.state = None;
        self.resident.dense = Some(dense.clone());
        Ok(dense)
    }

    /// The checkpoint folder behind a dense stage.
    fn model_folder(&self, key: &StageKey) -> Result<std::path::PathBuf, PipelineError> {
        let entry = self.store.require(&key.0)?;
        Ok(crate::dense::checkpoint_of(&entry).unwrap_or_else(|| entry.folder().join(crate::dense::MODEL)))
    }

    /// The embedded world of a data configuration.
    pub(crate) fn world(&mut self, data: &DataConfig) -> Result<Rc<World>, PipelineError> {
        let name = identity(data);
        if let Some(world) = self.resident.worlds.get(&name) {
            return Ok(world.clone());
        }
        let world = Rc::new(World::new(data)?);
        self.resident.worlds.insert(name, world.clone());
        Ok(world)
    }

    /// A benchmark as tensors, for a model's processor.
    pub(crate) fn prepared(
        &mut self,
        dense: &Dense,
        data: &DataConfig,
        task: Task,
        items: u32,
        asking: Option<&AskingConfig>,
    ) -> Result<Rc<Prepared>, PipelineError> {
        let name = identity(&(&dense.key, data, task, items, asking));
        if let Some(prepared) = self.resident.prepared.get(&name) {
            return Ok(prepared.clone());
        }
        let mut benchmark = Benchmark::load(data, task, items as usize)?;
        if let Some(asking) = asking {
            benchmark = benchmark.asked(asking);
        }
        let prepared = Rc::new(Prepared::new(&dense.processor, &benchmark, self.device)?);
        self.resident.prepared.insert(name, prepared.clone());
        Ok(prepared)
    }

    /// A fresh view of the dense model with the masks of some stages.
    pub(crate) fn masked(&mut self, inputs: &Inputs) -> Result<Box<dyn VisionLanguage>, PipelineError> {
        let dense = self.dense(inputs)?;
        let mut model = dense.model.shallow_clone();
        self.masks(&inputs.masks)?.apply(model.as_mut())?;
        Ok(model)
    }

    /// The union of the masks of some stages.
    pub(crate) fn masks(&self, keys: &[StageKey]) -> Result<MaskSet, PipelineError> {
        let mut all = MaskSet::new();
        for key in keys {
            all.extend(MaskSet::load(&self.store.require(&key.0)?.file(crate::prune::MASKS)?)?);
        }
        Ok(all)
    }

    /// The adapters of a stage.
    pub(crate) fn adapters(&self, key: &StageKey) -> Result<AdapterSet, PipelineError> {
        Ok(AdapterSet::load(&self.store.require(&key.0)?.file(crate::adapt::ADAPTER)?)?)
    }

    /// The model that an evaluation looks at: masked, or merged; weights final. Kept for the next task of the same run.
    pub(crate) fn evaluated(&mut self, inputs: &Inputs) -> Result<Rc<dyn VisionLanguage>, PipelineError> {
        if let Some((known, model)) = &self.resident.state
            && known == inputs
        {
            return Ok(model.clone());
        }
        let mut model = match &inputs.merge {
            None => self.masked(inputs)?,
            Some(key) => {
                let node = node_of(&self.store.require(&key.0)?)?;
                self.merged_model(&node)?
            }
        };
        for (_, linear) in model.linears_mut() {
            linear.bake()?;
        }
        let model: Rc<dyn VisionLanguage> = Rc::from(model);
        self.resident.state = Some((inputs.clone(), model.clone()));
        Ok(model)
    }
}

/// The stage behind a published entry.
pub(crate) fn node_of(entry: &Entry) -> Result<StageNode, PipelineError> {
    let Manifest { key, configuration, inputs, .. } = &entry.manifest;
    let broken = |e: serde_json::Error| {
        PipelineError::Internal(format!("manifest of stage `{key}` is of another version ({e})"))
    };
    Ok(StageNode {
        key: StageKey(key.clone()),
        stage: serde_json::from_value::<Stage>(configuration.clone()).map_err(broken)?,
        inputs: serde_json::from_value::<Inputs>(inputs.clone()).map_err(broken)?.into(),
    })
}

fn identity(settings: &impl serde::Serialize) -> String {
    serde_json::to_string(settings).expect("settings are plain data")
}

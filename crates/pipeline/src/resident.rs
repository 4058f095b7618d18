//! What an executor keeps in memory between stages: the dense model, the masked model it worked on last, worlds and benchmarks.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use ressa_data::{Benchmark, Processor, World};
use ressa_eval::{CaptionPool, Prepared};
use ressa_experiment::{
    KeyError, ReadingKind, Readings, Stage, StageKey, StageNode, Task,
    config::{AskingConfig, Crop, DataConfig, OkvqaConfig},
    job::Compute,
    stage::Inputs,
};
use ressa_models::{LoadOptions, ModelError, Rounding, UpdateSet, VisionLanguage, folder::load_options};
use ressa_store::{Entry, Manifest};
use serde_json::Value;
use tch::{Device, Tensor};

use crate::{Executor, PipelineError, statistics::Published};

/// A dense model with the files that feed it.
pub(crate) struct Dense {
    pub key: StageKey,
    compute: Option<Compute>,
    pub model: Box<dyn VisionLanguage>,
    pub processor: Rc<Processor>,
}

/// An image-text matching model with the files that feed it.
pub(crate) struct Matcher {
    folder: PathBuf,
    compute: Option<Compute>,
    pub model: Box<dyn VisionLanguage>,
    pub processor: Processor,
}

/// The model that an evaluation looked at last.
struct State {
    inputs: Inputs,
    compute: Option<Compute>,
    model: Rc<dyn VisionLanguage>,
}

/// The caches. Each holds what the scheduler is likely to ask for next, and nothing more.
#[derive(Default)]
pub(crate) struct Resident {
    dense: Option<Rc<Dense>>,
    /// The processor of the dense model of a key: an evaluation needs it when the dense model is no longer in memory.
    processor: Option<(StageKey, Rc<Processor>)>,
    worlds: HashMap<String, Arc<World>>,
    prepared: HashMap<String, Rc<Prepared>>,
    state: Option<State>,
    matcher: Option<Rc<Matcher>>,
    /// Captions that were retrieved from last, by what they and their embeddings follow from.
    pub pool: Option<(String, Rc<CaptionPool>)>,
    /// Captions that a model beside the evaluated one found for the items of a task, which are those of every run, by what they follow from.
    pub retrieved: HashMap<String, Vec<Vec<String>>>,
    pub statistics: HashMap<StageKey, Rc<Published>>,
}

impl Executor {
    /// The dense model a stage reads, computing as the stage says.
    pub(crate) fn dense(&mut self, node: &StageNode) -> Result<Rc<Dense>, PipelineError> {
        let compute = node.stage.compute();
        let key = dense_of(node)?;
        if let Some(dense) = self.resident.dense.as_ref().filter(|d| d.key == *key && d.compute == compute) {
            return Ok(dense.clone());
        }
        let (folder, published) = self.folder(node)?;
        // Two dense models at once may be more than the device holds.
        (self.resident.state, self.resident.dense) = (None, None);
        self.resident.statistics.clear();
        let dense = Rc::new(Dense {
            key: *key,
            compute,
            model: self.load(&folder, compute, published)?,
            processor: self.processor(node)?,
        });
        self.resident.dense = Some(dense.clone());
        Ok(dense)
    }

    /// The processor of the dense model that a stage reads; the model itself need not be in memory.
    pub(crate) fn processor(&mut self, node: &StageNode) -> Result<Rc<Processor>, PipelineError> {
        let key = dense_of(node)?;
        if let Some((_, processor)) = self.resident.processor.as_ref().filter(|(known, _)| known == key) {
            return Ok(processor.clone());
        }
        let processor = Rc::new(Processor::load(&self.folder(node)?.0)?);
        self.resident.processor = Some((*key, processor.clone()));
        Ok(processor)
    }

    /// The folder of the dense model that a stage reads, and whether it is a published one.
    pub(crate) fn folder(&self, node: &StageNode) -> Result<(PathBuf, bool), PipelineError> {
        self.model_folder(dense_of(node)?, &node.readings)
    }

    /// The folder behind a dense stage, and whether it is a published one. A published folder is where the reader's readings say: it may
    /// have moved since it was adopted.
    pub(crate) fn model_folder(&self, dense: &StageKey, readings: &Readings) -> Result<(PathBuf, bool), PipelineError> {
        let entry = self.store.require(&dense.hex())?;
        Ok(match crate::dense::checkpoint_of(&entry) {
            Some(adopted) => (readings.of(ReadingKind::Model).map_or(adopted, |model| (&model.place).into()), true),
            None => (entry.folder().join(crate::dense::MODEL), crate::rescale::is_published(&entry)),
        })
    }

    /// Loads a model folder. Where nobody says how to compute: f32; but published weights on a GPU in the type they are stored in.
    pub(crate) fn load(
        &self,
        folder: &Path,
        compute: Option<Compute>,
        published: bool,
    ) -> Result<Box<dyn VisionLanguage>, PipelineError> {
        Ok(load_on(self.device, folder, compute, published)?)
    }

    /// The embedded world of a data configuration.
    pub(crate) fn world(&mut self, data: &DataConfig) -> Result<Arc<World>, PipelineError> {
        let name = identity(data);
        if let Some(world) = self.resident.worlds.get(&name) {
            return Ok(world.clone());
        }
        let world = Arc::new(World::new(data)?);
        self.resident.worlds.insert(name, world.clone());
        Ok(world)
    }

    /// A benchmark as tensors, for the processor of the dense model that a stage reads.
    pub(crate) fn prepared(
        &mut self,
        node: &StageNode,
        data: &DataConfig,
        (task, items): (Task, u32),
        (asking, okvqa): (Option<&AskingConfig>, Option<&OkvqaConfig>),
    ) -> Result<Rc<Prepared>, PipelineError> {
        let crop = okvqa.map(|okvqa| okvqa.crop).unwrap_or_default();
        let name = identity(&(&node.inputs.dense, data, task, items, asking, crop));
        if let Some(prepared) = self.resident.prepared.get(&name) {
            return Ok(prepared.clone());
        }
        let mut benchmark = Benchmark::load(data, task, items as usize)?;
        benchmark = benchmark.asked(asking.unwrap_or(&AskingConfig::default()));
        let processor = self.processor_of(node, okvqa)?;
        self.make_room();
        let prepared = Rc::new(Prepared::new(&processor, &benchmark, self.device)?);
        self.resident.prepared.insert(name, prepared.clone());
        Ok(prepared)
    }

    /// The processor of the dense model that a stage reads, with images cropped as OK-VQA's settings say.
    pub(crate) fn processor_of(
        &mut self,
        node: &StageNode,
        okvqa: Option<&OkvqaConfig>,
    ) -> Result<Processor, PipelineError> {
        let processor = (*self.processor(node)?).clone();
        Ok(match okvqa.map(|okvqa| okvqa.crop).unwrap_or_default() {
            Crop::Center => processor.center_cropped(),
            Crop::Processor => processor,
        })
    }

    /// Forgets benchmarks when many are known: those of experiments that are done.
    fn make_room(&mut self) {
        const KNOWN: usize = 16;
        if self.resident.prepared.len() >= KNOWN {
            self.resident.prepared.clear();
        }
    }

    /// The matching model in a folder.
    pub(crate) fn matcher(&mut self, folder: &Path, compute: Option<Compute>) -> Result<Rc<Matcher>, PipelineError> {
        if let Some(known) = self.resident.matcher.as_ref().filter(|m| m.folder == folder && m.compute == compute) {
            return Ok(known.clone());
        }
        self.resident.matcher = None;
        let matcher = Rc::new(Matcher {
            folder: folder.to_owned(),
            compute,
            model: self.load(folder, compute, true)?,
            processor: Processor::load(folder)?,
        });
        self.resident.matcher = Some(matcher.clone());
        Ok(matcher)
    }

    /// A retrieval benchmark as tensors, for a matching model.
    pub(crate) fn matched(
        &mut self,
        matcher: &Matcher,
        data: &DataConfig,
        task: Task,
        items: u32,
        tokens: usize,
    ) -> Result<Rc<Prepared>, PipelineError> {
        let name = identity(&(&matcher.folder, data, task, items, tokens));
        if let Some(prepared) = self.resident.prepared.get(&name) {
            return Ok(prepared.clone());
        }
        let benchmark = Benchmark::load(data, task, items as usize)?;
        self.make_room();
        let prepared = Rc::new(Prepared::for_matching(&matcher.processor, &benchmark, tokens, self.device)?);
        self.resident.prepared.insert(name, prepared.clone());
        Ok(prepared)
    }

    /// The adapters of a stage.
    pub(crate) fn adapters(&self, key: &StageKey) -> Result<UpdateSet, PipelineError> {
        Ok(UpdateSet::load(&self.store.require(&key.hex())?.file(crate::adapt::ADAPTER)?)?)
    }

    /// The model that an evaluation looks at: masked, or merged; weights final. Kept for the next task of the same run.
    ///
    /// A large dense model is used up: its weights give way to the final ones layer by layer, so that two models are never held at once.
    pub(crate) fn evaluated(&mut self, node: &StageNode) -> Result<Rc<dyn VisionLanguage>, PipelineError> {
        let compute = node.stage.compute();
        if let Some(known) = &self.resident.state
            && known.inputs == *node.inputs
            && known.compute == compute
        {
            return Ok(known.model.clone());
        }
        self.resident.state = None;
        let changes = self.changes(&node.inputs)?;
        let dense = self.dense(node)?;
        let mut model = dense.model.shallow_clone();
        if is_large(model.as_ref()) {
            self.resident.dense = None;
        }
        drop(dense);
        changes.bake(model.as_mut())?;
        let model: Rc<dyn VisionLanguage> = Rc::from(model);
        self.resident.state = Some(State { inputs: (*node.inputs).clone(), compute, model: model.clone() });
        Ok(model)
    }

    /// Lets go of what only evaluations look at, where it is large: other stages need the memory.
    pub(crate) fn release_evaluations(&mut self) {
        let resident = &mut self.resident;
        resident.state = resident.state.take().filter(|state| !is_large(state.model.as_ref()));
        resident.matcher = resident.matcher.take().filter(|matcher| !is_large(matcher.model.as_ref()));
        resident.pool = resident.pool.take().filter(|(_, pool)| pool.bytes() <= LARGE_POOL);
    }
}

/// As [`Executor::load`], for what outlives a look at the executor.
pub(crate) fn load_on(
    device: Device,
    folder: &Path,
    compute: Option<Compute>,
    published: bool,
) -> Result<Box<dyn VisionLanguage>, ModelError> {
    let compute = compute.or((!published).then_some(Compute::Float32));
    let options = LoadOptions { rounding: Rounding::Fused, ..load_options(folder, device, compute)? };
    ressa_models::load_folder_with(folder, &options)
}

/// Bytes of a pool's embeddings above which they are not held beside a training.
const LARGE_POOL: u64 = 1 << 26;

/// Whether a model's weights are so large that a second one should not be held beside it.
fn is_large(model: &dyn VisionLanguage) -> bool {
    const LARGE: u64 = 1 << 30;
    let bytes = |weight: &Tensor| (weight.numel() * weight.kind().elt_size_in_bytes()) as u64;
    model.weights().iter().map(|weight| bytes(weight.base())).sum::<u64>() > LARGE
}

/// The key of the dense model that a stage reads.
fn dense_of(node: &StageNode) -> Result<&StageKey, PipelineError> {
    let none = || PipelineError::Internal("the stage reads no dense model".to_owned());
    node.inputs.dense.as_ref().ok_or_else(none)
}

/// The stage behind a published entry; its configuration names contents where the stage read something from outside the store.
pub(crate) fn node_of(entry: &Entry) -> Result<StageNode, PipelineError> {
    let Manifest { key, configuration, inputs, readings, .. } = &entry.manifest;
    let broken = |e: serde_json::Error| {
        PipelineError::Internal(format!("manifest of stage `{key}` is of another version ({e})"))
    };
    Ok(StageNode {
        key: key.parse().map_err(|e: KeyError| PipelineError::Internal(e.to_string()))?,
        stage: serde_json::from_value::<Stage>(configuration.clone()).map_err(broken)?.into(),
        inputs: serde_json::from_value::<Inputs>(inputs.clone()).map_err(broken)?.into(),
        readings: match readings {
            Value::Null => Readings::default(),
            readings => serde_json::from_value(readings.clone()).map_err(broken)?,
        },
    })
}

pub(crate) fn identity(settings: &impl serde::Serialize) -> String {
    serde_json::to_string(settings).expect("settings are plain data")
}

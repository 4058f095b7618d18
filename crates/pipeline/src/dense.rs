//! Stage `dense`: trains a preset of the embedded world, or takes a published checkpoint as it is.

use std::{path::PathBuf, time::Duration};

use ressa_data::{Family, Processor, World, tokenizer::VOCABULARY_SIZE, write_processor_files};
use ressa_experiment::{Stage, StageNode, model::Preset};
use ressa_models::{Blip2Config, Storage, presets};
use ressa_pretrain::{Recipe, Request, train};
use ressa_store::{Draft, Entry, StoreError};
use serde_json::{Value, json};

use crate::{Executor, PipelineError, executor::Progress};

/// Time between two checkpoints of a training.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// Folder of the model within the entry.
pub(crate) const MODEL: &str = "model";

/// Trains or adopts the dense model.
pub(crate) fn run(
    executor: &mut Executor,
    node: &StageNode,
    draft: &Draft<'_>,
    progress: Progress<'_>,
) -> Result<Value, PipelineError> {
    let Stage::Dense { preset, checkpoint, data, seed, steps, .. } = &*node.stage else {
        return Err(PipelineError::Internal("not a dense stage".to_owned()));
    };
    if let Some(checkpoint) = checkpoint {
        return adopt(checkpoint);
    }
    let preset =
        preset.ok_or_else(|| PipelineError::Internal("a dense stage names a preset or a checkpoint".to_owned()))?;
    let config = config(preset);
    let folder = draft.folder().join(MODEL);
    std::fs::create_dir_all(&folder).map_err(|source| StoreError::Write { path: folder.clone(), source })?;
    write_processor_files(&folder, Family::of(preset), config.num_query_tokens as usize)?;
    let processor = Processor::load(&folder)?;
    let world = World::new(data)?;
    let mut recipe = Recipe::of(preset);
    if let Some(steps) = steps {
        recipe = recipe.shortened(*steps);
    }
    let resume = executor.store.scratch(&node.key.hex())?;
    let request = Request {
        config: &config,
        recipe,
        seed: *seed,
        world: &world,
        processor: &processor,
        resume: &resume,
        checkpoint_interval: CHECKPOINT_INTERVAL,
    };
    let tensors = tch::with_grad(|| train(&request, progress))?;
    let parameters: i64 = tensors.values().map(|t| t.numel() as i64).sum();
    ressa_models::save_folder(&folder, &config, &tensors, Storage::Bf16)?;
    Ok(json!({ "preset": preset.name(), "parameters": parameters }))
}

/// Architecture of a preset, with the vocabulary of the embedded world.
fn config(preset: Preset) -> Blip2Config {
    let vocabulary = VOCABULARY_SIZE as i64;
    match preset {
        Preset::ShapesFlanT5 => presets::shapes_flant5(vocabulary),
        Preset::ShapesVicuna => presets::shapes_vicuna(vocabulary),
    }
}

fn adopt(checkpoint: &str) -> Result<Value, PipelineError> {
    let folder = PathBuf::from(checkpoint);
    if !folder.join("config.json").is_file() {
        return Err(PipelineError::Unsupported(format!(
            "checkpoint folder `{checkpoint}` has no config.json; put the published folder there or change `model.checkpoint`"
        )));
    }
    Ok(json!({ "checkpoint": checkpoint }))
}

/// The checkpoint folder that an entry stands for; `None` when the entry holds its own model.
pub(crate) fn checkpoint_of(entry: &Entry) -> Option<PathBuf> {
    entry.manifest.result.get("checkpoint").and_then(Value::as_str).map(PathBuf::from)
}

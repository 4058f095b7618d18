//! The training goes on after a kill as if nothing had happened, and gives an ordinary model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use ressa_data::{Family, Processor, World, tokenizer::VOCABULARY_SIZE, write_processor_files};
use ressa_experiment::{config::DataConfig, model::Preset};
use ressa_models::{Blip2Config, Model, presets};
use ressa_pretrain::{Recipe, Request, TensorMap, train};

const STEPS: u32 = 2;

fn config(preset: Preset) -> Blip2Config {
    match preset {
        Preset::ShapesFlanT5 => presets::shapes_flant5(VOCABULARY_SIZE as i64),
        Preset::ShapesVicuna => presets::shapes_vicuna(VOCABULARY_SIZE as i64),
    }
}

/// Trains a few steps of every stage; panics, as a kill would end it, before `kill_at` progress lines with a step.
fn run(preset: Preset, folder: &Path, kill_at: Option<u32>) -> TensorMap {
    let config = config(preset);
    write_processor_files(folder, Family::of(preset), config.num_query_tokens as usize).unwrap();
    let processor = Processor::load(folder).unwrap();
    let world = World::new(&DataConfig::default()).unwrap();
    let recipe = Recipe { images: 64, vision_images: 8, language_questions: 16, ..Recipe::of(preset).shortened(STEPS) };
    let request = Request {
        config: &config,
        recipe,
        seed: 3,
        world: &world,
        processor: &processor,
        resume: folder,
        checkpoint_interval: Duration::ZERO,
    };
    let mut seen = 0;
    train(&request, &mut |_, line| {
        seen += u32::from(line.contains("loss"));
        assert!(kill_at.is_none_or(|limit| seen <= limit), "killed");
    })
    .unwrap()
}

#[test]
fn a_killed_training_ends_with_the_same_bits() {
    for preset in [Preset::ShapesFlanT5, Preset::ShapesVicuna] {
        let (undisturbed, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = run(preset, undisturbed.path(), None);
        // One kill in each of the four stages.
        for kill_at in [1, 2, 2, 2] {
            assert!(catch_unwind(AssertUnwindSafe(|| run(preset, killed.path(), Some(kill_at)))).is_err());
        }
        let resumed = run(preset, killed.path(), None);
        assert_eq!(expected.keys().collect::<Vec<_>>(), resumed.keys().collect::<Vec<_>>());
        for (name, tensor) in &expected {
            assert!(tensor.equal(&resumed[name]), "`{name}` differs after resuming");
        }
        // Nothing of the throw-away heads is left, nothing of the model is missing.
        Model::from_tensors(&config(preset), &expected).unwrap();
        assert!(expected.keys().all(|name| !name.starts_with("auxiliary.")));
    }
}

#[test]
fn a_checkpoint_of_something_else_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("training.safetensors"), b"not a checkpoint").unwrap();
    let error = catch_unwind(AssertUnwindSafe(|| run(Preset::ShapesFlanT5, folder.path(), None))).unwrap_err();
    let text = error.downcast_ref::<String>().unwrap();
    assert!(text.contains("training.safetensors"), "{text}");
}

//! Losses of float16 weights are scaled while they are differentiated: a training resumed from a checkpoint goes on with the scale that it had.

use std::{error::Error, path::Path};

use ressa_experiment::{job::Compute, stage::AdaptTraining};
use ressa_models::{Architecture, LoadOptions, Model, VisionLanguage, presets};
use ressa_restore::{
    BatchSource, Budgets, Checkpoints, Interval, Restoration, RestoreError, TrainingBatch, TrainingOptions,
    train_adapters,
};
use ressa_runtime::Device;
use tch::Tensor;

use crate::world::{Batches, masks, settings};

/// Batches whose first step alone has a contrastive loss, of a weight whose scaled gradient leaves float16's range.
struct Steep(Batches);

impl BatchSource for Steep {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>> {
        let batch = self.0.batch(step)?;
        Ok(TrainingBatch { retrieval: batch.retrieval.filter(|_| step == 0), ..batch })
    }
}

fn train(folder: &Path, sick_at: Option<u32>) -> Result<Restoration, RestoreError> {
    let config = presets::tiny_flant5(40);
    let tensors = presets::random_tensors(&config, 11).expect("tensors");
    let special = Architecture::special_tokens(&config, &Default::default());
    let options = LoadOptions { compute: Compute::Float16, ..LoadOptions::on(Device::Cpu) };
    let mut student: Box<dyn VisionLanguage> =
        Box::new(Model::load(&config, special, &mut &tensors, &options).expect("a model"));
    masks(student.as_ref()).apply(student.as_mut()).expect("masks fit");
    let checkpoints = Checkpoints { folder: folder.to_owned(), every: Interval::Steps(1) };
    let options =
        TrainingOptions { masked: true, seed: 5, checkpoints: Some(&checkpoints), budgets: Budgets::default() };
    let settings = AdaptTraining { contrastive: 2e4, learning_rate: 1e-4, ..settings(5, None) };
    let mut batches = Steep(Batches { sick_at, ..Batches::default() });
    train_adapters(student.as_mut(), None, &settings, options, &mut batches, &mut |_| {})
}

/// What losses are multiplied by in the checkpoint of a folder.
fn scale(folder: &Path) -> f64 {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let read = |path: std::path::PathBuf| Tensor::read_safetensors(path).ok();
    let entries = files.filter_map(read).flatten();
    let mut scales = entries.filter(|(name, _)| name.ends_with("stepper.scale"));
    scales.next().expect("a scale").1.double_value(&[0])
}

#[test]
fn a_resumed_training_keeps_its_scale() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), Some(2)).expect_err("interrupted");
    let lowered = scale(folder.path());
    assert!((1.0..1024.0).contains(&lowered), "the first step lowers it: {lowered}");
    train(folder.path(), Some(4)).expect_err("interrupted again");
    assert_eq!(scale(folder.path()), lowered, "the steps behind it would not");
    let resumed = train(folder.path(), None).expect("trains");
    let whole = tempfile::tempdir().expect("a folder");
    assert_eq!(train(whole.path(), None).expect("trains").losses, resumed.losses);
}

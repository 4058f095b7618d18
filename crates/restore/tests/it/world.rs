//! A small masked model with random weights, and batches for it that follow from the step.

use std::error::Error;

use ressa_experiment::{
    config::{DistillConfig, MatrixUpdate, Recompute, TowerAdapter},
    evolve::EvolveConfig,
    loading::LoadingConfig,
    penalty::PenaltyConfig,
    perturb::NoiseConfig,
    stage::AdaptTraining,
};
use ressa_models::{MaskSet, Model, Prompts, TextBatch, Tower, VisionLanguage, presets};
use ressa_restore::{BatchSource, Probe, TrainingBatch};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

pub fn dense() -> Model {
    presets::random(&presets::tiny_flant5(40), 11).expect("a model")
}

/// Every other weight of vision and language, shifted from row to row: 50 %, and 2:4.
pub fn masks(model: &dyn VisionLanguage) -> MaskSet {
    let mut masks = MaskSet::new();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower != Tower::Connector) {
        let (rows, columns) = linear.shape();
        let range = |n| Tensor::arange(n, (Kind::Int64, Device::Cpu));
        let keep = (range(rows).unsqueeze(1) + range(columns)).remainder(2).eq(0);
        masks.insert(&id.name, keep);
    }
    masks
}

/// A decoder-only model.
pub fn dense_vicuna() -> Model {
    presets::random(&presets::tiny_vicuna(40), 12).expect("a model")
}

pub fn student() -> Box<dyn VisionLanguage> {
    student_of(&dense())
}

/// A masked copy.
pub fn student_of(dense: &dyn VisionLanguage) -> Box<dyn VisionLanguage> {
    let mut model = dense.shallow_clone();
    masks(model.as_ref()).apply(model.as_mut()).expect("masks fit");
    model
}

pub fn settings(steps: u32, distill: Option<DistillConfig>) -> AdaptTraining {
    let tower = |rank| Some(TowerAdapter { rank, ..TowerAdapter::default() });
    AdaptTraining {
        update: MatrixUpdate::Sum,
        vision: tower(4),
        connector: tower(2),
        language: tower(4),
        steps,
        align: 0,
        batch: 3,
        questions: 2,
        samples: 12,
        loading: LoadingConfig::default(),
        learning_rate: 1e-2,
        warmup: 2,
        final_rate: 0.05,
        weight_decay: 0.0,
        clip: 1.0,
        contrastive: 0.5,
        hardness: 0.0,
        evolve: EvolveConfig::default(),
        perturb: NoiseConfig::default(),
        penalty: PenaltyConfig::default(),
        distill,
        micro_batch: None,
        recompute: Recompute::Auto,
    }
}

fn words(start: i64, count: i64) -> Vec<u32> {
    (0..count).map(|i| 5 + ((start * 7 + i * 5) % 33) as u32).collect()
}

fn pixels(step: u32, images: i64, side: i64) -> Tensor {
    let ramp = Tensor::arange(images * 3 * side * side, (Kind::Float, Device::Cpu));
    (ramp * (0.31 + f64::from(step % 4))).sin().view([images, 3, side, side])
}

/// Prompts over `images` images, `each` per image, with texts of different lengths.
fn prompts(step: u32, images: i64, each: i64, length: i64) -> Prompts {
    let rows: Vec<Vec<u32>> = (0..images * each).map(|r| words(r + i64::from(step % 4), length + r % 3)).collect();
    let image: Vec<i64> = (0..images * each).map(|r| r / each).collect();
    Prompts {
        image: Tensor::from_slice(&image),
        qformer: TextBatch::pad(&rows, 0, Device::Cpu),
        language: TextBatch::pad(&rows, 0, Device::Cpu),
    }
}

/// Batches of any size.
pub struct Batches {
    pub images: i64,
    pub questions: i64,
    pub side: i64,
    /// A step at which the pixels are not numbers.
    pub sick_at: Option<u32>,
    /// Steps asked for.
    pub asked: Vec<u32>,
}

impl Default for Batches {
    fn default() -> Self {
        Self { images: 3, questions: 2, side: 16, sick_at: None, asked: Vec::new() }
    }
}

impl BatchSource for Batches {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>> {
        self.asked.push(step);
        let healthy = pixels(step, self.images, self.side);
        let answers = (0..self.images * self.questions).map(|r| words(r, 1 + r % 2)).collect();
        Ok(TrainingBatch {
            pixels: if self.sick_at == Some(step) { healthy * f64::NAN } else { healthy },
            questions: prompts(step, self.images, self.questions, 3),
            answers,
            captions: prompts(step, self.images, 1, 2),
            caption_answers: (0..self.images).map(|r| words(r + 3, 8)).collect(),
            retrieval: Some(TextBatch::pad(
                &(0..self.images).map(|r| words(r + 5, 6)).collect::<Vec<_>>(),
                0,
                Device::Cpu,
            )),
        })
    }
}

pub fn probe() -> Probe {
    Probe { pixels: pixels(1, 2, 16), prompts: prompts(1, 2, 2, 3), answers: (0..4).map(|r| words(r, 2)).collect() }
}

//! Calibration samples and training batches: the data crate's texts and pixels as tensors.
//!
//! Everything drawn here is a function of a seed and a position, so a resumed stage sees what an undisturbed one would have seen.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Processor, World,
    shapes::{LabelledImage, caption},
};
use ressa_experiment::{Task, config::CalibrationConfig, stage::AdaptTraining};
use ressa_models::{Prompts, Sample, TextBatch};
use ressa_restore::{BatchSource, Probe, TrainingBatch};
use ressa_runtime::Device;
use tch::Tensor;

use crate::PipelineError;

/// Size of the training split that calibration and restoration draw from.
const TRAINING_IMAGES: usize = 6000;

#[derive(Clone, Copy)]
#[repr(u64)]
enum Purpose {
    Calibration = 1,
    RestorationImages = 2,
    RestorationBatch = 3,
    Probe = 4,
}

fn stream(seed: u64, purpose: Purpose, position: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((purpose as u64) << 40) | position);
    rng
}

/// `count` distinct indices below `total`, in the order drawn.
fn distinct(rng: &mut ChaCha8Rng, count: usize, total: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..total).collect();
    let count = count.min(total);
    for i in 0..count {
        let j = rng.random_range(i..total);
        all.swap(i, j);
    }
    all.truncate(count);
    all
}

/// What turns samples into tensors.
pub(crate) struct Source<'a> {
    pub world: &'a World,
    pub processor: &'a Processor,
    pub device: Device,
}

impl Source<'_> {
    fn pixels(&self, images: &[&LabelledImage]) -> Result<Tensor, PipelineError> {
        let (height, width) = self.processor.image_size();
        let data = self.processor.pixels(images.iter().map(|l| &l.image))?;
        let shape = [images.len() as i64, 3, i64::from(height), i64::from(width)];
        Ok(Tensor::from_slice(&data).view(shape).to_device(self.device))
    }

    fn prompts(&self, texts: &[String], images: &[i64]) -> Result<Prompts, PipelineError> {
        let language = texts.iter().map(|t| self.processor.encode_prompt(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(Prompts {
            image: Tensor::from_slice(images).to_device(self.device),
            qformer: self.qformer(texts)?,
            language: TextBatch::pad(&language, self.processor.pad(), self.device),
        })
    }

    fn qformer(&self, texts: &[String]) -> Result<TextBatch, PipelineError> {
        let rows = texts.iter().map(|t| self.processor.encode_qformer(t)).collect::<Result<Vec<_>, _>>()?;
        Ok(TextBatch::pad(&rows, self.processor.qformer_pad(), self.device))
    }

    fn answers(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, PipelineError> {
        Ok(texts.iter().map(|t| self.processor.encode_answer(t)).collect::<Result<_, _>>()?)
    }

    /// A question of one of the three kinds in turn, or of the next kind where a scene does not admit it.
    fn question(&self, scene: &ressa_data::shapes::Scene, turn: usize, rng: &mut ChaCha8Rng) -> ressa_data::Question {
        (turn..)
            .find_map(|kind| self.world.question(Task::QUESTIONS[kind % 3], scene, rng))
            .expect("every scene admits a question about what it shows")
    }

    /// Calibration samples: per image `questions` questions with their answers and `captions` captions, each a sample of its own.
    pub fn calibration(&self, config: &CalibrationConfig, seed: u64) -> Result<Vec<Sample>, PipelineError> {
        let mut rng = stream(seed, Purpose::Calibration, 0);
        let mut samples = Vec::new();
        for index in distinct(&mut rng, config.images as usize, TRAINING_IMAGES) {
            let labelled = self.world.training_image(index);
            let pixels = self.pixels(&[&labelled])?;
            let mut add = |text: String, answer: String| -> Result<(), PipelineError> {
                samples.push(Sample {
                    pixels: pixels.shallow_clone(),
                    prompt: self.prompts(&[text], &[0])?,
                    answer: self.processor.encode_answer(&answer)?,
                });
                Ok(())
            };
            for turn in 0..config.questions as usize {
                let question = self.question(&labelled.scene, turn, &mut rng);
                add(question.text, question.answer)?;
            }
            for _ in 0..config.captions {
                add(caption::DESCRIBE.to_owned(), caption::draw(&labelled.scene, &mut rng))?;
            }
        }
        Ok(samples)
    }
}

/// Images of the probe that merging is compared on.
const PROBE_IMAGES: usize = 2;

impl Source<'_> {
    /// A small batch on which outputs before and after a merge are compared.
    pub fn probe(&self) -> Result<Probe, PipelineError> {
        let mut rng = stream(0, Purpose::Probe, 0);
        let images: Vec<LabelledImage> = (0..PROBE_IMAGES).map(|index| self.world.training_image(index)).collect();
        let (mut texts, mut answers, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (row, labelled) in images.iter().enumerate() {
            for turn in 0..Task::QUESTIONS.len() {
                let question = self.question(&labelled.scene, turn, &mut rng);
                texts.push(question.text);
                answers.push(question.answer);
                rows.push(row as i64);
            }
        }
        Ok(Probe {
            pixels: self.pixels(&images.iter().collect::<Vec<_>>())?,
            prompts: self.prompts(&texts, &rows)?,
            answers: self.answers(&answers)?,
        })
    }
}

/// Batches of the embedded world for restoration.
pub(crate) struct ShapesBatches<'a> {
    source: Source<'a>,
    images: Vec<LabelledImage>,
    batch: usize,
    questions: usize,
    retrieval: bool,
    seed: u64,
}

impl<'a> ShapesBatches<'a> {
    /// Batches for a training; `retrieval` adds captions for the contrastive loss.
    pub fn new(source: Source<'a>, training: &AdaptTraining, retrieval: bool, seed: u64) -> Self {
        let mut rng = stream(seed, Purpose::RestorationImages, 0);
        let drawn = (training.samples as usize).min(training.steps as usize * training.batch as usize);
        let images = distinct(&mut rng, drawn, TRAINING_IMAGES.max(drawn))
            .into_iter()
            .map(|index| source.world.training_image(index))
            .collect();
        Self { source, images, batch: training.batch as usize, questions: training.questions as usize, retrieval, seed }
    }

    fn compose(&self, step: u32) -> Result<TrainingBatch, PipelineError> {
        let mut rng = stream(self.seed, Purpose::RestorationBatch, u64::from(step));
        let picks: Vec<&LabelledImage> =
            (0..self.batch).map(|_| &self.images[rng.random_range(0..self.images.len())]).collect();
        let (mut texts, mut answers, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (row, labelled) in picks.iter().enumerate() {
            for turn in 0..self.questions {
                let question = self.source.question(&labelled.scene, turn, &mut rng);
                texts.push(question.text);
                answers.push(question.answer);
                rows.push(row as i64);
            }
        }
        let captions: Vec<String> = picks.iter().map(|l| caption::draw(&l.scene, &mut rng)).collect();
        let describe = vec![caption::DESCRIBE.to_owned(); picks.len()];
        let all: Vec<i64> = (0..picks.len() as i64).collect();
        let retrieval = match self.retrieval {
            true => {
                let captions: Vec<String> = picks.iter().map(|l| caption::draw(&l.scene, &mut rng)).collect();
                Some(self.source.qformer(&captions)?)
            }
            false => None,
        };
        Ok(TrainingBatch {
            pixels: self.source.pixels(&picks)?,
            questions: self.source.prompts(&texts, &rows)?,
            answers: self.source.answers(&answers)?,
            captions: self.source.prompts(&describe, &all)?,
            caption_answers: self.source.answers(&captions)?,
            retrieval,
        })
    }
}

impl BatchSource for ShapesBatches<'_> {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn std::error::Error + Send + Sync>> {
        self.compose(step).map_err(|e| e.to_string().into())
    }
}

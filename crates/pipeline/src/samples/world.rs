//! Samples of the embedded world: questions of its three kinds and captions about its training images.

use std::{path::Path, sync::Arc};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Question, World,
    shapes::{LabelledImage, Scene, caption},
    stream::{Purpose, distinct, stream},
};
use ressa_experiment::{Task, config::CalibrationConfig, record::Shortfall, stage::AdaptTraining};
use ressa_models::Sample;
use ressa_restore::{Probe, TrainingBatch};

use super::{Batches, Calibration, Encode, Exchanges, Feed, Samples};
use crate::{PipelineError, calibration_input};

/// Size of the training split that calibration and restoration draw from.
const TRAINING_IMAGES: usize = 6000;
/// Images of the probe that merging is compared on.
const PROBE_IMAGES: usize = 2;

/// The embedded world as a source of samples.
#[derive(Clone)]
pub(super) struct WorldSamples {
    pub world: Arc<World>,
    pub feed: Feed,
    /// Batches made before they are needed.
    pub ahead: usize,
}

impl WorldSamples {
    /// A question of one of the three kinds in turn, or of the next kind where a scene does not admit it.
    fn question(&self, scene: &Scene, turn: usize, rng: &mut ChaCha8Rng) -> Question {
        (turn..)
            .find_map(|kind| self.world.question(Task::QUESTIONS[kind % 3], scene, rng))
            .expect("every scene admits a question about what it shows")
    }

    /// So many questions about each image.
    fn questions<'i>(
        &self,
        images: impl Iterator<Item = &'i LabelledImage>,
        each: usize,
        rng: &mut ChaCha8Rng,
    ) -> Exchanges {
        let mut asked = Exchanges::default();
        for (row, labelled) in images.enumerate() {
            for turn in 0..each {
                let question = self.question(&labelled.scene, turn, rng);
                asked.push(row, question.text, question.answer);
            }
        }
        asked
    }
}

impl Samples for WorldSamples {
    /// Per image `questions` questions with their answers and `captions` captions, each a sample of its own.
    fn calibration(&self, config: &CalibrationConfig, seed: u64) -> Result<Calibration, PipelineError> {
        let mut rng = stream(seed, Purpose::Calibration, 0);
        let mut samples = Vec::new();
        let images = distinct(&mut rng, config.images as usize, TRAINING_IMAGES);
        let short = Shortfall::of(images.len(), config.images);
        for index in images {
            let labelled = self.world.training_image(index);
            let pixels = self.feed.pixels([&labelled.image])?;
            let mut add = |text: String, answer: String| -> Result<(), PipelineError> {
                let (prompt, answer) =
                    calibration_input(&self.feed.processor, self.feed.device, &text, &answer, self.feed.size(&pixels))?;
                samples.push(Sample { pixels: pixels.shallow_clone(), prompt, answer });
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
        Ok(Calibration { samples, short })
    }

    fn probe(&self) -> Result<Probe, PipelineError> {
        let mut rng = stream(0, Purpose::Probe, 0);
        let images: Vec<LabelledImage> = (0..PROBE_IMAGES).map(|index| self.world.training_image(index)).collect();
        let asked = self.questions(images.iter(), Task::QUESTIONS.len(), &mut rng);
        self.feed.probe(self.feed.pixels(images.iter().map(|l| &l.image))?, &asked)
    }

    fn batches(
        &self,
        training: &AdaptTraining,
        retrieval: bool,
        seed: u64,
        _: &Path,
        _: Encode<'_>,
    ) -> Result<Batches, PipelineError> {
        let batches = WorldBatches::new(self.clone(), training, retrieval, seed);
        Ok(Batches::new(training.steps, self.ahead, move |step| batches.compose(step)))
    }
}

/// Batches of the embedded world for restoration.
struct WorldBatches {
    source: WorldSamples,
    images: Vec<LabelledImage>,
    batch: usize,
    questions: usize,
    retrieval: bool,
    seed: u64,
}

impl WorldBatches {
    fn new(source: WorldSamples, training: &AdaptTraining, retrieval: bool, seed: u64) -> Self {
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
        let source = &self.source;
        let questions = source.questions(picks.iter().copied(), self.questions, &mut rng);
        let mut captions = Exchanges::default();
        for (row, labelled) in picks.iter().enumerate() {
            captions.push(row, caption::DESCRIBE.to_owned(), caption::draw(&labelled.scene, &mut rng));
        }
        let retrieval: Option<Vec<String>> =
            self.retrieval.then(|| picks.iter().map(|l| caption::draw(&l.scene, &mut rng)).collect());
        let pixels = source.feed.pixels(picks.iter().map(|l| &l.image))?;
        source.feed.batch(pixels, &questions, &captions, retrieval.as_deref())
    }
}

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

use super::{Batches, Calibration, Encode, Exchanges, Feed, Samples, mix::Mix};
use crate::{PipelineError, calibration_input};

/// Size of the training split that calibration and restoration draw from.
const TRAINING_IMAGES: usize = 6000;
/// The first training image that losses are measured on, or a later one: behind those that anything else draws from, the dense models' own training among it.
const HELD_OUT_FROM: usize = 1 << 16;
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
    /// A question of one of the three kinds, or of the next kind where a scene does not admit it.
    fn question(&self, scene: &Scene, kind: usize, rng: &mut ChaCha8Rng) -> Question {
        (kind..)
            .find_map(|kind| self.world.question(Task::QUESTIONS[kind % 3], scene, rng))
            .expect("every scene admits a question about what it shows")
    }

    /// So many questions about each image, of kinds by image and number.
    fn questions<'i>(
        &self,
        images: impl Iterator<Item = &'i LabelledImage>,
        each: usize,
        kind: impl Fn(usize, usize) -> usize,
        rng: &mut ChaCha8Rng,
    ) -> Exchanges {
        let mut asked = Exchanges::default();
        for (row, labelled) in images.enumerate() {
            for number in 0..each {
                let question = self.question(&labelled.scene, kind(row, number), rng);
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
        let asked = self.questions(images.iter(), Task::QUESTIONS.len(), in_turn, &mut rng);
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
        let mut batches = WorldBatches::new(self.clone(), training, retrieval, seed);
        if !training.loading.is_on() {
            return Ok(Batches::new(training.steps, self.ahead, move |step| batches.compose(step)));
        }
        let domains = Task::QUESTIONS.into_iter().map(|task| (task.name().to_owned(), 1.0)).collect();
        let mix = Arc::new(Mix::new(domains, batches.batch * batches.questions, seed));
        batches.mix = Some(Arc::clone(&mix));
        let held_out = HeldOut::new(self.clone(), training, seed);
        let held_out = move |kind, number| held_out.batch(kind, number);
        Ok(Batches::mixed(training, self.ahead, move |step| batches.compose(step), mix, held_out))
    }
}

/// Kinds one after the other, whatever the image.
fn in_turn(_: usize, number: usize) -> usize {
    number
}

/// Questions of each kind, each about an image of its own that no training draws.
struct HeldOut {
    source: WorldSamples,
    /// By kind.
    asked: Vec<Vec<(LabelledImage, Question)>>,
    batch: usize,
}

impl HeldOut {
    fn new(source: WorldSamples, training: &AdaptTraining, seed: u64) -> Self {
        let world = &source.world;
        let first = HELD_OUT_FROM.max(drawn(training));
        let asked = |kind: usize| {
            let asked = |index: usize| {
                let labelled = world.training_image(index);
                let mut rng = stream(seed, Purpose::HeldOut, ((kind as u64) << 32) | index as u64);
                let question = world.question(Task::QUESTIONS[kind], &labelled.scene, &mut rng)?;
                Some((labelled, question))
            };
            // Scenes that do not admit a kind are passed over.
            (first..).filter_map(asked).take(training.loading.held_out as usize).collect()
        };
        let asked = (0..Task::QUESTIONS.len()).map(asked).collect();
        Self { source, asked, batch: training.batch as usize }
    }

    fn batch(&self, kind: usize, number: usize) -> Result<Option<TrainingBatch>, PipelineError> {
        let Some(items) = self.asked[kind].chunks(self.batch).nth(number) else { return Ok(None) };
        let mut asked = Exchanges::default();
        for (row, (_, question)) in items.iter().enumerate() {
            asked.push(row, question.text.clone(), question.answer.clone());
        }
        let feed = &self.source.feed;
        let pixels = feed.pixels(items.iter().map(|(labelled, _)| &labelled.image))?;
        feed.batch(pixels, &asked, &Exchanges::default(), None).map(Some)
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
    /// Kinds of the questions, where these do not take turns.
    mix: Option<Arc<Mix>>,
}

/// Images that a training draws from.
fn drawn(training: &AdaptTraining) -> usize {
    (training.samples as usize).min(training.steps as usize * training.batch as usize)
}

impl WorldBatches {
    fn new(source: WorldSamples, training: &AdaptTraining, retrieval: bool, seed: u64) -> Self {
        let mut rng = stream(seed, Purpose::RestorationImages, 0);
        let drawn = drawn(training);
        let images = distinct(&mut rng, drawn, TRAINING_IMAGES.max(drawn))
            .into_iter()
            .map(|index| source.world.training_image(index))
            .collect();
        let (batch, questions) = (training.batch as usize, training.questions as usize);
        Self { source, images, batch, questions, retrieval, seed, mix: None }
    }

    fn compose(&self, step: u32) -> Result<TrainingBatch, PipelineError> {
        let mut rng = stream(self.seed, Purpose::RestorationBatch, u64::from(step));
        let picks: Vec<&LabelledImage> =
            (0..self.batch).map(|_| &self.images[rng.random_range(0..self.images.len())]).collect();
        let source = &self.source;
        let kinds = self.mix.as_ref().map(|mix| mix.rows(step));
        let kind = |row: usize, number: usize| match &kinds {
            Some(kinds) => kinds[row * self.questions + number].0,
            None => in_turn(row, number),
        };
        let questions = source.questions(picks.iter().copied(), self.questions, kind, &mut rng);
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

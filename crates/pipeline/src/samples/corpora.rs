//! Samples of caption corpora on disk. Images are opened when they are needed, on as many threads as libtorch computes with.

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use ressa_data::{Captioned, Captions, DataError, Image, augment::augment, parallel};
use ressa_experiment::{
    config::{Augment, CalibrationConfig, CorporaConfig, DataConfig},
    job::CalibrationRequest,
    stage::AdaptTraining,
};
use ressa_models::Sample;
use ressa_restore::{BatchSource, Probe, TrainingBatch};

use super::{Asked, Feed, Purpose, Samples, distinct, stream};
use crate::{PipelineError, calibration_input};

/// Samples of the probe that merging is compared on.
const PROBE_SAMPLES: usize = 4;

/// Caption corpora as a source of samples.
pub(super) struct CorpusSamples<'a> {
    root: PathBuf,
    calibration: CorporaConfig,
    restoration: CorporaConfig,
    feed: Feed<'a>,
}

impl<'a> CorpusSamples<'a> {
    /// The corpora of a data configuration.
    pub fn new(data: &DataConfig, feed: Feed<'a>) -> Result<Self, PipelineError> {
        let root = data.root.clone().ok_or(DataError::NoRoot)?;
        Ok(Self { root, calibration: data.calibration.clone(), restoration: data.restoration.clone(), feed })
    }
}

/// Entries drawn with a seed, a different draw for each purpose and corpus.
fn draw(
    config: &CorporaConfig,
    root: &Path,
    samples: usize,
    seed: u64,
    purpose: Purpose,
) -> Result<Captions, DataError> {
    let mut corpus = 0;
    Captions::draw(config, root, samples, &mut |total, wanted| {
        let mut rng = stream(seed, Purpose::CorpusEntries, ((purpose as u64) << 8) | corpus);
        corpus += 1;
        distinct(&mut rng, wanted, total)
    })
}

/// The calibration samples that a stage would draw, before their images are opened. Fewer where the corpora have not so many.
///
/// # Errors
/// What is missing under `root`; images that are changed at random, which a path does not say.
pub fn calibration_texts(
    config: &CorporaConfig,
    root: &Path,
    samples: usize,
    seed: u64,
) -> Result<Vec<CalibrationRequest>, PipelineError> {
    if config.augment != Augment::None {
        return Err(PipelineError::Internal("images are not changed outside of stages".to_owned()));
    }
    let captions = draw(config, root, samples, seed, Purpose::CalibrationEntry)?;
    let request = |(position, entry): (usize, &Captioned)| {
        let mut rng = stream(seed, Purpose::CalibrationEntry, position as u64);
        let (prompt, answer) = entry.sample(config, &mut rng);
        CalibrationRequest { image: entry.image.clone(), prompt, answer }
    };
    Ok(captions.entries().iter().enumerate().map(request).collect())
}

/// An image and a caption, ready to be tokenized.
struct Composed {
    pixels: Vec<f32>,
    read: String,
    written: String,
}

/// Opens an entry's image and makes a sample of it; everything random comes from `rng`.
fn compose(
    feed: &Feed<'_>,
    config: &CorporaConfig,
    entry: &Captioned,
    mut rng: ChaCha8Rng,
) -> Result<Composed, DataError> {
    let (read, written) = entry.sample(config, &mut rng);
    let image = augment(Image::open(&entry.image)?, config.augment, &mut rng);
    Ok(Composed { pixels: feed.processor.pixels([&image])?, read, written })
}

/// The images one after the other, and what is asked about them.
fn stack(composed: Vec<Composed>) -> (Vec<f32>, Asked) {
    let (mut pixels, mut asked) = (Vec::new(), Asked::default());
    for (row, Composed { pixels: image, read, written }) in composed.into_iter().enumerate() {
        pixels.extend(image);
        asked.push(row, read, written);
    }
    (pixels, asked)
}

fn threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

impl Samples for CorpusSamples<'_> {
    fn calibration(&self, config: &CalibrationConfig, seed: u64) -> Result<Vec<Sample>, PipelineError> {
        let captions = draw(&self.calibration, &self.root, config.images as usize, seed, Purpose::CalibrationEntry)?;
        let entries = captions.entries();
        let composed = parallel(entries.len(), threads(), |position| {
            let rng = stream(seed, Purpose::CalibrationEntry, position as u64);
            compose(&self.feed, &self.calibration, &entries[position], rng)
        })?;
        let sample = |Composed { pixels, read, written }| {
            let (prompt, answer) = calibration_input(self.feed.processor, self.feed.device, &read, &written)?;
            Ok(Sample { pixels: self.feed.tensor(&pixels), prompt, answer })
        };
        composed.into_iter().map(sample).collect()
    }

    fn probe(&self) -> Result<Probe, PipelineError> {
        let config = CorporaConfig { augment: Augment::None, ..self.restoration.clone() };
        let first = Captions::first(&config, &self.root, PROBE_SAMPLES)?;
        let compose =
            |(position, entry)| compose(&self.feed, &config, entry, stream(0, Purpose::Probe, position as u64));
        let composed = first.entries().iter().enumerate().map(compose).collect::<Result<_, _>>()?;
        let (pixels, asked) = stack(composed);
        self.feed.probe(self.feed.tensor(&pixels), &asked)
    }

    fn batches<'a>(
        &'a self,
        training: &AdaptTraining,
        retrieval: bool,
        seed: u64,
    ) -> Result<Box<dyn BatchSource + 'a>, PipelineError> {
        // No more is drawn than the steps can see.
        let seen = u64::from(training.steps) * u64::from(training.batch);
        let samples = u64::from(training.samples).min(seen) as usize;
        let captions = draw(&self.restoration, &self.root, samples, seed, Purpose::RestorationEntry)?;
        Ok(Box::new(CorpusBatches {
            source: self,
            captions,
            batch: training.batch as usize,
            retrieval,
            seed,
            order: None,
        }))
    }
}

/// Batches of caption corpora: every sample once, then every sample again in another order.
struct CorpusBatches<'a> {
    source: &'a CorpusSamples<'a>,
    captions: Captions,
    batch: usize,
    retrieval: bool,
    seed: u64,
    /// The order of the round that was asked for last.
    order: Option<(u64, Vec<usize>)>,
}

impl CorpusBatches<'_> {
    /// The entry at a position of the endless sequence.
    fn entry(&mut self, position: u64) -> usize {
        let samples = self.captions.entries().len() as u64;
        let (round, place) = (position / samples, (position % samples) as usize);
        match &self.order {
            Some((known, order)) if *known == round => order[place],
            _ => {
                let mut rng = stream(self.seed, Purpose::RestorationOrder, round);
                let order = distinct(&mut rng, samples as usize, samples as usize);
                let entry = order[place];
                self.order = Some((round, order));
                entry
            }
        }
    }

    fn compose(&mut self, step: u32) -> Result<TrainingBatch, PipelineError> {
        let first = u64::from(step) * self.batch as u64;
        let chosen: Vec<usize> = (first..first + self.batch as u64).map(|position| self.entry(position)).collect();
        let (source, entries) = (self.source, self.captions.entries());
        let composed = parallel(chosen.len(), threads(), |row| {
            let rng = stream(self.seed, Purpose::RestorationEntry, first + row as u64);
            compose(&source.feed, &source.restoration, &entries[chosen[row]], rng)
        })?;
        let (pixels, captions) = stack(composed);
        let retrieval: Option<Vec<String>> =
            self.retrieval.then(|| chosen.iter().map(|&entry| entries[entry].caption.clone()).collect());
        source.feed.batch(source.feed.tensor(&pixels), &Asked::default(), &captions, retrieval.as_deref())
    }
}

impl BatchSource for CorpusBatches<'_> {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn std::error::Error + Send + Sync>> {
        self.compose(step).map_err(|e| e.to_string().into())
    }
}

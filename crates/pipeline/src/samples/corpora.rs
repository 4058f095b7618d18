//! Samples of caption corpora on disk. Images are opened when they are needed, on as many threads as libtorch computes with.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Captioned, Captions, DataError, ImageLoader, Sized,
    augment::augment,
    parallel,
    stream::{Purpose, distinct, stream},
};
use ressa_experiment::{
    config::{Augment, CalibrationConfig, CorporaConfig, DataConfig},
    job::CalibrationRequest,
    record::Shortfall,
    stage::AdaptTraining,
};
use ressa_models::Sample;
use ressa_restore::{Probe, TrainingBatch};

use super::{Batches, Calibration, Exchanges, Feed, Samples, draw::Draw};
use crate::{PipelineError, calibration_input};

/// Caption corpora as a source of samples.
pub(super) struct CorpusSamples {
    root: PathBuf,
    calibration: CorporaConfig,
    restoration: CorporaConfig,
    feed: Feed,
    loader: ImageLoader,
    /// Batches made before they are needed.
    ahead: usize,
}

impl CorpusSamples {
    /// The corpora of a data configuration.
    pub fn new(data: &DataConfig, feed: Feed, loader: ImageLoader, ahead: usize) -> Result<Self, PipelineError> {
        let root = data.root.clone().ok_or(DataError::NoRoot)?;
        let (calibration, restoration) = (data.calibration.clone(), data.restoration.clone());
        Ok(Self { root, calibration, restoration, feed, loader, ahead })
    }
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
    let captions = Captions::drawn(config, root, samples, seed, Purpose::CalibrationEntry)?;
    // Files that are not there are replaced as in a stage; what is in the others shows when they are opened.
    let entries = Draw::new(&captions, None)?;
    let request = |position: usize| {
        let request = |entry: &Captioned| {
            let mut rng = stream(seed, Purpose::CalibrationEntry, position as u64);
            let (prompt, answer) = entry.sample(config, &mut rng);
            Ok(CalibrationRequest { image: entry.image.clone(), prompt, answer })
        };
        Ok(entries.read(position, request)?.1)
    };
    (0..captions.entries().len()).map(request).collect()
}

/// An image and a caption, ready to be tokenized.
struct Composed {
    sized: Sized,
    read: String,
    written: String,
}

/// Opens an entry's image and makes a sample of it; everything random comes from `rng`.
fn compose(
    loader: &ImageLoader,
    config: &CorporaConfig,
    entry: &Captioned,
    mut rng: ChaCha8Rng,
) -> Result<Composed, DataError> {
    let (read, written) = entry.sample(config, &mut rng);
    let sized = if config.augment == Augment::None {
        loader.levels(&entry.image)?
    } else {
        // The change follows from where in which stream of random numbers it begins.
        let how = format!("{:?} {:?} {} {}", config.augment, rng.get_seed(), rng.get_stream(), rng.get_word_pos());
        loader.changed(&entry.image, how.as_bytes(), |image| augment(image, config.augment, &mut rng))?
    };
    Ok(Composed { sized, read, written })
}

/// The images one after the other, and what is asked about them.
///
/// # Errors
/// Images of different sizes.
fn stack(composed: impl IntoIterator<Item = Composed>) -> Result<(Sized, Exchanges), DataError> {
    let (mut all, mut asked) = (None, Exchanges::default());
    for (row, Composed { sized, read, written }) in composed.into_iter().enumerate() {
        let Sized { levels, size } = all.get_or_insert(Sized { levels: Vec::new(), size: sized.size });
        if *size != sized.size {
            return Err(DataError::Sizes(*size, sized.size));
        }
        levels.extend(sized.levels);
        asked.push(row, read, written);
    }
    Ok((all.unwrap_or(Sized { levels: Vec::new(), size: (0, 0) }), asked))
}

fn threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

impl Samples for CorpusSamples {
    fn calibration(&self, config: &CalibrationConfig, seed: u64) -> Result<Calibration, PipelineError> {
        let captions =
            Captions::drawn(&self.calibration, &self.root, config.images as usize, seed, Purpose::CalibrationEntry)?;
        let entries = Draw::new(&captions, None)?;
        let composed = parallel(captions.entries().len(), threads(), |position| {
            entries.read(position, |entry| {
                let rng = stream(seed, Purpose::CalibrationEntry, position as u64);
                compose(&self.loader, &self.calibration, entry, rng)
            })
        })?;
        // An entry that stands in for an unreadable one is there twice.
        let distinct: BTreeSet<usize> = composed.iter().map(|(entry, _)| *entry).collect();
        let sample = |(_, Composed { sized, read, written })| {
            let (processor, device) = (&self.feed.processor, self.feed.device);
            let (prompt, answer) = calibration_input(processor, device, &read, &written, sized.size)?;
            Ok(Sample { pixels: self.feed.levels(sized), prompt, answer })
        };
        let samples = composed.into_iter().map(sample).collect::<Result<_, PipelineError>>()?;
        Ok(Calibration { samples, short: Shortfall::of(distinct.len(), config.images) })
    }

    fn probe(&self) -> Result<Probe, PipelineError> {
        let config = CorporaConfig { augment: Augment::None, ..self.restoration.clone() };
        let first = Captions::of_probe(&config, &self.root)?;
        let entries = Draw::new(&first, None)?;
        let compose = |position| {
            let rng = || stream(0, Purpose::Probe, position as u64);
            Ok(entries.read(position, |entry| compose(&self.loader, &config, entry, rng()))?.1)
        };
        let mut composed = (0..first.entries().len()).map(compose).collect::<Result<Vec<_>, DataError>>()?;
        // Where images keep their sizes, those like the first.
        let size = composed.first().map(|composed| composed.sized.size);
        composed.retain(|composed| Some(composed.sized.size) == size);
        let (levels, asked) = stack(composed)?;
        self.feed.probe(self.feed.levels(levels), &asked)
    }

    fn batches(
        &self,
        training: &AdaptTraining,
        retrieval: bool,
        seed: u64,
        scratch: &Path,
    ) -> Result<Batches, PipelineError> {
        let (asked, captions) =
            (Captions::asked_for(training), Captions::of_training(&self.restoration, &self.root, training, seed)?);
        let entries = Arc::new(Draw::new(&captions, Some(scratch.to_owned()))?);
        let batches = CorpusBatches {
            config: self.restoration.clone(),
            feed: self.feed.clone(),
            loader: self.loader.clone(),
            threads: threads(),
            draw: Arc::clone(&entries),
            batch: training.batch as usize,
            retrieval,
            seed,
            order: Mutex::new(None),
        };
        let drawn = entries.entries().len();
        let batches = Batches::new(training.steps, self.ahead, move |step| batches.compose(step));
        Ok(batches.counting(move || entries.skipped(), Shortfall::of(drawn, asked)))
    }
}

/// Batches of caption corpora: every sample once, then every sample again in another order.
struct CorpusBatches {
    config: CorporaConfig,
    feed: Feed,
    loader: ImageLoader,
    threads: usize,
    draw: Arc<Draw>,
    batch: usize,
    retrieval: bool,
    seed: u64,
    /// The order of the round that was asked for last.
    order: Mutex<Option<(u64, Arc<[usize]>)>>,
}

impl CorpusBatches {
    /// The entry at a position of the endless sequence.
    fn entry(&self, position: u64) -> usize {
        let samples = self.draw.entries().len() as u64;
        let (round, place) = (position / samples, (position % samples) as usize);
        self.order(round, samples as usize)[place]
    }

    fn order(&self, round: u64, samples: usize) -> Arc<[usize]> {
        let mut known = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = known.as_ref().filter(|(known, _)| *known == round) {
            return Arc::clone(order);
        }
        let mut rng = stream(self.seed, Purpose::RestorationOrder, round);
        let order: Arc<[usize]> = distinct(&mut rng, samples, samples).into();
        *known = Some((round, Arc::clone(&order)));
        order
    }

    fn compose(&self, step: u32) -> Result<TrainingBatch, PipelineError> {
        let first = u64::from(step) * self.batch as u64;
        let composed = parallel(self.batch, self.threads, |row| {
            let position = first + row as u64;
            self.draw.read(self.entry(position), |entry| {
                let rng = stream(self.seed, Purpose::RestorationEntry, position);
                compose(&self.loader, &self.config, entry, rng)
            })
        })?;
        let (chosen, composed): (Vec<usize>, Vec<Composed>) = composed.into_iter().unzip();
        let (levels, captions) = stack(composed)?;
        let caption = |entry: usize| self.draw.entries()[entry].caption.clone();
        let retrieval: Option<Vec<String>> = self.retrieval.then(|| chosen.into_iter().map(caption).collect());
        self.feed.batch(self.feed.levels(levels), &Exchanges::default(), &captions, retrieval.as_deref())
    }
}

//! Samples of caption corpora on disk. Images are opened when they are needed, on as many threads as libtorch computes with.

mod held_out;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Captioned, Captions, DataError, ImageLoader, Picture, Sized,
    augment::augment,
    parallel,
    stream::{Purpose, distinct, stream},
};
use ressa_eval::FeatureCache;
use ressa_experiment::{
    config::{Augment, CalibrationConfig, CorporaConfig, DataConfig},
    job::CalibrationRequest,
    record::Shortfall,
    stage::AdaptTraining,
};
use ressa_models::Sample;
use ressa_restore::{Probe, TrainingBatch};
use tch::Tensor;

use self::held_out::HeldOut;
use super::{Batches, Calibration, Encode, Exchanges, Feed, Samples, draw::Draw, mix::Mix};
use crate::{PipelineError, calibration_input, features::ImagesOf};

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

impl CorpusSamples {
    /// What divides the rows of a training among its corpora, where their weights change.
    fn mix(&self, training: &AdaptTraining, captions: &Captions, seed: u64) -> Option<Arc<Mix>> {
        let shares = captions.of_corpora().iter().map(|count| *count as f64);
        let names = self.restoration.corpora.iter().map(|corpus| corpus.name().to_owned());
        let mix = || Mix::new(names.zip(shares).collect(), training.batch as usize, seed);
        training.loading.is_on().then(|| Arc::new(mix()))
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

/// The images one after the other.
///
/// # Errors
/// Images of different sizes.
fn stack(images: impl IntoIterator<Item = Sized>) -> Result<Sized, DataError> {
    let mut all: Option<Sized> = None;
    for image in images {
        let Sized { levels, size } = all.get_or_insert(Sized { levels: Vec::new(), size: image.size });
        if *size != image.size {
            return Err(DataError::Sizes(*size, image.size));
        }
        levels.extend(image.levels);
    }
    Ok(all.unwrap_or(Sized { levels: Vec::new(), size: (0, 0) }))
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
        let (mut images, mut asked) = (Vec::new(), Exchanges::default());
        for (row, Composed { sized, read, written }) in composed.into_iter().enumerate() {
            images.push(sized);
            asked.push(row, read, written);
        }
        self.feed.probe(self.feed.levels(stack(images)?), &asked)
    }

    fn batches(
        &self,
        training: &AdaptTraining,
        retrieval: bool,
        seed: u64,
        scratch: &Path,
        encode: Encode<'_>,
    ) -> Result<Batches, PipelineError> {
        let asked = Captions::asked_for(training);
        let [captions, held_out] = Captions::of_training(&self.restoration, &self.root, training, seed)?;
        let entries = Arc::new(Draw::new(&captions, Some(scratch.to_owned()))?);
        let features = match self.restoration.augment {
            Augment::None => {
                let paths: BTreeSet<&Path> = entries.entries().iter().map(|entry| entry.image.as_path()).collect();
                encode(&ImagesOf { loader: &self.loader, paths: &Vec::from_iter(paths) })?
            }
            // A changed image is another one each time.
            Augment::Crop => None,
        };
        let batches = CorpusBatches {
            config: self.restoration.clone(),
            feed: self.feed.clone(),
            loader: self.loader.clone(),
            features,
            threads: threads(),
            draw: Arc::clone(&entries),
            batch: training.batch as usize,
            retrieval,
            seed,
            domains: ranges(&captions),
            mix: self.mix(training, &captions, seed),
            orders: Mutex::default(),
        };
        let drawn = entries.entries().len();
        let batches = match batches.mix.clone() {
            Some(mix) => {
                let held_out = HeldOut::new(&batches, &held_out)?;
                let held_out = move |domain, number| held_out.batch(domain, number);
                Batches::mixed(training, self.ahead, move |step| batches.compose(step), mix, held_out)
            }
            None => Batches::new(training.steps, self.ahead, move |step| batches.compose(step)),
        };
        Ok(batches.counting(move || entries.skipped(), Shortfall::of(drawn, asked)))
    }
}

/// A row of a batch before it is tokenized.
struct Row {
    shown: Shown,
    read: String,
    written: String,
}

/// What a row shows.
enum Shown {
    /// The levels of its image.
    Levels(Sized),
    /// The features of its image `[tokens, width]`, on the host.
    Features(Tensor),
    /// Neither: the cache does not have it.
    Nothing,
}

/// The entries of each corpus of a draw.
fn ranges(captions: &Captions) -> Vec<Range<usize>> {
    let mut end = 0;
    let range = |count: &usize| {
        end += count;
        end - count..end
    };
    captions.of_corpora().iter().map(range).collect()
}

/// Batches of corpora: every sample once, then every sample again in another order; the same of each corpus, where their weights change.
struct CorpusBatches {
    config: CorporaConfig,
    feed: Feed,
    loader: ImageLoader,
    /// Features of the images, where they are computed once.
    features: Option<FeatureCache>,
    threads: usize,
    draw: Arc<Draw>,
    batch: usize,
    retrieval: bool,
    seed: u64,
    /// The entries of each corpus.
    domains: Vec<Range<usize>>,
    /// Corpora of the rows, where their weights change.
    mix: Option<Arc<Mix>>,
    /// By the sequence, the order of the round that was asked for last.
    orders: Mutex<BTreeMap<u64, Round>>,
}

/// The number of a round, and the order of the entries in it.
type Round = (u64, Arc<[usize]>);

impl CorpusBatches {
    /// The entry at a position of the endless sequence of a range of entries: number 0 of all, then one for each corpus.
    fn entry(&self, sequence: u64, range: &Range<usize>, position: u64) -> usize {
        let samples = range.len() as u64;
        let (round, place) = (position / samples, (position % samples) as usize);
        range.start + self.order(sequence, round, samples as usize)[place]
    }

    fn order(&self, sequence: u64, round: u64, samples: usize) -> Arc<[usize]> {
        let mut known = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = known.get(&sequence).filter(|(known, _)| *known == round) {
            return Arc::clone(order);
        }
        let mut rng = stream(self.seed, Purpose::RestorationOrder, (sequence << 32) | round);
        let order: Arc<[usize]> = distinct(&mut rng, samples, samples).into();
        known.insert(sequence, (round, Arc::clone(&order)));
        order
    }

    /// Of each row of a step its entry, and those that can stand in for it.
    fn entries(&self, step: u32) -> Vec<(usize, Range<usize>)> {
        if let Some(mix) = &self.mix {
            let entry = |(domain, number): (usize, u64)| {
                let range = self.domains[domain].clone();
                (self.entry(domain as u64 + 1, &range, number), range)
            };
            return mix.rows(step).into_iter().map(entry).collect();
        }
        let (first, all) = (u64::from(step) * self.batch as u64, 0..self.draw.entries().len());
        (0..self.batch as u64).map(|row| (self.entry(0, &all, first + row), all.clone())).collect()
    }

    fn compose(&self, step: u32) -> Result<TrainingBatch, PipelineError> {
        let first = u64::from(step) * self.batch as u64;
        let rng = |position| stream(self.seed, Purpose::RestorationEntry, position);
        let entries = self.entries(step);
        let rows = |open: &(dyn Fn(&Captioned, u64) -> Result<Row, DataError> + Sync)| {
            parallel(self.batch, self.threads, |row| {
                let (entry, range) = &entries[row];
                self.draw.read_within(range, *entry, |entry| open(entry, first + row as u64))
            })
        };
        let known = match &self.features {
            Some(cache) => rows(&|entry, position| {
                let features = cache.key(&Picture::File(entry.image.clone())).and_then(|key| cache.get(&key));
                let (read, written) = entry.sample(&self.config, &mut rng(position));
                Ok(Row { shown: features.map_or(Shown::Nothing, Shown::Features), read, written })
            })?,
            None => Vec::new(),
        };
        // One image that the cache has lost, and all are opened.
        let is_known = |(_, row): &(usize, Row)| matches!(row.shown, Shown::Features(_));
        let composed = match !known.is_empty() && known.iter().all(is_known) {
            true => known,
            false => rows(&|entry, position| {
                let Composed { sized, read, written } = compose(&self.loader, &self.config, entry, rng(position))?;
                Ok(Row { shown: Shown::Levels(sized), read, written })
            })?,
        };
        let mut captions = Exchanges::default();
        let (mut chosen, mut images, mut features) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (entry, Row { shown, read, written })) in composed.into_iter().enumerate() {
            chosen.push(entry);
            captions.push(row, read, written);
            match shown {
                Shown::Levels(image) => images.push(image),
                Shown::Features(image) => features.push(image),
                Shown::Nothing => {}
            }
        }
        let shown = match features.is_empty() {
            true => self.feed.levels(stack(images)?),
            false => Tensor::f_stack(&features, 0).map_err(ressa_models::ModelError::from)?.to_device(self.feed.device),
        };
        let caption = |entry: usize| self.draw.entries()[entry].caption.clone();
        let retrieval: Option<Vec<String>> = self.retrieval.then(|| chosen.into_iter().map(caption).collect());
        self.feed.batch(shown, &Exchanges::default(), &captions, retrieval.as_deref())
    }
}

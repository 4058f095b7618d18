//! Caption corpora on disk: entries drawn for calibration and restoration, and the samples made of them.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use rand::{Rng, RngExt};
use ressa_experiment::{
    config::{CorporaConfig, SampleForm},
    stage::AdaptTraining,
};

use crate::{
    DataError,
    annotations::{Next, count, each},
    published,
    stream::{Purpose, distinct, stream},
    wording::blip_caption,
};

/// An image file and its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captioned {
    /// The image.
    pub image: PathBuf,
    /// The caption, processed as LAVIS' `blip_caption` does; not empty.
    pub caption: String,
}

/// Samples of the batch that merging is compared on.
const PROBE_SAMPLES: usize = 4;

/// Entries drawn from caption corpora, in the order drawn: those of the first corpus first.
#[derive(Clone, Debug)]
pub struct Captions {
    entries: Vec<Captioned>,
}

/// Told a corpus' annotations and its share, the positions of the entries to read.
type Choose<'a> = &'a mut dyn FnMut(&Path, usize) -> Result<Vec<usize>, DataError>;

impl Captions {
    /// Draws `samples` entries, split evenly over the corpora (the first ones take what is left over); all of a corpus that has fewer.
    ///
    /// `pick` is asked for each corpus in turn: of so many entries, the positions of so many. Only those are held in memory.
    ///
    /// # Errors
    /// What is missing under `root`, or the file, entry and field that is wrong.
    pub fn draw(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        pick: &mut dyn FnMut(usize, usize) -> Vec<usize>,
    ) -> Result<Self, DataError> {
        Self::read(config, root, samples, &mut |path, share| {
            let total = count(path)?;
            Ok(pick(total, share.min(total)))
        })
    }

    /// Draws with a seed: a different draw for each purpose and corpus.
    ///
    /// # Errors
    /// As for [`Captions::draw`].
    pub fn drawn(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        seed: u64,
        purpose: Purpose,
    ) -> Result<Self, DataError> {
        let mut corpus = 0;
        Self::draw(config, root, samples, &mut |total, wanted| {
            let mut rng = stream(seed, Purpose::CorpusEntries, ((purpose as u64) << 8) | corpus);
            corpus += 1;
            distinct(&mut rng, wanted, total)
        })
    }

    /// The entries that a training reads: no more than its steps can see.
    ///
    /// # Errors
    /// As for [`Captions::draw`].
    pub fn of_training(
        config: &CorporaConfig,
        root: &Path,
        training: &AdaptTraining,
        seed: u64,
    ) -> Result<Self, DataError> {
        let seen = u64::from(training.steps) * u64::from(training.batch);
        let samples = u64::from(training.samples).min(seen) as usize;
        Self::drawn(config, root, samples, seed, Purpose::RestorationEntry)
    }

    /// The entries of the batch that a model is compared on before and after its adapters are merged.
    ///
    /// # Errors
    /// As for [`Captions::draw`].
    pub fn of_probe(config: &CorporaConfig, root: &Path) -> Result<Self, DataError> {
        Self::first(config, root, PROBE_SAMPLES)
    }

    /// The first `samples` entries, split over the corpora as in a draw. Reads no further than they reach.
    ///
    /// # Errors
    /// As for a draw.
    pub fn first(config: &CorporaConfig, root: &Path, samples: usize) -> Result<Self, DataError> {
        Self::read(config, root, samples, &mut |_, share| Ok((0..share).collect()))
    }

    fn read(config: &CorporaConfig, root: &Path, samples: usize, choose: Choose<'_>) -> Result<Self, DataError> {
        let corpora = &config.corpora;
        // Every corpus is checked before the first, possibly large, file is read.
        for corpus in corpora {
            published::check_corpus(root, *corpus)?;
        }
        // A caption that is cut in two has at least two characters.
        let shortest = if config.form == SampleForm::Prefix { 2 } else { 1 };
        let mut entries = Vec::with_capacity(samples);
        for (number, corpus) in corpora.iter().enumerate() {
            let share = samples / corpora.len() + usize::from(number < samples % corpora.len());
            let [annotations, images] = published::expected_of_corpus(*corpus);
            let (path, folder) = (root.join(annotations.path), root.join(images.path));
            if share == 0 {
                continue;
            }
            let order = choose(&path, share)?;
            let wanted: BTreeSet<usize> = order.iter().copied().collect();
            let mut positions = wanted.iter();
            let mut found: HashMap<usize, Captioned> = HashMap::with_capacity(wanted.len());
            each(&path, None, &|position| wanted.contains(&position), &mut |entry| {
                let caption = blip_caption(entry.text("caption")?);
                if caption.chars().count() < shortest {
                    return Err(
                        entry.error(format!("`caption` is too short: `{caption}` has not {shortest} characters"))
                    );
                }
                if let Some(position) = positions.next() {
                    found.insert(*position, Captioned { image: entry.image(&folder)?, caption });
                }
                Ok(if found.len() == wanted.len() { Next::Enough } else { Next::More })
            })?;
            if found.is_empty() {
                return Err(DataError::Unfit { path, reason: "it has no entries".to_owned() });
            }
            entries.extend(order.iter().filter_map(|position| found.get(position).cloned()));
        }
        Ok(Self { entries })
    }

    /// The entries.
    pub fn entries(&self) -> &[Captioned] {
        &self.entries
    }
}

impl Captioned {
    /// What the model reads and what it is to write.
    pub fn sample(&self, config: &CorporaConfig, rng: &mut (impl Rng + ?Sized)) -> (String, String) {
        match config.form {
            SampleForm::Instruct => {
                let instructions = &config.instructions;
                let chosen = rng.random_range(0..instructions.len().max(1));
                (instructions.get(chosen).cloned().unwrap_or_default(), self.caption.clone())
            }
            SampleForm::Prefix => {
                let half = self.caption.chars().count() / 2;
                let cut = rng.random_range(1..=half.max(1));
                let at = self.caption.char_indices().nth(cut).map_or(self.caption.len(), |(at, _)| at);
                let (read, written) = self.caption.split_at(at);
                (read.to_owned(), written.to_owned())
            }
        }
    }
}

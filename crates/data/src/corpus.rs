//! Corpora on disk, of captions or of questions: entries drawn for calibration and restoration, and the samples made of them.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use rand::{Rng, RngExt};
use ressa_experiment::{
    config::{CorporaConfig, Corpus, SampleForm},
    stage::AdaptTraining,
};

use crate::{
    DataError,
    annotations::{Entry, Next, Place, each},
    json::Top,
    published::{self, easy_vqa, karpathy},
    stream::{Purpose, distinct, stream},
    wording::blip_caption,
};

/// An image file and its caption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captioned {
    /// The image.
    pub image: PathBuf,
    /// The caption, processed as LAVIS' `blip_caption` does; not empty. Of a question, its answer.
    pub caption: String,
    /// The question, as it is written; `None` in a caption corpus.
    pub question: Option<String>,
}

/// Samples of the batch that merging is compared on.
const PROBE_SAMPLES: usize = 4;

/// Entries drawn from caption corpora, in the order drawn: those of the first corpus first.
#[derive(Clone, Debug)]
pub struct Captions {
    entries: Vec<Captioned>,
    /// How many of the entries are of each corpus, in the order of the corpora.
    of_corpora: Vec<usize>,
}

/// Checks that what is read of a corpus is there.
type Check = fn(&Path, Corpus) -> Result<(), DataError>;

/// Told a corpus and its share, the positions of the entries to read.
type Choose<'a> = &'a mut dyn FnMut(&Source, usize) -> Result<Vec<usize>, DataError>;

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
        Self::picked(config, root, samples, published::check_corpus, pick)
    }

    fn picked(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        check: Check,
        pick: &mut dyn FnMut(usize, usize) -> Vec<usize>,
    ) -> Result<Self, DataError> {
        Self::read(config, root, samples, check, &mut |source, share| {
            let total = source.count(usize::MAX)?;
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
        Self::seeded(config, root, samples, seed, purpose, published::check_corpus)
    }

    /// As [`Captions::drawn`], where the captions alone are read: the images need not be there.
    ///
    /// # Errors
    /// Annotations that are missing under `root`, or the file, entry and field that is wrong.
    pub fn without_images(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        seed: u64,
        purpose: Purpose,
    ) -> Result<Self, DataError> {
        Self::seeded(config, root, samples, seed, purpose, published::check_annotations)
    }

    fn seeded(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        seed: u64,
        purpose: Purpose,
        check: Check,
    ) -> Result<Self, DataError> {
        let mut corpus = 0;
        Self::picked(config, root, samples, check, &mut |total, wanted| {
            let mut rng = stream(seed, Purpose::CorpusEntries, ((purpose as u64) << 8) | corpus);
            corpus += 1;
            distinct(&mut rng, wanted, total)
        })
    }

    /// The entries that the batches of a training are drawn from, and those that it measures held-out losses on: none where loading is fixed. The former are
    /// the same either way where corpora have enough for both. An image with several captions may have one in each.
    ///
    /// # Errors
    /// As for [`Captions::draw`]; a corpus of which the held-out entries leave none.
    pub fn of_training(
        config: &CorporaConfig,
        root: &Path,
        training: &AdaptTraining,
        seed: u64,
    ) -> Result<[Self; 2], DataError> {
        let held_out = training.loading.kept_from_training() as usize;
        let (mut corpus, mut trained) = (0, Vec::new());
        let samples = Self::asked_for(training) as usize;
        let both = Self::read(config, root, samples, published::check_corpus, &mut |source, share| {
            let total = source.count(usize::MAX)?;
            let own = share.min(source.beside(total, held_out)?);
            trained.push(own);
            let mut rng = stream(seed, Purpose::CorpusEntries, ((Purpose::RestorationEntry as u64) << 8) | corpus);
            corpus += 1;
            // The first ones are the same however many follow.
            Ok(distinct(&mut rng, own + held_out, total))
        })?;
        Ok(both.parted(&trained))
    }

    /// The first `own` entries of each corpus that has any, and the others.
    fn parted(self, own: &[usize]) -> [Self; 2] {
        let none = || Self { entries: Vec::new(), of_corpora: Vec::new() };
        let (mut first, mut rest) = (none(), none());
        let (mut entries, mut own) = (self.entries.into_iter(), own.iter());
        for count in self.of_corpora {
            let trained = if count == 0 { 0 } else { own.next().copied().unwrap_or(count).min(count) };
            first.entries.extend(entries.by_ref().take(trained));
            rest.entries.extend(entries.by_ref().take(count - trained));
            first.of_corpora.push(trained);
            rest.of_corpora.push(count - trained);
        }
        [first, rest]
    }

    /// Entries that a training asks for: no more than its steps can see.
    pub fn asked_for(training: &AdaptTraining) -> u32 {
        let seen = u64::from(training.steps) * u64::from(training.batch);
        u64::from(training.samples).min(seen) as u32
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
        Self::read(config, root, samples, published::check_corpus, &mut |_, share| Ok((0..share).collect()))
    }

    /// How many of `samples` entries a draw would have; fewer where a corpus has fewer than its share. Reads no further than the shares
    /// reach, so that a plan can ask.
    ///
    /// # Errors
    /// What is missing under `root`, or a file that is not as expected.
    pub fn available(config: &CorporaConfig, root: &Path, samples: usize) -> Result<usize, DataError> {
        Self::available_beside(config, root, samples, 0)
    }

    /// The same where so many entries of each corpus are held out.
    ///
    /// # Errors
    /// As for [`Captions::available`]; a corpus of which the held-out entries leave none.
    pub fn available_beside(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        held_out: usize,
    ) -> Result<usize, DataError> {
        let corpora = &config.corpora;
        let mut available = 0;
        for (number, corpus) in corpora.iter().enumerate() {
            published::check_corpus(root, *corpus)?;
            let share = share(samples, number, corpora.len());
            if share > 0 {
                let source = Source::new(root, *corpus)?;
                available += source.beside(source.count(share + held_out)?, held_out)?;
            }
        }
        Ok(available)
    }

    fn read(
        config: &CorporaConfig,
        root: &Path,
        samples: usize,
        check: Check,
        choose: Choose<'_>,
    ) -> Result<Self, DataError> {
        let corpora = &config.corpora;
        // Every corpus is checked before the first, possibly large, file is read.
        for corpus in corpora {
            check(root, *corpus)?;
        }
        // A caption that is cut in two has at least two characters.
        let shortest = if config.form == SampleForm::Prefix { 2 } else { 1 };
        let (mut entries, mut of_corpora) = (Vec::with_capacity(samples), Vec::with_capacity(corpora.len()));
        for (number, corpus) in corpora.iter().enumerate() {
            let share = share(samples, number, corpora.len());
            if share == 0 {
                of_corpora.push(0);
                continue;
            }
            let source = Source::new(root, *corpus)?;
            let order = choose(&source, share)?;
            let wanted: BTreeSet<usize> = order.iter().copied().collect();
            let mut positions = wanted.iter();
            let mut found: HashMap<usize, Captioned> = HashMap::with_capacity(wanted.len());
            source.each(&|position| wanted.contains(&position), &mut |entry, text, image| {
                let caption = blip_caption(text);
                if caption.chars().count() < shortest {
                    return Err(
                        entry.error(format!("`caption` is too short: `{caption}` has not {shortest} characters"))
                    );
                }
                let question = match source.corpus.asks() {
                    true => Some(entry.text("question")?.to_owned()),
                    false => None,
                };
                if let Some(position) = positions.next() {
                    found.insert(*position, Captioned { image, caption, question });
                }
                Ok(if found.len() == wanted.len() { Next::Enough } else { Next::More })
            })?;
            if found.is_empty() {
                return Err(DataError::Unfit { path: source.path, reason: "it has no entries".to_owned() });
            }
            let before = entries.len();
            entries.extend(order.iter().filter_map(|position| found.get(position).cloned()));
            of_corpora.push(entries.len() - before);
        }
        Ok(Self { entries, of_corpora })
    }

    /// The entries.
    pub fn entries(&self) -> &[Captioned] {
        &self.entries
    }

    /// How many of the entries are of each corpus, in the order of the corpora.
    pub fn of_corpora(&self) -> &[usize] {
        &self.of_corpora
    }
}

/// What corpus `number` of so many contributes to a draw: equal shares, the first ones take what is left over.
fn share(samples: usize, number: usize, corpora: usize) -> usize {
    samples / corpora + usize::from(number < samples % corpora)
}

/// Told an entry, its caption as it is written and its image.
type Take<'a> = &'a mut dyn FnMut(&Entry<'_>, &str, PathBuf) -> Result<Next, DataError>;

/// The annotations of one corpus: LAVIS' list of captions, for COCO also Karpathy's file, for corpora of questions the list of easy-VQA's package.
struct Source {
    corpus: Corpus,
    path: PathBuf,
    images: PathBuf,
    karpathy: bool,
}

impl Source {
    fn new(root: &Path, corpus: Corpus) -> Result<Self, DataError> {
        let [annotations, images] = published::expected_of_corpus(corpus);
        let (path, images) = (root.join(annotations.path), root.join(images.path));
        let top = Top::of(&path)?;
        let karpathy = corpus == Corpus::Coco && karpathy::is(&top);
        if top == Top::List || karpathy {
            return Ok(Self { corpus, path, images, karpathy });
        }
        let expected = match corpus {
            Corpus::Coco => {
                "LAVIS' list of captions (`image`, `caption`), or Karpathy's object with a list `images` (`filepath`, `filename`, `sentences`, `split`)"
            }
            Corpus::Vg | Corpus::Cc3m => "LAVIS' list of captions (`image`, `caption`)",
            Corpus::EasyVqa | Corpus::Shapes => "easy-VQA's list of questions (`[question, answer, image]`)",
        };
        Err(DataError::Form { path, found: top.to_string(), expected })
    }

    /// Where the entries of a list stand.
    fn place(&self) -> Place {
        if self.corpus.asks() { easy_vqa::ENTRY } else { Place::Whole }
    }

    /// How many of so many entries are left beside those that are held out.
    ///
    /// # Errors
    /// [`DataError::Unfit`] where none is.
    fn beside(&self, total: usize, held_out: usize) -> Result<usize, DataError> {
        match total.checked_sub(held_out).filter(|left| *left > 0 || held_out == 0) {
            Some(left) => Ok(left),
            None => Err(DataError::Unfit {
                path: self.path.clone(),
                reason: format!(
                    "of its {total} entries, {held_out} held out leave none to train on; lower `restore.loading.held-out`"
                ),
            }),
        }
    }

    /// The number of captions or questions; counting stops at `enough`.
    fn count(&self, enough: usize) -> Result<usize, DataError> {
        if !self.karpathy {
            let counted =
                each(&self.path, self.place(), &|position| position + 1 == enough, &mut |_| Ok(Next::Enough))?;
            return Ok(counted.min(enough));
        }
        let mut counted = 0;
        self.each(&|_| true, &mut |_, _, _| {
            counted += 1;
            Ok(if counted < enough { Next::More } else { Next::Enough })
        })?;
        Ok(counted)
    }

    /// Hands on the wanted captions, counted from 0. Karpathy's training set is that of LAVIS: the splits `train` and `restval`, a caption
    /// after the other.
    fn each(&self, wanted: &dyn Fn(usize) -> bool, take: Take<'_>) -> Result<(), DataError> {
        if self.corpus.asks() {
            return each(&self.path, self.place(), wanted, &mut |entry| {
                let image = easy_vqa::image(&entry, &self.images)?;
                take(&entry, entry.text("answer")?, image)
            })
            .map(|_| ());
        }
        if !self.karpathy {
            return each(&self.path, self.place(), wanted, &mut |entry| {
                let image = entry.image(&self.images)?;
                take(&entry, entry.text("caption")?, image)
            })
            .map(|_| ());
        }
        let mut position = 0;
        karpathy::each_image(&self.path, &["train", "restval"], &self.images, &mut |entry, image| {
            for caption in entry.texts_within("sentences", "raw")? {
                position += 1;
                if wanted(position - 1) && take(entry, &caption, image.clone())? == Next::Enough {
                    return Ok(Next::Enough);
                }
            }
            Ok(Next::More)
        })
    }
}

impl Captioned {
    /// What the model reads and what it is to write.
    pub fn sample(&self, config: &CorporaConfig, rng: &mut (impl Rng + ?Sized)) -> (String, String) {
        if let Some(question) = &self.question {
            // Only the place in the template counts; braces in the question stay what they are.
            let read = config.question.as_ref().map_or(question.clone(), |text| text.replacen("{}", question, 1));
            return (read, self.caption.clone());
        }
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

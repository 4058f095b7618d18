//! What stages read from outside the store, by content: checkpoint folders and data on disk.
//!
//! A stage's key holds a digest of every byte outside the store that can decide its result: of a checkpoint folder the files that are read
//! ([`ressa_checkpoint::files_read`]), of data the annotation files and exactly the images that the stage opens. So an edit in place makes
//! other stages, and a folder that is renamed, linked or moved to another disk makes the same ones. Digests of files are remembered
//! ([`ressa_store::Digests`]); the second look costs one `stat` per file.
//!
//! The front program asks when it plans; a worker asks again before and after each stage, so that nothing made from a folder that changed
//! meanwhile is published under the old key.

mod data;
mod error;
mod seen;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;
use ressa_checkpoint::files_read;
use ressa_experiment::{Reading, ReadingKind, Readings, Stage, StageNode};
use ressa_store::{Cache, Store};

pub use error::ContentError;
pub use seen::Findings;

/// Bytes that lists of images may take.
const LISTS: u64 = 256 << 20;

/// Reads contents for one store.
#[derive(Debug)]
pub struct Contents<'a> {
    store: &'a Store,
    /// Where relative places start.
    root: PathBuf,
    /// Which images an annotation file names, so that large ones are not parsed again.
    lists: Cache,
    found: Mutex<Found>,
    /// Bytes read so far, to tell people why they wait.
    read: AtomicU64,
}

#[derive(Debug, Default)]
struct Found {
    /// Contents found so far: many stages of a grid read the same.
    contents: HashMap<Subject, Option<String>>,
    findings: Findings,
}

/// What is read where.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    /// As the experiment says it, without a slash at the end.
    place: PathBuf,
    /// What decides which files are read there; empty for a checkpoint folder.
    by: String,
}

impl Subject {
    fn of(stage: &Stage, what: ReadingKind, place: &str) -> Self {
        let by = match what {
            ReadingKind::Model | ReadingKind::Matcher | ReadingKind::Teacher | ReadingKind::Text => String::new(),
            ReadingKind::Data => data::named(stage).map(|named| named.by).unwrap_or_default(),
        };
        Self { place: Path::new(place).components().collect(), by }
    }
}

/// What is read somewhere.
#[derive(Debug)]
struct Content {
    /// Of names and contents of all files.
    digest: String,
    /// The files, each with the digest of its content.
    files: Vec<(String, String)>,
}

/// A file that a stage reads, by the name that it has in its folder.
struct Source {
    name: String,
    path: PathBuf,
    /// Whether the stage does without it: an image of a corpus, in whose place another is drawn.
    optional: bool,
}

impl<'a> Contents<'a> {
    /// For a store; relative places start at `root`.
    pub fn new(store: &'a Store, root: impl Into<PathBuf>) -> Self {
        let lists = Cache::new(store.root().join("lists"), LISTS);
        Self { store, root: root.into(), lists, found: Mutex::default(), read: AtomicU64::new(0) }
    }

    /// What a stage reads by its own configuration. What is not there is known by its content when it was last seen, so that results
    /// outlive their sources; without such, and where a part of it is there and is another, by its place.
    pub fn readings(&self, stage: &Stage) -> Readings {
        let reading = |(what, place): (ReadingKind, String)| {
            let subject = Subject::of(stage, what, &place);
            let known = self.lock().contents.get(&subject).cloned();
            let content = known.unwrap_or_else(|| {
                let content = match self.content(Some(stage), what, &place) {
                    Ok(content) => {
                        let digest = content.digest.clone();
                        self.lock().findings.add(self.store, &subject, content);
                        Some(digest)
                    }
                    // What was deleted counts as what a sweep last read there.
                    Err(error) if error.is_absence() => self.last(&subject),
                    // A disk that does not answer says nothing about what is there.
                    Err(error) if error.is_unanswered() => {
                        self.lock().findings.unreadable.get_or_insert(error.to_string());
                        None
                    }
                    // What is there and wrong is said by the checks before a sweep, or by the stage.
                    Err(_) => None,
                };
                let reading = Reading { what, place: place.clone(), content: content.clone() };
                let mut found = self.lock();
                found.contents.insert(subject, content.clone());
                found.findings.asked.push((stage.clone(), reading));
                content
            });
            Reading { what, place, content }
        };
        stage.reads().into_iter().map(reading).collect()
    }

    /// What a place without all of its files held when a sweep last read it; `None` where a file that is there is another by now.
    fn last(&self, subject: &Subject) -> Option<String> {
        let last = seen::last(self.store, subject)?;
        let folder = self.root.join(&subject.place);
        let files = seen::files(self.store, subject, &last);
        let is_other = |(name, digest): &(String, String)| {
            // One file has no name in a folder.
            let path = if name.is_empty() { folder.clone() } else { folder.join(name) };
            path.is_file() && self.digest(&path).is_ok_and(|now| now.to_hex().as_str() != digest)
        };
        if folder.exists() && files.par_iter().any(is_other) {
            self.lock().findings.changed.insert(subject.place.display().to_string());
            return None;
        }
        Some(last)
    }

    /// What was found, for later plans.
    pub fn into_findings(self) -> Findings {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner).findings
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what a stage reads, itself or through its dense model, is still what its key was made from.
    ///
    /// # Errors
    /// The first reading that is not.
    pub fn check(&self, node: &StageNode) -> Result<(), ContentError> {
        for reading in node.readings.iter() {
            let is_own = node.stage.reads().iter().any(|(what, _)| *what == reading.what);
            // A merge compares outputs on data of its adapter, which decides nothing.
            if is_own || reading.what != ReadingKind::Data {
                self.unchanged(Some(&node.stage), reading)?;
            }
        }
        Ok(())
    }

    /// The same for a dense model alone, whoever reads it.
    ///
    /// # Errors
    /// As for [`Contents::check`].
    pub fn check_model(&self, readings: &Readings) -> Result<(), ContentError> {
        let Some(model) = readings.of(ReadingKind::Model) else { return Ok(()) };
        self.unchanged(None, model)
    }

    /// Without a digest the key names the place: nothing was promised.
    fn unchanged(&self, stage: Option<&Stage>, reading: &Reading) -> Result<(), ContentError> {
        let found = self.content(stage, reading.what, &reading.place);
        if found.as_ref().ok().map(|found| &found.digest) == reading.content.as_ref() || reading.content.is_none() {
            return Ok(());
        }
        let place = reading.place.clone();
        Err(match found.err() {
            Some(error) if error.is_absence() => ContentError::Gone { place, reason: error.to_string() },
            other => ContentError::Changed { place, reason: other.map(|error| error.to_string()) },
        })
    }

    /// Files of data that a stage cannot do without and that are not below `root`. Images of a corpus are not among them: others are drawn in
    /// their place.
    ///
    /// # Errors
    /// Annotations that are missing or cannot be understood.
    pub fn missing(&self, stage: &Stage, root: &Path) -> Result<Vec<PathBuf>, ContentError> {
        let sources = self.data(stage, root)?;
        let needed = sources.into_par_iter().filter(|source| !source.optional);
        Ok(needed.map(|source| source.path).filter(|path| !path.is_file()).collect())
    }

    /// Images of corpora that a stage draws and that are not there, and how many it draws: others are drawn in their place.
    ///
    /// # Errors
    /// As for [`Contents::missing`].
    pub fn replaced(&self, stage: &Stage, root: &Path) -> Result<(Vec<PathBuf>, usize), ContentError> {
        let drawn: Vec<Source> = self.data(stage, root)?.into_iter().filter(|source| source.optional).collect();
        let many = drawn.len();
        let absent = drawn.into_par_iter().map(|source| source.path).filter(|path| !path.is_file()).collect();
        Ok((absent, many))
    }

    /// Bytes of files that had to be read because nothing was remembered of them.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Digest of what is read of a kind; which data that are, its stage says.
    ///
    /// # Errors
    /// A file that is missing or cannot be read; annotations that cannot be understood.
    fn content(&self, stage: Option<&Stage>, what: ReadingKind, place: &str) -> Result<Content, ContentError> {
        let folder = self.root.join(place);
        let sources = match what {
            ReadingKind::Model | ReadingKind::Matcher | ReadingKind::Teacher => {
                let of = |name: String| Source { path: folder.join(&name), name, optional: false };
                files_read(&folder)?.into_iter().map(of).collect()
            }
            ReadingKind::Data => stage.map_or(Ok(Vec::new()), |stage| self.data(stage, &folder))?,
            // One file, whatever it is called.
            ReadingKind::Text => vec![Source { name: String::new(), path: folder, optional: false }],
        };
        let files: Vec<(String, String)> =
            sources.into_par_iter().map(|source| self.file(source)).collect::<Result<_, _>>()?;
        self.store.digests().keep();
        let mut hasher = blake3::Hasher::new();
        for (name, content) in &files {
            // The length keeps a name from running into a digest.
            hasher.update(format!("{} {name} {content}\n", name.len()).as_bytes());
        }
        Ok(Content { digest: hasher.finalize().to_hex().to_string(), files })
    }

    /// Name and digest of a source.
    fn file(&self, source: Source) -> Result<(String, String), ContentError> {
        let content = match self.digest(&source.path) {
            Ok(digest) => digest.to_hex().to_string(),
            Err(ContentError::Read { .. }) if source.optional => "unreadable".to_owned(),
            Err(error) => return Err(error),
        };
        Ok((source.name, content))
    }

    fn digest(&self, path: &Path) -> Result<blake3::Hash, ContentError> {
        let digests = self.store.digests();
        let known = digests.knows(path);
        let (bytes, digest) = digests.of_file(path).map_err(|e| ContentError::read(path, e))?;
        if !known {
            self.read.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(digest)
    }
}

impl ContentError {
    fn read(path: &Path, source: io::Error) -> Self {
        ContentError::Read { path: path.to_owned(), source }
    }
}

//! What happened to every stage: an append-only log, and the index made from it.
//!
//! A coordinator, and nobody else, writes what happens into a segment of its own (`<store>/log/000001.jsonl` and on): lines of JSON, each with
//! its number and a checksum. Everybody may read at any time, without a lock and in a folder that cannot be written: [`read`] gives the
//! [`Index`], from its file as far as that reaches and from the log behind it. The index is a convenience, the log is history, and the store
//! is the truth: what neither knows is found there by whoever coordinates next.
//!
//! Nothing is lost with the last line, the index or the whole log: an output in the store that no line speaks of is proven and written down
//! anew ([`LogEvent::Found`]); a torn line is passed over and named.

mod event;
mod index;
mod line;
mod older;
mod positions;
mod proof;
mod record;
mod segment;
mod shared;
mod snapshot;
mod states;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use ressa_experiment::StageKey;
use ressa_store::{Store, StoreError};

pub use event::{Comparison, Entry, LogEvent, LogPart};
pub use index::Index;
pub use older::take_over;
pub use positions::Positions;
pub use record::{Attempt, Circumstances, FailureRecord, Proof, Published, Record, State};
pub use segment::{host, nonce};
pub use states::{States, states};

use segment::{Place, Segments, Writer};

/// Folder of the log within the store's root.
const FOLDER: &str = "log";
/// Name of the index within it.
const INDEX: &str = "index";
/// The index is written anew when so many lines stand behind it, or a quarter of what it holds if that is more.
const BEHIND: usize = 2_000;

/// Something in the log that is not as it was written. None of it keeps anybody from reading the rest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// File of the log.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

/// What was read of a log.
#[derive(Debug, Default)]
pub struct Reading {
    /// What it says of every stage.
    pub index: Index,
    /// What is not as it was written.
    pub notes: Vec<Note>,
    /// Events that the index's file does not hold.
    behind: usize,
}

/// The folder of a store's log.
pub fn folder(store: &Store) -> PathBuf {
    store.root().join(FOLDER)
}

/// Reads the index and what the log has beyond it. A store without a log has an empty one.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn read(store: &Store) -> Result<Reading, StoreError> {
    let folder = folder(store);
    let mut reading = Reading::default();
    if let Some(index) = snapshot::read(&folder.join(INDEX), &mut reading.notes)? {
        reading.index = index;
    }
    reading.update(store, &mut |_| {})?;
    if reading.index.segments.is_empty() {
        for record in older::failures(store)? {
            reading.index.apply(LogEvent::Failed { key: record.key, attempt: 0, worker: String::new(), record });
        }
    }
    Ok(reading)
}

/// Every event that the log holds, oldest first, and what is not as it was written.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn history(store: &Store) -> Result<(Vec<Entry>, Vec<Note>), StoreError> {
    let (mut entries, mut notes) = (Vec::new(), Vec::new());
    follow(&folder(store), &mut Segments::new(), &mut notes, &mut |entry| entries.push(entry))?;
    Ok((entries, notes))
}

/// What the log says of some stages, oldest first.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn history_of(store: &Store, keys: &HashSet<StageKey>) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    follow(&folder(store), &mut Segments::new(), &mut Vec::new(), &mut |entry| {
        if entry.event.key().is_some_and(|key| keys.contains(key)) {
            entries.push(entry);
        }
    })?;
    Ok(entries)
}

impl Reading {
    /// Takes in what was written since. Calls `seen` with each new event.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn update(&mut self, store: &Store, seen: &mut dyn FnMut(&Entry)) -> Result<(), StoreError> {
        let Self { index, notes, behind } = self;
        let mut segments = std::mem::take(&mut index.segments);
        let outcome = follow(&folder(store), &mut segments, notes, &mut |entry| {
            *behind += 1;
            seen(&entry);
            index.apply(entry.event);
        });
        index.segments = segments;
        outcome
    }
}

/// Hands every entry behind `known` to `take`, oldest first, and moves `known` behind them.
fn follow(
    folder: &Path,
    known: &mut Segments,
    notes: &mut Vec<Note>,
    take: &mut dyn FnMut(Entry),
) -> Result<(), StoreError> {
    // The number that a segment was written under counts, not the name it has now.
    let mut segments: Vec<(u32, String, PathBuf)> = Vec::new();
    for (number, path) in segment::files(folder)? {
        // Without its first line, a segment is what its file says.
        let (written, id) = segment::header(&path)?.unwrap_or_else(|| (number, name(&path)));
        if segments.iter().any(|(_, other, _)| *other == id) {
            notes.push(Note { file: name(&path), what: "it is a copy of another file of the log".to_owned() });
            continue;
        }
        if written != number {
            notes.push(Note { file: name(&path), what: format!("it was written as {written:06}.jsonl") });
        }
        segments.push((written, id, path));
    }
    segments.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    for (number, id, path) in segments {
        let mut place = match known.get(&number) {
            Some(place) if place.id == id => place.clone(),
            Some(_) => {
                // Two coordinators that could not see each other: both are read.
                notes.push(Note { file: name(&path), what: "another segment has its number".to_owned() });
                Place::default()
            }
            None => Place::default(),
        };
        let outcome = segment::read(&path, &mut place, notes, take);
        known.insert(number, place);
        outcome?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The log of a coordinator: reads everything, writes its own segment.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    writer: Writer,
    reading: Reading,
}

impl Log {
    /// Begins a segment of the store's log. The caller holds the right to coordinate. `program` is its version and revision.
    ///
    /// # Errors
    /// A folder that cannot be read or written.
    pub fn begin(store: &Store, program: &str) -> Result<Self, StoreError> {
        let reading = read(store)?;
        let folder = folder(store);
        let (writer, began) = Writer::begin(&folder, program)?;
        let mut log = Self { folder, writer, reading };
        log.took(began);
        Ok(log)
    }

    /// What the log says now.
    pub fn index(&self) -> &Index {
        &self.reading.index
    }

    /// What was not as it was written when the log was read.
    pub fn notes(&self) -> &[Note] {
        &self.reading.notes
    }

    /// Number of this coordinator's segment.
    pub fn number(&self) -> u32 {
        self.writer.number()
    }

    /// Writes an event down.
    ///
    /// # Errors
    /// A disk that does not take it.
    pub fn write(&mut self, event: LogEvent) -> Result<(), StoreError> {
        let entry = self.writer.append(event)?;
        self.took(entry);
        Ok(())
    }

    fn took(&mut self, entry: Entry) {
        self.reading.behind += 1;
        self.reading.index.apply(entry.event);
    }

    /// Whether no other coordinator has begun since.
    pub fn is_current(&self) -> bool {
        self.writer.is_current()
    }

    /// Makes what was written last, and writes the index anew where much stands behind it.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.keep(BEHIND.max(self.reading.index.len() / 4))
    }

    /// The same at the end, when writing the index once more is worth it for whoever looks afterwards.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.keep(BEHIND)
    }

    /// Makes what was written last, and writes the index anew where more than so many lines stand behind it.
    fn keep(&mut self, behind: usize) -> Result<(), StoreError> {
        self.writer.sync()?;
        if self.reading.behind > behind {
            let index = &mut self.reading.index;
            index.segments.insert(self.writer.number(), self.writer.place().clone());
            snapshot::write(&self.folder.join(INDEX), index)?;
            self.reading.behind = 0;
        }
        Ok(())
    }
}

//! Which stages are published and which failed: as much of the log as a look needs, at a small part of what the whole index costs.

use ressa_experiment::{KeyMap, StageKey, key::KeySet};
use ressa_store::{Store, StoreError};

use crate::{FailureRecord, INDEX, LogEvent, folder, follow, older, record::by_time, segment::Segments, snapshot};

/// The last that happened to every stage, without what is known of it otherwise.
#[derive(Debug, Default)]
pub struct States {
    published: KeySet,
    failed: KeyMap<FailureRecord>,
}

/// Reads the state of every stage.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn states(store: &Store) -> Result<States, StoreError> {
    let folder = folder(store);
    let mut states = States::default();
    let mut segments = Segments::new();
    if let Some(known) = snapshot::read_states(&folder.join(INDEX), &mut states)? {
        segments = known;
    }
    // What is not as it was written is named by who reads the whole log.
    follow(&folder, &mut segments, &mut Vec::new(), &mut |entry| states.apply(entry.event))?;
    if segments.is_empty() {
        older::failures(store)?.into_iter().for_each(|record| states.fail(record));
    }
    Ok(states)
}

impl States {
    /// Whether a stage's output is in the store, as far as the log knows.
    pub fn is_published(&self, key: &StageKey) -> bool {
        self.published.contains(key)
    }

    /// Stages whose last attempt failed, the oldest failure first.
    pub fn failures(&self) -> Vec<&FailureRecord> {
        by_time(self.failed.values())
    }

    pub(crate) fn publish(&mut self, key: StageKey) {
        self.failed.remove(&key);
        self.published.insert(key);
    }

    pub(crate) fn fail(&mut self, record: FailureRecord) {
        self.published.remove(&record.key);
        self.failed.insert(record.key, record);
    }

    pub(crate) fn reserve(&mut self, stages: usize) {
        self.published.reserve(stages);
    }

    /// Takes an event into account, as the index does.
    fn apply(&mut self, event: LogEvent) {
        match event {
            LogEvent::Published { key, .. } | LogEvent::Found { key, .. } => self.publish(key),
            LogEvent::Failed { record, .. } => self.fail(record),
            LogEvent::Gone { key, .. } => {
                self.published.remove(&key);
                self.failed.remove(&key);
            }
            LogEvent::Retried { key } => drop(self.failed.remove(&key)),
            _ => {}
        }
    }
}

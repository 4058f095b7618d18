//! What the log says of every stage, and where in the log that was read.

use std::collections::BTreeMap;

use ressa_experiment::StageKey;

use crate::{
    Attempt, FailureRecord, LogEvent, LogPart, Positions, Published, Record, State, record::by_time, segment::Segments,
    shared::Shared,
};

/// Everything the log says, as of now.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// In the order in which stages became known. A map of them would be twice as large: it is half empty after it has grown.
    records: Vec<(StageKey, Record)>,
    positions: Positions,
    /// Segments and how much of each is in here.
    pub(crate) segments: Segments,
    shared: Shared,
}

impl Index {
    /// What is known of a stage.
    pub fn get(&self, key: &StageKey) -> Option<&Record> {
        self.position(key).map(|position| &self.records[position].1)
    }

    fn position(&self, key: &StageKey) -> Option<usize> {
        self.positions.get(key, |at| &self.records[at].0)
    }

    /// The published output of a stage, as far as the log knows.
    pub fn published(&self, key: &StageKey) -> Option<&Published> {
        match &self.get(key)?.state {
            State::Published(published) => Some(published),
            _ => None,
        }
    }

    /// Why a stage failed, if that was the last that happened to it.
    pub fn failure(&self, key: &StageKey) -> Option<&FailureRecord> {
        match &self.get(key)?.state {
            State::Failed(record) => Some(record),
            _ => None,
        }
    }

    /// Stages whose last attempt failed, the oldest failure first.
    pub fn failures(&self) -> Vec<&FailureRecord> {
        by_time(self.records.iter().filter_map(|(_, record)| match &record.state {
            State::Failed(failure) => Some(failure.as_ref()),
            State::Open | State::Published(_) => None,
        }))
    }

    /// Every stage that the log knows, in the order in which it was first spoken of.
    pub fn iter(&self) -> impl Iterator<Item = (&StageKey, &Record)> {
        self.records.iter().map(|(key, record)| (key, record))
    }

    /// How many stages the log knows.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes an event into account.
    pub(crate) fn apply(&mut self, event: LogEvent) {
        match event {
            LogEvent::Started { key, attempt, worker, remote, log, .. } => {
                let log = log.map(|part| self.shared.part(part));
                let record = self.record(key);
                record.attempts = record.attempts.max(attempt);
                record.open.insert(attempt, Attempt { worker, remote, log });
            }
            LogEvent::Published { key, attempt, record: published, log, .. } => {
                let published = self.shared.published(published);
                self.ended(key, attempt, log).state = State::Published(published);
            }
            LogEvent::Found { key, record: published } => {
                let published = self.shared.published(published);
                self.record(key).state = State::Published(published);
            }
            LogEvent::Gone { key, .. } => {
                if let Some(record) = self.known(&key) {
                    record.state = State::Open;
                }
            }
            LogEvent::Failed { key, attempt, record: failure, .. } => {
                self.ended(key, attempt, None).state = State::Failed(Box::new(failure));
            }
            LogEvent::Returned { key, attempt, .. } | LogEvent::Superseded { key, attempt, .. } => {
                self.ended(key, attempt, None);
            }
            LogEvent::Retried { key } => {
                if let Some(record) = self.known(&key)
                    && matches!(record.state, State::Failed(_))
                {
                    record.state = State::Open;
                }
            }
            LogEvent::Began { .. }
            | LogEvent::Planned { .. }
            | LogEvent::Progress { .. }
            | LogEvent::WorkerUp { .. }
            | LogEvent::WorkerDown { .. }
            | LogEvent::Refused { .. }
            | LogEvent::Ended { .. } => {}
        }
    }

    /// Ends an attempt; what it logged is what `log` says, or what is known from its begin.
    fn ended(&mut self, key: StageKey, attempt: u32, log: Option<LogPart>) -> &mut Record {
        let log = log.map(|part| self.shared.part(part));
        let record = self.record(key);
        record.attempts = record.attempts.max(attempt);
        let begun = record.open.remove(&attempt).and_then(|attempt| attempt.log);
        if record.open.is_empty() {
            // An empty map keeps the memory of its last entry, and most stages have no attempt open.
            record.open = BTreeMap::new();
        }
        record.log = log.or(begun).or_else(|| record.log.take());
        record
    }

    /// The record of a stage that the log knows.
    fn known(&mut self, key: &StageKey) -> Option<&mut Record> {
        self.position(key).map(|position| &mut self.records[position].1)
    }

    /// The record of a stage, which is made where there is none.
    fn record(&mut self, key: StageKey) -> &mut Record {
        let position = self.position(&key).unwrap_or_else(|| {
            self.records.push((key, Record::default()));
            self.positions.insert(self.records.len() - 1, |at| &self.records[at].0);
            self.records.len() - 1
        });
        &mut self.records[position].1
    }

    /// An index with room for so many stages, whose records take their common values from `shared`.
    pub(crate) fn with_capacity(stages: usize, shared: Shared) -> Self {
        let mut index = Self { shared, ..Self::default() };
        index.records.reserve(stages);
        index.positions.reserve(stages, |at| &index.records[at].0);
        index
    }

    /// Puts a record in whose common values are those of `shared`.
    pub(crate) fn insert(&mut self, key: StageKey, record: Record) {
        *self.record(key) = record;
    }
}

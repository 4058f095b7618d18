//! What the log says of every stage, and where in the log that was read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ressa_experiment::{KeyMap, StageKey};
use ressa_store::Environment;

use crate::{
    Attempt, FailureRecord, LogEvent, LogPart, Published, Record, State,
    segment::{Place, Segments},
};

/// Everything the log says, as of now.
#[derive(Clone, Debug, Default)]
pub struct Index {
    records: KeyMap<Record>,
    /// Segments and how much of each is in here.
    pub(crate) segments: Segments,
    /// One of each text and environment, since most stages share theirs.
    texts: HashSet<Arc<str>>,
    environments: HashMap<String, Arc<Environment>>,
    lists: HashSet<Arc<[String]>>,
}

impl Index {
    /// What is known of a stage.
    pub fn get(&self, key: &StageKey) -> Option<&Record> {
        self.records.get(key)
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
        let failed = |record: &'_ Record| matches!(record.state, State::Failed(_));
        let mut found: Vec<&FailureRecord> = self
            .records
            .values()
            .filter(|record| failed(record))
            .filter_map(|record| match &record.state {
                State::Failed(record) => Some(record.as_ref()),
                _ => None,
            })
            .collect();
        found.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
        found
    }

    /// Every stage that the log knows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&StageKey, &Record)> {
        self.records.iter()
    }

    /// How many stages the log knows.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes an event into account that stands at `place` in the log. Events of a place that was counted before change nothing.
    pub(crate) fn apply(&mut self, event: LogEvent) {
        match event {
            LogEvent::Started { key, attempt, worker, remote, log, .. } => {
                let record = self.records.entry(key).or_default();
                record.attempts = record.attempts.max(attempt);
                record.open.insert(attempt, Attempt { worker, remote, log });
            }
            LogEvent::Published { key, attempt, record, log, .. } => {
                let published = self.shared(record);
                let record = self.ended(key, attempt, log);
                record.state = State::Published(published);
            }
            LogEvent::Found { key, record } => {
                let published = self.shared(record);
                self.records.entry(key).or_default().state = State::Published(published);
            }
            LogEvent::Gone { key, .. } => {
                if let Some(record) = self.records.get_mut(&key) {
                    record.state = State::Open;
                }
            }
            LogEvent::Failed { key, attempt, record: failure, .. } => {
                let record = self.ended(key, attempt, None);
                record.state = State::Failed(Box::new(failure));
            }
            LogEvent::Returned { key, attempt, .. } | LogEvent::Superseded { key, attempt, .. } => {
                self.ended(key, attempt, None);
            }
            LogEvent::Retried { key } => {
                if let Some(record) = self.records.get_mut(&key)
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
        let log = log.map(|part| LogPart { file: text(&mut self.texts, part.file), ..part });
        let record = self.records.entry(key).or_default();
        record.attempts = record.attempts.max(attempt);
        let begun = record.open.remove(&attempt).and_then(|attempt| attempt.log);
        record.log = log.or(begun).or_else(|| record.log.take());
        record
    }

    /// Makes room for so many stages.
    pub(crate) fn reserve(&mut self, stages: usize) {
        self.records.reserve(stages);
    }

    /// Puts a record in, as a snapshot has it.
    pub(crate) fn insert(&mut self, key: StageKey, mut record: Record) {
        if let State::Published(published) = record.state {
            record.state = State::Published(self.shared(published));
        }
        self.records.insert(key, record);
    }

    /// The same record with the texts that others have too.
    fn shared(&mut self, mut record: Published) -> Published {
        record.kind = text(&mut self.texts, record.kind);
        record.detail = text(&mut self.texts, record.detail);
        record.model = text(&mut self.texts, record.model);
        match self.lists.get(&record.files) {
            Some(known) => record.files = Arc::clone(known),
            None => drop(self.lists.insert(Arc::clone(&record.files))),
        }
        let identity = serde_json::to_string(&*record.environment).unwrap_or_default();
        record.environment = Arc::clone(self.environments.entry(identity).or_insert(record.environment));
        record
    }

    /// Places of the log that this has seen.
    pub(crate) fn place(&self, segment: u32) -> Option<&Place> {
        self.segments.get(&segment)
    }
}

fn text(known: &mut HashSet<Arc<str>>, text: Arc<str>) -> Arc<str> {
    if let Some(same) = known.get(&text) {
        return Arc::clone(same);
    }
    known.insert(Arc::clone(&text));
    text
}

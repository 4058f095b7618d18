//! What a sweep wrote down of stages, for who looks for what their workers printed.

use std::collections::HashSet;

use ressa_experiment::StageKey;
use ressa_runlog::{Entry, LogEvent, history_of};
use ressa_store::{Store, StoreError};

use crate::text::duration;

/// The run log's lines about some stages.
pub struct Told(Vec<Entry>);

impl Told {
    /// The lines about stages; nothing is read where there are none.
    pub fn of(store: &Store, keys: HashSet<StageKey>) -> Result<Self, StoreError> {
        Ok(Self(if keys.is_empty() { Vec::new() } else { history_of(store, &keys)? }))
    }

    /// Those about one stage, oldest first.
    pub fn of_stage(&self, key: &StageKey) -> Vec<&Entry> {
        self.0.iter().filter(|entry| entry.event.key() == Some(key)).collect()
    }

    /// The same for people, a line each: how long after the first it was written, and what happened.
    pub fn lines(&self, key: &StageKey) -> Vec<String> {
        let entries = self.of_stage(key);
        let first = entries.first().map_or(0, |entry| entry.at);
        let after = |entry: &Entry| duration(entry.at.saturating_sub(first) as f64 / 1000.0);
        entries.into_iter().map(|entry| format!("{:>10}  {}", after(entry), words(&entry.event))).collect()
    }
}

fn words(event: &LogEvent) -> String {
    let by = |worker: &str| if worker.is_empty() { String::new() } else { format!(" by {worker}") };
    match event {
        LogEvent::Started { what, label, attempt, worker, .. } => {
            format!("attempt {attempt} started{}: {what}, {label}", by(worker))
        }
        LogEvent::Progress { fraction, message, .. } => {
            format!("{:.0} %  {message}", 100.0 * fraction).trim_end().to_owned()
        }
        LogEvent::Published { worker, record, .. } => format!("made{} in {}", by(worker), duration(record.seconds)),
        LogEvent::Found { .. } => "found in the store and proven".to_owned(),
        LogEvent::Gone { why, .. } => format!("gone from the store: {why}"),
        LogEvent::Failed { worker, record, .. } => {
            format!("failed{} ({}): {}", by(worker), record.failure.kind.name(), record.failure.message)
        }
        LogEvent::Returned { why, .. } => format!("given back: {why}"),
        LogEvent::Superseded { attempt, worker, .. } => format!("attempt {attempt}{} came too late", by(worker)),
        LogEvent::Retried { .. } => "its failure was forgotten".to_owned(),
        // These are about no stage.
        LogEvent::Began { .. }
        | LogEvent::Planned { .. }
        | LogEvent::WorkerUp { .. }
        | LogEvent::WorkerDown { .. }
        | LogEvent::Refused { .. }
        | LogEvent::Ended { .. } => String::new(),
    }
}

//! What a coordinator writes down.

use std::{path::PathBuf, sync::Arc};

use ressa_experiment::StageKey;
use serde::{Deserialize, Serialize};

use crate::{FailureRecord, Published};

/// One thing that happened. Events are facts of the past: a reader that does not know one passes it over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum LogEvent {
    /// The first line of a segment: a coordinator began.
    Began {
        /// Number of the segment.
        segment: u32,
        /// Random; tells a segment from a copy of it and from another one with its number.
        id: String,
        /// Machine it runs on.
        host: String,
        /// Its process.
        pid: u32,
        /// Version and revision of the program.
        program: String,
    },
    /// A sweep was planned.
    Planned {
        /// Experiment files and overrides, as people typed them.
        title: String,
        /// Distinct runs.
        runs: usize,
        /// Distinct stages.
        stages: usize,
        /// Stages that are there already.
        cached: usize,
    },
    /// A worker was given a stage.
    Started {
        /// The stage.
        key: StageKey,
        /// The stage in words.
        what: String,
        /// First run that needs it.
        label: String,
        /// Counts the attempts at this stage, from 1.
        attempt: u32,
        /// The worker.
        worker: String,
        /// Whether the worker outlives this coordinator.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        remote: bool,
        /// What it logs, from here on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<LogPart>,
    },
    /// How far a stage is; a few of these per stage.
    Progress {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// Share done, 0 to 1.
        fraction: f64,
        /// What is going on.
        message: String,
    },
    /// A stage's output is in the store.
    Published {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// The worker that made it.
        worker: String,
        /// What is in the store.
        record: Published,
        /// What was logged meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<LogPart>,
    },
    /// An output was found in the store that the log knew nothing of, or that was touched; it is proven.
    Found {
        /// The stage.
        key: StageKey,
        /// What is in the store.
        record: Published,
    },
    /// An output is no longer in the store.
    Gone {
        /// The stage.
        key: StageKey,
        /// Why, as far as that is known.
        why: String,
    },
    /// An attempt failed.
    Failed {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// The worker.
        worker: String,
        /// How.
        record: FailureRecord,
    },
    /// An attempt ended without a result and without fault: its worker vanished, was preempted or stopped.
    Returned {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// Why.
        why: String,
    },
    /// An attempt that was no longer the current one had a result after all. It is not used.
    Superseded {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// The worker.
        worker: String,
        /// How its output compares with what is published.
        comparison: Comparison,
        /// Where the output is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<PathBuf>,
    },
    /// A failure is forgotten: the stage may be tried again.
    Retried {
        /// The stage.
        key: StageKey,
    },
    /// A worker is ready.
    WorkerUp {
        /// The worker.
        worker: String,
        /// Its machine.
        host: String,
        /// Its device.
        device: String,
        /// Job of the cluster's engine that it runs in; empty without one.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        job: String,
    },
    /// A worker is gone.
    WorkerDown {
        /// The worker.
        worker: String,
        /// How it ended.
        why: String,
    },
    /// A message that cannot be from a worker of this sweep was refused.
    Refused {
        /// Who it says it is.
        worker: String,
        /// What is wrong with it.
        why: String,
    },
    /// The sweep ended.
    Ended {
        /// Stages made.
        made: usize,
        /// Stages that failed.
        failed: usize,
        /// Stages left to do.
        open: usize,
    },
}

impl LogEvent {
    /// The stage that it is about.
    pub fn key(&self) -> Option<&StageKey> {
        match self {
            Self::Started { key, .. }
            | Self::Progress { key, .. }
            | Self::Published { key, .. }
            | Self::Found { key, .. }
            | Self::Gone { key, .. }
            | Self::Failed { key, .. }
            | Self::Returned { key, .. }
            | Self::Superseded { key, .. }
            | Self::Retried { key } => Some(key),
            Self::Began { .. }
            | Self::Planned { .. }
            | Self::WorkerUp { .. }
            | Self::WorkerDown { .. }
            | Self::Refused { .. }
            | Self::Ended { .. } => None,
        }
    }
}

/// A part of a worker's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogPart {
    /// The file, relative to the results folder.
    pub file: Arc<str>,
    /// First byte.
    pub from: u64,
    /// End; none while the stage runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// The output of a superseded attempt beside the published one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Every file has the same digest.
    Same,
    /// Files that differ.
    Differs {
        /// Their names.
        files: Vec<String>,
    },
    /// Nothing is published yet.
    Alone,
    /// It has no whole output.
    Unusable {
        /// Why.
        why: String,
    },
}

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since 1970 by the coordinator's clock; for people, nothing is decided by it.
    pub at: u64,
    /// What happened.
    pub event: LogEvent,
}

//! The lines that `ressa` and `ressa-worker` exchange: one JSON object each, requests on the worker's standard input, replies on
//! its standard output. Standard error is the worker's log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{StageKey, StageNode};

/// What a worker is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// Execute one stage whose inputs are all in the store, and leave its output for the coordinator to publish.
    Execute {
        /// The stage.
        node: Box<StageNode>,
        /// Counts the attempts at this stage; the output is filled under it.
        attempt: u32,
    },
    /// Recount the weights behind published certificates, or score published predictions again.
    Verify {
        /// A `prune`, `merge` or `evaluate` stage.
        node: Box<StageNode>,
    },
    /// Finish.
    Shutdown,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// First line: the worker is ready.
    Ready {
        /// `cpu`, `cuda:0`, ...
        device: String,
        /// Intra-operation threads.
        threads: u32,
    },
    /// How far a stage is. Sent at most a few times per second.
    Progress {
        /// The stage.
        key: StageKey,
        /// Share done, 0 to 1.
        fraction: f64,
        /// What is going on, such as `step 120/900 loss 1.24`.
        message: String,
        /// Loss of the last step, where the stage trains.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        loss: Option<f64>,
    },
    /// The output of the stage is finished, and waits to be published.
    Done {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// Wall seconds spent.
        seconds: f64,
    },
    /// The stage was given back because the worker was asked to: what it needs to go on is saved.
    Returned {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
    },
    /// The stage failed; the worker goes on.
    Failed {
        /// The stage.
        key: StageKey,
        /// Its attempt.
        attempt: u32,
        /// Kind of failure.
        failure: Failure,
    },
    /// Outcome of a `Verify` request.
    Verified {
        /// The stage.
        key: StageKey,
        /// What does not hold; empty when all holds.
        violations: Vec<String>,
    },
}

/// A recorded failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// One line for people: what, where, what to do.
    pub message: String,
    /// Log of the worker, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Out of memory.
    Oom,
    /// Not-a-number or divergence in training.
    Nan,
    /// Longer than allowed.
    Timeout,
    /// The worker process died.
    Killed,
    /// Something is wrong with a model folder, data or a store entry.
    Data,
    /// The disk is full or a folder cannot be written.
    Storage,
    /// A defect of the program.
    Bug,
}

impl FailureKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Oom => "oom",
            FailureKind::Nan => "nan",
            FailureKind::Timeout => "timeout",
            FailureKind::Killed => "killed",
            FailureKind::Data => "data",
            FailureKind::Storage => "storage",
            FailureKind::Bug => "bug",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    #[test]
    fn progress_says_a_loss_only_where_there_is_one() {
        let line = format!(r#"{{"event":"progress","key":"{}","fraction":0.5,"message":"step 1/2"}}"#, "ab".repeat(32));
        let old: Event = serde_json::from_str(&line).unwrap();
        assert!(matches!(old, Event::Progress { loss: None, .. }));
        assert_eq!(serde_json::to_string(&old).unwrap(), line);
        let new = line.replace("1/2\"}", "1/2\",\"loss\":4.5}");
        assert!(matches!(serde_json::from_str(&new).unwrap(), Event::Progress { loss: Some(4.5), .. }));
    }
}

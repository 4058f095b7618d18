//! What a fleet tells its coordinator.

use std::fmt;

use serde::Serialize;

use crate::slurm::{End, advice};

/// Something that happened to the jobs of a sweep. `Display` is a line for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FleetEvent {
    /// The engine took an array.
    Submitted {
        /// Class.
        class: String,
        /// Jobs.
        jobs: u32,
        /// Number of the array.
        job: u64,
    },
    /// An array whose submission got no answer is in the queue.
    Found {
        /// Class.
        class: String,
        /// Number of the array.
        job: u64,
    },
    /// An array whose submission got no answer is not in the queue; it will be submitted anew where it is still needed.
    Lost {
        /// Class.
        class: String,
    },
    /// The engine took one script twice; the second array is cancelled.
    Doubled {
        /// Class.
        class: String,
        /// Number of the second array.
        job: u64,
    },
    /// Waiting jobs that are no longer needed were cancelled.
    Cancelled {
        /// Class.
        class: String,
        /// Jobs.
        jobs: usize,
    },
    /// Jobs that wait could not be cancelled at the end; a pilot that still begins finds no sweep and ends.
    Uncancelled {
        /// What the engine said.
        what: String,
    },
    /// Jobs of a class wait for a reason that they did not wait for before.
    Waiting {
        /// Class.
        class: String,
        /// Jobs.
        jobs: usize,
        /// Reason, in the engine's word.
        reason: String,
    },
    /// A job ended otherwise than by itself.
    JobEnded {
        /// Class.
        class: String,
        /// Job, `ARRAY_INDEX`.
        job: String,
        /// Where it ran.
        node: Option<String>,
        /// How.
        end: End,
    },
    /// A node is no longer used.
    Excluded {
        /// Node.
        node: String,
        /// Why.
        reason: String,
    },
    /// Stages fail fast wherever they run, so it is not the nodes, and none is excluded.
    EveryNodeFails {
        /// Nodes.
        nodes: Vec<String>,
    },
    /// The engine did not do what it was asked; it is asked again later.
    Trouble {
        /// What it was asked, and what it said.
        what: String,
        /// Seconds until it is asked again.
        again: u64,
    },
    /// No more jobs of a class are submitted in this sweep.
    GaveUp {
        /// Class.
        class: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl fmt::Display for FleetEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jobs = |number: usize| if number == 1 { "1 job".to_owned() } else { format!("{number} jobs") };
        match self {
            Self::Submitted { class, jobs: number, job } => {
                write!(f, "{class}: {} submitted as {job}", jobs(*number as usize))
            }
            Self::Found { class, job } => {
                write!(f, "{class}: the submission without an answer is in the queue as {job}")
            }
            Self::Lost { class } => write!(f, "{class}: the submission without an answer is not in the queue"),
            Self::Doubled { class, job } => write!(f, "{class}: one script was taken twice; {job} is cancelled"),
            Self::Cancelled { class, jobs: number } => {
                write!(f, "{class}: {} no longer needed, cancelled", jobs(*number))
            }
            Self::Uncancelled { what } => {
                write!(
                    f,
                    "jobs that wait are not cancelled ({what}); those that begin find no sweep and end by themselves"
                )
            }
            Self::Waiting { class, jobs: number, reason } => {
                write!(f, "{class}: {} waiting: {reason}", jobs(*number))?;
                advice(reason).map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
            Self::JobEnded { class, job, node, end } => {
                write!(f, "{class}: job {job}")?;
                node.as_ref().map_or(Ok(()), |node| write!(f, " on {node}"))?;
                write!(f, " {}", end.words())
            }
            Self::Excluded { node, reason } => write!(f, "node {node} is no longer used: {reason}"),
            Self::EveryNodeFails { nodes } => {
                write!(f, "stages fail fast on every node ({}), so none is excluded", nodes.join(", "))
            }
            Self::Trouble { what, again } => write!(f, "{what}; asked again in {again} s"),
            Self::GaveUp { class, reason } => write!(f, "{class}: no more jobs are submitted: {reason}"),
        }
    }
}

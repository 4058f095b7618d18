//! States of jobs, and what to do about reasons to wait.

use serde::Serialize;

/// What became of a job of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// In the queue, also after a requeue.
    Waiting,
    /// On a node, or ending there.
    Running,
    /// Over.
    Ended(End),
    /// A word that this version does not know; counted as living.
    Unknown,
}

/// How a job ended. None of it says what became of its stages: that is in the sweep's own records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Its pilot ended with exit code 0.
    Completed,
    /// Its pilot ended otherwise: it gave work back, or could not begin.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// At the time limit; its pilot did not end by itself.
    TimedOut,
    /// Its node was lost.
    NodeFailed,
    /// Another job took its place.
    Preempted,
    /// Out of memory.
    OutOfMemory,
}

impl TaskState {
    /// The meaning of Slurm's word, which may be followed by who cancelled, or cut off with a `+`.
    pub fn of(word: &str) -> Self {
        let word = word.split_whitespace().next().unwrap_or_default().trim_end_matches('+');
        match word {
            "PENDING" | "CONFIGURING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT"
            | "RESV_DEL_HOLD" => TaskState::Waiting,
            "RUNNING" | "COMPLETING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => {
                TaskState::Running
            }
            "COMPLETED" => TaskState::Ended(End::Completed),
            "FAILED" | "REVOKED" => TaskState::Ended(End::Failed),
            "TIMEOUT" | "DEADLINE" => TaskState::Ended(End::TimedOut),
            "NODE_FAIL" | "BOOT_FAIL" => TaskState::Ended(End::NodeFailed),
            "PREEMPTED" => TaskState::Ended(End::Preempted),
            "OUT_OF_MEMORY" | "OUT_OF_ME" => TaskState::Ended(End::OutOfMemory),
            _ if word.starts_with("CANCELLED") => TaskState::Ended(End::Cancelled),
            _ => TaskState::Unknown,
        }
    }

    /// Whether the job may still do something.
    pub fn is_living(self) -> bool {
        !matches!(self, TaskState::Ended(_))
    }
}

impl End {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            End::Completed => "ended",
            End::Failed => "ended early",
            End::Cancelled => "was cancelled",
            End::TimedOut => "was ended at its time limit",
            End::NodeFailed => "lost its node",
            End::Preempted => "was preempted",
            End::OutOfMemory => "ran out of memory",
        }
    }
}

/// What to do about a reason for which jobs wait; nothing where waiting is all there is to do.
pub fn advice(reason: &str) -> Option<&'static str> {
    let known = [
        ("PartitionTimeLimit", "`time` is more than the partition allows: shorten it"),
        ("PartitionNodeLimit", "the partition has too few nodes for this: choose another `partition`"),
        ("PartitionDown", "the partition is closed; ask the site, or choose another `partition`"),
        ("PartitionInactive", "the partition is closed; ask the site, or choose another `partition`"),
        ("ReqNodeNotAvail", "nodes that fit are down or reserved; a smaller `time` may end before the reservation"),
        (
            "BadConstraints",
            "no node has all of `constraint`, `gres`, `cpus` and `mem`; `ressa doctor --profile` lists what nodes have",
        ),
        ("InvalidQOS", "`qos` is not allowed for this account"),
        ("InvalidAccount", "`account` is not valid"),
        ("AccountNotAllowed", "`account` may not use this partition"),
        ("QOSNotAllowed", "`qos` may not be used in this partition"),
        ("JobHeldUser", "the jobs are held: `scontrol release`"),
        (
            "JobHeldAdmin",
            "the jobs are held by the site, often after several failed starts: look at their logs, then `scontrol release`",
        ),
        (
            "launch_failed_requeued_held",
            "starts failed, and Slurm holds the jobs: look at the nodes, then `scontrol release`",
        ),
        ("Nodes_required_for_job_are_DOWN", "nodes that fit are down"),
        ("Licenses", "a license is not free"),
    ];
    let plain = reason.replace([' ', '(', ')'], "_");
    known.iter().find(|(word, _)| plain.starts_with(word)).map(|(_, advice)| *advice).or_else(|| {
        (reason.starts_with("QOSMax") || reason.starts_with("Assoc"))
            .then_some("a limit of your account or quality of service; fewer `max-jobs` leave room for others of yours")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_meanings_however_they_are_written() {
        assert_eq!(TaskState::of("CANCELLED by 1000"), TaskState::Ended(End::Cancelled));
        assert_eq!(TaskState::of("CANCELLED+"), TaskState::Ended(End::Cancelled));
        assert_eq!(TaskState::of("OUT_OF_ME+"), TaskState::Ended(End::OutOfMemory));
        assert_eq!(TaskState::of("COMPLETING"), TaskState::Running);
        assert_eq!(TaskState::of("REQUEUE_HOLD"), TaskState::Waiting);
        assert!(TaskState::of("WHATEVER").is_living(), "an unknown word is no reason to give a job up");
    }

    #[test]
    fn reasons_that_time_does_not_cure_have_advice() {
        assert_eq!(advice("Priority"), None);
        assert_eq!(advice("Resources"), None);
        for reason in [
            "PartitionTimeLimit",
            "ReqNodeNotAvail, UnavailableNodes:n1",
            "QOSMaxJobsPerUserLimit",
            "AssocGrpGRES",
            "Nodes required for job are DOWN, DRAINED or reserved",
        ] {
            assert!(advice(reason).is_some(), "{reason}");
        }
    }
}

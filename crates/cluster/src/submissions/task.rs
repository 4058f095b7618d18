//! One job of an array.

use crate::slurm::{End, ListedTask, TaskState};

/// Answers of the queue without a job after which it counts as gone: one may be a hiccup.
const MISSING: u32 = 2;

/// What is known of a job.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    state: TaskState,
    missing: u32,
    /// Whether its pilot is there now, and whether it ever was.
    pub is_there: bool,
    pub was_there: bool,
    pub node: Option<String>,
    pub reason: Option<String>,
}

impl Default for Task {
    fn default() -> Self {
        Self { state: TaskState::Waiting, missing: 0, is_there: false, was_there: false, node: None, reason: None }
    }
}

impl Task {
    /// Whether it may still do something.
    pub fn is_living(&self) -> bool {
        self.is_there || (self.state.is_living() && self.missing < MISSING)
    }

    /// Whether it is in the queue.
    pub fn is_waiting(&self) -> bool {
        self.state == TaskState::Waiting && !self.is_there && self.missing < MISSING
    }

    /// The queue lists it. Returns how it ended, if it ended now.
    pub fn list(&mut self, listed: &ListedTask) -> Option<End> {
        let lived = self.state.is_living();
        self.state = listed.state;
        self.missing = 0;
        self.reason.clone_from(&listed.reason);
        if listed.node.is_some() {
            self.node.clone_from(&listed.node);
        }
        match listed.state {
            TaskState::Ended(end) if lived => Some(end),
            _ => None,
        }
    }

    /// The queue does not list it.
    pub fn miss(&mut self) {
        self.missing = self.missing.saturating_add(1);
    }

    /// It was cancelled before it began.
    pub fn cancel(&mut self) {
        self.state = TaskState::Ended(End::Cancelled);
    }

    /// Whether somebody ended it before it began.
    pub fn was_cancelled(&self) -> bool {
        self.state == TaskState::Ended(End::Cancelled) && self.node.is_none()
    }
}

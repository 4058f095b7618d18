//! A place for a worker: the process that is there now, and the stage it has.

use std::{
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use ressa_experiment::protocol::{Failure, FailureKind};

use crate::{
    schedule::Resident,
    worker::{Worker, ending, kernel_oom_kills, speaks_of_memory},
};

/// A place for a worker.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Device argument of workers here.
    pub device: String,
    /// Log of the workers here.
    pub log: PathBuf,
    /// Counts processes, so that words of a dead one are not taken for its successor's.
    pub generation: u32,
    /// The process.
    pub worker: Option<Worker>,
    /// Whether it has said that it is ready.
    pub ready: bool,
    /// Why it is not used any more, if so.
    pub retired: Option<String>,
    /// Processes in a row that ended before they were ready.
    pub false_starts: u32,
    /// The stage it has.
    pub running: Option<Running>,
    /// What it holds in memory.
    pub resident: Resident,
}

/// A stage in execution.
#[derive(Debug)]
pub(crate) struct Running {
    /// Position of the stage in the graph.
    pub stage: usize,
    /// Since when.
    pub since: Instant,
    /// Share done.
    pub fraction: f64,
    /// Where the worker's log stood when it began.
    pub log_offset: u64,
    /// Kernel counter when it began.
    pub oom_kills: u64,
    /// The limit for which it was killed, if it was.
    pub timed_out: Option<Duration>,
}

impl Slot {
    /// An empty place.
    pub fn new(device: String, log: PathBuf) -> Self {
        Self {
            device,
            log,
            generation: 0,
            worker: None,
            ready: false,
            retired: None,
            false_starts: 0,
            running: None,
            resident: Resident::default(),
        }
    }

    /// Whether it has no stage.
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }
}

/// What the death of a worker means for the stage it had.
pub(crate) fn death(running: &Running, status: Option<ExitStatus>, log: &str) -> Failure {
    let how = status.map_or_else(|| "unknown end".to_owned(), ending);
    let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing in its log");
    if let Some(limit) = running.timed_out {
        let message = format!("took longer than the {} s that --timeout allows", limit.as_secs_f64());
        return Failure { kind: FailureKind::Timeout, message, log: None };
    }
    let killed_for_memory = how.contains("SIGKILL") && kernel_oom_kills() > running.oom_kills;
    if killed_for_memory || speaks_of_memory(log) {
        let message = format!("the worker ran out of memory ({how}); use fewer --slots, then `ressa retry --oom`");
        return Failure { kind: FailureKind::Oom, message, log: None };
    }
    let message = format!("the worker died ({how}): {last}");
    Failure { kind: FailureKind::Killed, message, log: None }
}

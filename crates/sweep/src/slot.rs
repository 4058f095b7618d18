//! A place for a worker: the process that is there now, here or at a pilot, and the stage it has.

use std::{
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use ressa_experiment::{
    StageKey,
    protocol::{Failure, FailureKind},
};

use crate::{
    curve::LossCurve,
    schedule::Resident,
    worker::{Worker, ending, kernel_oom_kills, speaks_of_memory},
};

/// Where the worker of a place is.
#[derive(Debug)]
pub(crate) enum Link {
    /// On this machine, a child of this process.
    Local {
        /// The process.
        worker: Option<Worker>,
        /// Counts processes, so that words of a dead one are not taken for its successor's.
        generation: u32,
    },
    /// At a pilot.
    Remote {
        /// Its name.
        pilot: String,
        /// Number of the place there.
        place: usize,
    },
}

/// A place for a worker.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Name of the worker in the log.
    pub name: String,
    /// The machine.
    pub host: String,
    /// Device argument of workers here; what the worker says, once it is ready.
    pub device: String,
    /// Log of the workers here, relative to the results folder.
    pub log: String,
    /// Where it is.
    pub link: Link,
    /// Whether its worker has said that it is ready.
    pub ready: bool,
    /// Why it is not used any more, if so.
    pub retired: Option<String>,
    /// Processes in a row that ended before they were ready.
    pub false_starts: u32,
    /// The stage it has.
    pub running: Option<Running>,
    /// An attempt that was given to somebody else while the worker was thought gone: it is still at it.
    pub late: Option<(StageKey, u32)>,
    /// What it holds in memory.
    pub resident: Resident,
}

/// A stage in execution.
#[derive(Debug)]
pub(crate) struct Running {
    /// Position of the stage in the graph.
    pub stage: usize,
    /// Its attempt.
    pub attempt: u32,
    /// Since when.
    pub since: Instant,
    /// Share done.
    pub fraction: f64,
    /// What is going on.
    pub message: String,
    /// Losses so far, where it trains.
    pub losses: LossCurve,
    /// Share done when that was last written into the log.
    pub logged: f64,
    /// Signs of life of its pilot that did not know of it, in a row.
    pub missed: u32,
    /// Where the worker's log stood when it began.
    pub log_offset: u64,
    /// Kernel counter when it began.
    pub oom_kills: u64,
    /// The limit for which it was ended, if it was.
    pub timed_out: Option<Duration>,
}

impl Running {
    /// A stage that begins now.
    pub fn new(stage: usize, attempt: u32, log_offset: u64, oom_kills: u64) -> Self {
        Self {
            stage,
            attempt,
            since: Instant::now(),
            fraction: 0.0,
            message: String::new(),
            losses: LossCurve::default(),
            logged: 0.0,
            missed: 0,
            log_offset,
            oom_kills,
            timed_out: None,
        }
    }
}

impl Slot {
    /// An empty place.
    pub fn new(name: String, host: String, device: String, log: String, link: Link) -> Self {
        Self {
            name,
            host,
            device,
            log,
            link,
            ready: false,
            retired: None,
            false_starts: 0,
            running: None,
            late: None,
            resident: Resident::default(),
        }
    }

    /// Whether it can be given a stage.
    pub fn is_free(&self) -> bool {
        self.running.is_none() && self.late.is_none() && self.retired.is_none()
    }

    /// The worker, if it is a child of this process and there.
    pub fn worker(&mut self) -> Option<&mut Worker> {
        match &mut self.link {
            Link::Local { worker, .. } => worker.as_mut(),
            Link::Remote { .. } => None,
        }
    }

    /// Where its log is.
    pub fn log_path(&self, results: &std::path::Path) -> PathBuf {
        results.join(&self.log)
    }
}

/// What the death of a worker means for the stage it had. `oom_kills` is the kernel's counter when the stage began.
pub(crate) fn death(status: Option<ExitStatus>, timed_out: Option<Duration>, oom_kills: u64, log: &str) -> Failure {
    let how = status.map_or_else(|| "unknown end".to_owned(), ending);
    let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing in its log");
    if let Some(limit) = timed_out {
        return timeout(limit);
    }
    let killed_for_memory = how.contains("SIGKILL") && kernel_oom_kills() > oom_kills;
    if killed_for_memory || speaks_of_memory(log) {
        let message = format!("the worker ran out of memory ({how}); use fewer --slots, then `ressa retry --oom`");
        return Failure { kind: FailureKind::Oom, message, log: None };
    }
    let message = format!("the worker died ({how}): {last}");
    Failure { kind: FailureKind::Killed, message, log: None }
}

/// A stage that took too long.
pub(crate) fn timeout(limit: Duration) -> Failure {
    let message = format!("took longer than the {} s that --timeout allows", limit.as_secs_f64());
    Failure { kind: FailureKind::Timeout, message, log: None }
}

//! What a sweep tells its caller while it runs, and at the end.

use std::path::PathBuf;

use ressa_experiment::{StageKey, protocol::Failure};
use serde::Serialize;

use crate::{GateCheck, inventory::Damage};

/// Counts over the distinct stages of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Distinct stages.
    pub stages: usize,
    /// Found in the store.
    pub cached: usize,
    /// Made by this sweep so far.
    pub made: usize,
    /// Failed, now or remembered.
    pub failed: usize,
    /// Not attempted because an input failed.
    pub skipped: usize,
    /// Expected seconds until the end.
    pub eta_seconds: f64,
}

impl Totals {
    /// Stages that this sweep had or has to make, and those of them that are settled: `(settled, to do)`.
    pub fn progress(&self) -> (usize, usize) {
        (self.made + self.failed + self.skipped, self.stages - self.cached)
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum SweepEvent {
    /// The inventory is taken; work begins.
    Started {
        /// Counts.
        totals: Totals,
        /// Maximum number of workers.
        slots: usize,
        /// Distinct runs.
        runs: usize,
    },
    /// A store entry is not what was published; it is made again.
    Damaged(Damage),
    /// A failure of an earlier sweep that is not tried again without `ressa retry`.
    Remembered(FailedStage),
    /// A worker is ready.
    WorkerReady {
        /// Its place.
        slot: usize,
        /// Its device.
        device: String,
    },
    /// A worker ended without being asked to.
    WorkerDied {
        /// Its place.
        slot: usize,
        /// How it ended.
        message: String,
    },
    /// A place for a worker is not used any more, because no worker becomes ready there.
    SlotRetired(RetiredSlot),
    /// A worker took a stage.
    StageStarted {
        /// Its place.
        slot: usize,
        /// The stage.
        key: StageKey,
        /// The stage in words.
        what: String,
        /// First run that needs it.
        label: String,
        /// Expected seconds.
        seconds: f64,
    },
    /// How far a stage is.
    Progress {
        /// Place of the worker.
        slot: usize,
        /// Share done, 0 to 1.
        fraction: f64,
        /// What is going on.
        message: String,
    },
    /// A stage is published.
    StageFinished {
        /// Place of the worker.
        slot: usize,
        /// The stage.
        key: StageKey,
        /// The stage in words.
        what: String,
        /// First run that needs it.
        label: String,
        /// Wall seconds.
        seconds: f64,
        /// Counts.
        totals: Totals,
    },
    /// A stage failed; what depends on it is skipped.
    StageFailed {
        /// Place of the worker.
        slot: usize,
        /// What failed.
        failed: FailedStage,
        /// Counts.
        totals: Totals,
    },
    /// The dense models were measured against their gates.
    Gate(Vec<GateCheck>),
    /// Something that people should know, in words.
    Told(String),
    /// No new stage is started; this many are still running.
    Stopping {
        /// Why.
        why: String,
        /// Stages still running.
        running: usize,
    },
}

/// A stage that failed.
#[derive(Clone, Debug, Serialize)]
pub struct FailedStage {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// First run that needs it.
    pub label: String,
    /// How.
    pub failure: Failure,
}

/// A place for a worker that a sweep gave up.
#[derive(Clone, Debug, Serialize)]
pub struct RetiredSlot {
    /// Its number.
    pub slot: usize,
    /// Its device.
    pub device: String,
    /// Why no worker could work there.
    pub reason: String,
}

/// A stage that was not attempted.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedStage {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// The failed stage behind it.
    pub cause: StageKey,
}

/// An interrupted sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interruption {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, or SIGHUP: the terminal is gone.
    Terminate,
}

/// How a sweep ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Counts.
    pub totals: Totals,
    /// Distinct runs.
    pub runs: usize,
    /// Runs whose every stage is published.
    pub complete: usize,
    /// What failed, now or remembered.
    pub failed: Vec<FailedStage>,
    /// What was not attempted because of a failure.
    pub skipped: Vec<SkippedStage>,
    /// Places for workers that were given up; the others did their work.
    pub retired: Vec<RetiredSlot>,
    /// Store entries that were found damaged.
    pub damaged: Vec<Damage>,
    /// Gate checks, where a gate was declared.
    pub gate: Vec<GateCheck>,
    /// Whether the gate stopped the sweep.
    pub gate_failed: bool,
    /// The storage error that stopped the sweep.
    pub storage: Option<String>,
    /// Who interrupted it.
    pub interrupted: Option<Interruption>,
    /// Stages that go on at workers of other machines; the next sweep takes them over.
    pub detached: usize,
    /// Wall seconds.
    pub seconds: f64,
    /// Folder of the workers' logs.
    pub logs: PathBuf,
}

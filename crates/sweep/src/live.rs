//! The live view: a small file that says what a sweep is doing, written anew about once a second, and a page that shows it.
//!
//! Who looks needs neither lock nor log. The page is one file without a server: it loads `status.js` beside it again and again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::StageKey;
use ressa_store::replace;
use serde::{Deserialize, Serialize};

use crate::ClassStanding;

/// Folder of the view within a results folder.
pub fn live_folder(results: &Path) -> PathBuf {
    results.join("live")
}

/// What a sweep is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// The sweep in words.
    pub title: String,
    /// When this was written, in milliseconds since 1970.
    pub at: u64,
    /// Whether the sweep has ended.
    pub ended: bool,
    /// Machine of the coordinator.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Distinct runs.
    pub runs: usize,
    /// Runs that are complete.
    pub complete: usize,
    /// Distinct stages.
    pub stages: usize,
    /// Found in the store.
    pub cached: usize,
    /// Made by this sweep.
    pub made: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped because an input failed.
    pub skipped: usize,
    /// Seconds since the sweep began.
    pub elapsed_seconds: f64,
    /// Expected seconds to the end.
    pub eta_seconds: f64,
    /// How things stand with workers that a cluster was asked for, by class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<ClassStanding>,
    /// Workers, busy ones first; a limited number.
    pub workers: Vec<WorkerStatus>,
    /// How many more there are.
    #[serde(default)]
    pub other_workers: usize,
    /// Failures of this sweep and remembered ones, the latest last.
    pub failures: Vec<FailureStatus>,
    /// What people were told, the latest last.
    pub told: Vec<String>,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// Its machine.
    pub host: String,
    /// Its device.
    pub device: String,
    /// `busy`, `idle`, `starting`, or why it is not used.
    pub state: String,
    /// What it does.
    pub stage: Option<StageStatus>,
}

/// A stage that a worker has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageStatus {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// First run that needs it.
    pub label: String,
    /// Its attempt.
    pub attempt: u32,
    /// Share done.
    pub fraction: f64,
    /// What is going on.
    pub message: String,
    /// Losses of a training so far: share done and loss, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<(f64, f64)>,
    /// Seconds since it began.
    pub seconds: f64,
    /// Stages that wait for it, directly.
    pub awaited_by: usize,
}

/// A stage that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailureStatus {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// First run that needs it.
    pub label: String,
    /// Kind of failure.
    pub kind: String,
    /// What happened.
    pub message: String,
}

/// Writes the view.
#[derive(Debug)]
pub(crate) struct Live {
    folder: PathBuf,
    /// Whether the folder and its page are there.
    ready: bool,
}

impl Live {
    /// A view below a results folder, made when it is first shown.
    pub fn new(results: &Path) -> Self {
        Self { folder: live_folder(results), ready: false }
    }

    /// Shows a state. A view that cannot be written is not worth ending a sweep for.
    pub fn show(&mut self, status: &Status) {
        if !self.ready {
            let page = include_bytes!("live.html");
            self.ready =
                fs::create_dir_all(&self.folder).is_ok() && replace(&self.folder.join("index.html"), page).is_ok();
        }
        let text = serde_json::to_string(status).expect("a status is plain data");
        // A text in a script must not end it.
        let script = format!("ressaStatus({});\n", text.replace('<', "\\u003c"));
        let _ = replace(&self.folder.join("status.json"), text.as_bytes());
        let _ = replace(&self.folder.join("status.js"), script.as_bytes());
    }
}

/// What a sweep in a results folder is doing, or did last; `None` where none ran with a view.
pub fn live_status(results: &Path) -> Option<Status> {
    serde_json::from_slice(&fs::read(live_folder(results).join("status.json")).ok()?).ok()
}

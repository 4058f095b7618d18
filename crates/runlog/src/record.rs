//! What is known of a stage.

use std::{collections::BTreeMap, sync::Arc};

use ressa_experiment::{StageKey, protocol::Failure};
use ressa_store::{Environment, Manifest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

/// A published output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Published {
    /// Kind of stage.
    pub kind: Arc<str>,
    /// What executions of a kind are told apart by: task, tower, method.
    #[serde(default)]
    pub detail: Arc<str>,
    /// The dense model behind it: name of its preset, or its checkpoint folder.
    #[serde(default)]
    pub model: Arc<str>,
    /// Wall seconds; of a stage that resumed, with those of its interrupted attempts.
    pub seconds: f64,
    /// CPU seconds.
    pub cpu_seconds: f64,
    /// What it ran on.
    pub environment: Arc<Environment>,
    /// What it found: scores, certificate. The text of the manifest's field.
    pub result: Arc<RawValue>,
    /// Its files beside the manifest.
    pub files: Arc<[String]>,
    /// What the file system said of them when they were proven.
    pub proof: Proof,
}

impl PartialEq for Published {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.detail, &self.model, &self.environment, self.result.get(), &self.files, self.proof)
            == (
                &other.kind,
                &other.detail,
                &other.model,
                &other.environment,
                other.result.get(),
                &other.files,
                other.proof,
            )
            && (self.seconds, self.cpu_seconds) == (other.seconds, other.cpu_seconds)
    }
}

/// A digest of what the file system says of the files of an output: names, inodes, sizes, times. Where it is the same, nobody has touched them
/// since they were proven. On another disk it differs, and the files are read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(pub u64);

impl Published {
    /// The record of an output, of the model `model`.
    pub fn of(manifest: &Manifest, model: &str, proof: Proof) -> Self {
        let text = |field: &str| manifest.configuration.get(field).and_then(Value::as_str);
        let detail = ["task", "tower", "preset", "method"].iter().find_map(|field| text(field)).unwrap_or_default();
        // Evaluations with longer prompts or votes take their own time.
        let detail = if manifest.configuration.get("aids").is_some() { "aided" } else { detail };
        let result = serde_json::value::to_raw_value(&manifest.result).expect("a result is plain data");
        Self {
            kind: manifest.kind.as_str().into(),
            detail: detail.into(),
            model: model.into(),
            seconds: manifest.seconds,
            cpu_seconds: manifest.cpu_seconds,
            environment: Arc::new(manifest.environment.clone()),
            result: result.into(),
            files: manifest.files.keys().cloned().collect(),
            proof,
        }
    }

    /// Whether the files in a folder are those that were proven, and nobody touched them since. Reads none of them.
    pub fn is_untouched(&self, folder: &std::path::Path) -> bool {
        Proof::of(folder, self.files.iter().map(String::as_str)).is_ok_and(|now| now == self.proof)
    }

    /// The result as its type; `None` where it is of another one.
    pub fn result<'r, T: Deserialize<'r>>(&'r self) -> Option<T> {
        serde_json::from_str(self.result.get()).ok()
    }
}

/// The record of a failed stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// First run that needs it.
    pub label: String,
    /// How it failed.
    pub failure: Failure,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Under what it failed; what earlier versions did not record is at its default.
    #[serde(default)]
    pub circumstances: Circumstances,
}

/// Failures, the oldest first.
pub(crate) fn by_time<'r>(failures: impl Iterator<Item = &'r FailureRecord>) -> Vec<&'r FailureRecord> {
    let mut failures: Vec<&FailureRecord> = failures.collect();
    failures.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
    failures
}

/// Machine settings that can make a stage fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Circumstances {
    /// Maximum seconds of a stage; none without a limit.
    pub timeout: Option<f64>,
    /// Workers that share the machine's memory.
    pub slots: usize,
    /// What the workers hold, as `machine_name` of `ressa-sweep` says it.
    pub machine: String,
    /// The worker program: size and time of its file. Rebuilt, it is another.
    pub program: String,
}

/// State of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Nothing is there.
    Open,
    /// Its output is in the store.
    Published(Published),
    /// Its last attempt failed.
    Failed(Box<FailureRecord>),
}

/// An attempt that has begun and not ended, as far as the log says.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The worker.
    pub worker: String,
    /// Whether the worker outlives its coordinator.
    pub remote: bool,
    /// What it logs.
    pub log: Option<crate::LogPart>,
}

/// What is known of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its state.
    pub state: State,
    /// Attempts begun so far.
    pub attempts: u32,
    /// Attempts that have begun and not ended, by number.
    pub open: BTreeMap<u32, Attempt>,
    /// What the last attempt that ended logged.
    pub log: Option<crate::LogPart>,
}

impl Default for Record {
    fn default() -> Self {
        Self { state: State::Open, attempts: 0, open: BTreeMap::new(), log: None }
    }
}

//! Failed stages, one record each: `failures/<key>.json` in the store's writable root.
//!
//! A record is not a cache entry. A sweep that meets one does not try the stage again (it would most likely fail the same way) unless the
//! cause may be gone, see [`FailureRecord::is_retried`]. `ressa retry` removes records; so does a success.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ressa_experiment::{
    StageKey,
    protocol::{Failure, FailureKind},
};
use ressa_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::FailedStage;

/// Ending of a record that is being written.
const DRAFT: &str = "draft";

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

/// Machine settings that can make a stage fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Circumstances {
    /// Maximum seconds of a stage; none without a limit.
    pub timeout: Option<f64>,
    /// Workers that share the machine's memory.
    pub slots: usize,
    /// What the workers hold, as `machine_name` says it.
    pub machine: String,
    /// The worker program: size and time of its file. Rebuilt, it is another.
    pub program: String,
}

/// The identity of a program's file; empty where there is none.
pub(crate) fn identity(program: &Path) -> String {
    let Ok(metadata) = fs::metadata(program) else { return String::new() };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{} bytes of {}.{:09}", metadata.len(), modified.as_secs(), modified.subsec_nanos())
}

impl FailureRecord {
    /// Whether a sweep under `now` tries the stage again by itself, because what made it fail may be gone:
    ///
    /// - killed workers, full disks, files that could not be used: always, nobody can tell from here;
    /// - a limit of time: when it is longer, or there is none;
    /// - memory: with fewer workers, on another device, with another program;
    /// - numbers that diverged and defects: with another program.
    pub fn is_retried(&self, now: &Circumstances) -> bool {
        let before = &self.circumstances;
        let is_rebuilt = before.program != now.program;
        match self.failure.kind {
            FailureKind::Killed | FailureKind::Storage | FailureKind::Data => true,
            FailureKind::Timeout => before.timeout.zip(now.timeout).is_none_or(|(before, now)| now > before),
            FailureKind::Oom => is_rebuilt || now.slots < before.slots || now.machine != before.machine,
            FailureKind::Nan | FailureKind::Bug => is_rebuilt,
        }
    }
}

/// The record of a stage, where it failed. A record that cannot be read counts as none: the stage is tried again.
pub fn read_failure(store: &Store, key: &StageKey) -> Option<FailureRecord> {
    read(&path(store, key))
}

/// The record of every stage that failed and was not made since, oldest first.
pub fn read_failures(store: &Store) -> Vec<FailureRecord> {
    let mut records = read_all(store);
    records.retain(|record| !store.contains(&record.key.hex()));
    records
}

/// Every record, oldest first. Only `<key>.json` is one: what a cut-off rename leaves beside it is not.
pub(crate) fn read_all(store: &Store) -> Vec<FailureRecord> {
    let folder = store.root().join("failures");
    let one = |path: &Path| {
        let record = read(path)?;
        (path.file_name()?.to_str()? == format!("{}.json", record.key)).then_some(record)
    };
    let mut records: Vec<FailureRecord> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|item| one(&item.ok()?.path())).collect();
    records.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
    records
}

/// Forgets a failure, so that the stage is tried again.
pub fn clear_failure(store: &Store, key: &StageKey) -> Result<(), StoreError> {
    let path = path(store, key);
    let _ = fs::remove_file(path.with_extension(DRAFT));
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Write { path, source }),
        _ => Ok(()),
    }
}

/// Writes a record. A disk that is full must not hide the failure, so the caller goes on when this fails.
pub(crate) fn record(store: &Store, failed: &FailedStage, circumstances: &Circumstances) -> Result<(), StoreError> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut record = FailureRecord {
        key: failed.key,
        what: failed.what.clone(),
        label: failed.label.clone(),
        failure: failed.failure.clone(),
        at,
        circumstances: circumstances.clone(),
    };
    // JSON has no form for a path that is not UTF-8; the record matters more than where its log is.
    record.failure.log = record.failure.log.filter(|log| log.to_str().is_some());
    let path = path(store, &failed.key);
    let draft = path.with_extension(DRAFT);
    serde_json::to_vec_pretty(&record)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&draft, text))
        .and_then(|()| fs::rename(&draft, &path))
        .map_err(|source| StoreError::Write { path: path.clone(), source })
}

fn path(store: &Store, key: &StageKey) -> PathBuf {
    store.root().join("failures").join(format!("{key}.json"))
}

fn read(path: &Path) -> Option<FailureRecord> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

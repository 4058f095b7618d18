//! Failed stages, one record each: `failures/<key>.json` in the store's writable root.
//!
//! A record is not a cache entry. A sweep that meets one does not try the stage again (it would most likely fail the same way), except
//! for kinds whose cause lies outside the stage: `killed` and `storage`. `ressa retry` removes records; so does a success.

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
}

impl FailureRecord {
    /// Whether the next sweep tries the stage again by itself.
    pub fn is_retried(&self) -> bool {
        matches!(self.failure.kind, FailureKind::Killed | FailureKind::Storage)
    }
}

/// The record of a stage, where it failed. A record that cannot be read counts as none: the stage is tried again.
pub fn read_failure(store: &Store, key: &StageKey) -> Option<FailureRecord> {
    read(&path(store, key))
}

/// Every record, oldest first.
pub fn read_failures(store: &Store) -> Vec<FailureRecord> {
    let folder = store.root().join("failures");
    let mut records: Vec<FailureRecord> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|item| read(&item.ok()?.path())).collect();
    records.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
    records
}

/// Forgets a failure, so that the stage is tried again.
pub fn clear_failure(store: &Store, key: &StageKey) -> Result<(), StoreError> {
    let path = path(store, key);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Write { path, source }),
        _ => Ok(()),
    }
}

/// Writes a record. A disk that is full must not hide the failure, so the caller goes on when this fails.
pub(crate) fn record(
    store: &Store,
    key: &StageKey,
    what: &str,
    label: &str,
    failure: &Failure,
) -> Result<(), StoreError> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let mut record = FailureRecord {
        key: key.clone(),
        what: what.to_owned(),
        label: label.to_owned(),
        failure: failure.clone(),
        at,
    };
    // A path that is not UTF-8 has no place in JSON.
    record.failure.log = record.failure.log.filter(|log| log.to_str().is_some());
    let path = path(store, key);
    let text = serde_json::to_vec_pretty(&record).expect("a record is plain data");
    let draft = path.with_extension("draft");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .map_err(|source| StoreError::Write { path: path.clone(), source })
}

fn path(store: &Store, key: &StageKey) -> PathBuf {
    store.root().join("failures").join(format!("{key}.json"))
}

fn read(path: &Path) -> Option<FailureRecord> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

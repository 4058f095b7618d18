//! Stores of earlier versions, which kept a file per failure, a journal of publications and a lock file per stage.

use std::{fs, io, path::Path};

use ressa_store::{Store, StoreError, named};

use crate::{FailureRecord, Log, LogEvent};

/// Folder of failure records.
const FAILURES: &str = "failures";
/// Journal of publications. What it says, manifests say too.
const JOURNAL: &str = "journal.jsonl";
/// Lock files.
const CLAIMS: &str = "claims";
/// Where the files go when they are taken over, within the log's folder.
const OLDER: &str = "older";

/// Failures that an earlier version recorded, oldest first. Only `<key>.json` is a record: what a cut-off rename leaves beside it is not.
pub(crate) fn failures(store: &Store) -> Result<Vec<FailureRecord>, StoreError> {
    let one = |(name, path): (String, std::path::PathBuf)| {
        let record: FailureRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (name == format!("{}.json", record.key)).then_some(record)
    };
    let mut records: Vec<FailureRecord> = named(&store.root().join(FAILURES))?.into_iter().filter_map(one).collect();
    records.sort_by(|a, b| (a.at, &a.key).cmp(&(b.at, &b.key)));
    Ok(records)
}

/// Writes what an earlier version left into the log, and moves its files into `log/older`. Does nothing in a store of this version.
///
/// # Errors
/// A file that cannot be read, moved or written.
pub fn take_over(store: &Store, log: &mut Log) -> Result<(), StoreError> {
    for record in failures(store)? {
        if !store.contains(&record.key.hex()) {
            let key = record.key;
            log.write(LogEvent::Failed { key, attempt: 0, worker: "an earlier version".to_owned(), record })?;
        }
    }
    let target = crate::folder(store).join(OLDER);
    for old in [FAILURES, JOURNAL] {
        keep(&store.root().join(old), &target.join(old))?;
    }
    let claims = store.root().join(CLAIMS);
    match fs::remove_dir_all(&claims) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::Write { path: claims, source: e }),
        _ => Ok(()),
    }
}

fn keep(from: &Path, to: &Path) -> Result<(), StoreError> {
    if !from.exists() {
        return Ok(());
    }
    // An empty folder, as every store of an earlier version has it, is not worth keeping.
    if fs::remove_dir(from).is_ok() {
        return Ok(());
    }
    let to =
        (0..).map(|n| if n == 0 { to.to_owned() } else { to.with_extension(n.to_string()) }).find(|to| !to.exists());
    let to = to.expect("some number is free");
    to.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::rename(from, &to))
        .map_err(|source| StoreError::Write { path: from.to_owned(), source })
}

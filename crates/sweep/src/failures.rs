//! Failed stages. A sweep that meets one does not try the stage again (it would most likely fail the same way) unless the cause may be gone.

use std::{fs, path::Path, time::UNIX_EPOCH};

use ressa_experiment::protocol::FailureKind;
use ressa_runlog::{Circumstances, FailureRecord};
use ressa_store::Store;

/// The identity of a program's file; empty where there is none.
pub(crate) fn identity(program: &Path) -> String {
    let Ok(metadata) = fs::metadata(program) else { return String::new() };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{} bytes of {}.{:09}", metadata.len(), modified.as_secs(), modified.subsec_nanos())
}

/// Whether a sweep under `now` tries a failed stage again by itself, because what made it fail may be gone:
///
/// - killed workers, full disks, files that could not be used: always, nobody can tell from here;
/// - a limit of time: when it is longer, or there is none;
/// - memory: with fewer workers, on another device, with another program;
/// - numbers that diverged and defects: with another program.
pub fn is_retried(record: &FailureRecord, now: &Circumstances) -> bool {
    let before = &record.circumstances;
    let is_rebuilt = before.program != now.program;
    match record.failure.kind {
        FailureKind::Killed | FailureKind::Storage | FailureKind::Data => true,
        FailureKind::Timeout => before.timeout.zip(now.timeout).is_none_or(|(before, now)| now > before),
        FailureKind::Oom => is_rebuilt || now.slots < before.slots || now.machine != before.machine,
        FailureKind::Nan | FailureKind::Bug => is_rebuilt,
    }
}

/// Of the failures that the log knows, those whose stage is not in the store.
pub fn failures<'r>(mut records: Vec<&'r FailureRecord>, store: &Store) -> Vec<&'r FailureRecord> {
    records.retain(|record| !store.contains(&record.key.hex()));
    records
}

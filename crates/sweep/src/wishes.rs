//! What somebody asks of a running sweep: to try failed stages again.
//!
//! The coordinator alone writes the log, so a wish is a small file in the results folder that it takes away once a second. One that nobody
//! took (the sweep ended in between) is taken by the next sweep.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ressa_experiment::StageKey;
use ressa_runlog::nonce;

use crate::SweepError;

/// Bytes of a wish that are read: 100,000 keys and more.
const LIMIT: u64 = 8 << 20;

/// A wish that was written down.
#[derive(Debug)]
pub struct Wish {
    path: PathBuf,
}

impl Wish {
    /// Asks the sweep that runs in a results folder to try failed stages again.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn retry(results: &Path, keys: &[StageKey]) -> Result<Self, SweepError> {
        let folder = folder(results);
        let write = |source| SweepError::Write { path: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(write)?;
        let path = folder.join(format!("retry-{}", nonce()));
        let lines: String = keys.iter().map(|key| format!("{}\n", key.hex())).collect();
        ressa_store::replace(&path, lines.as_bytes())?;
        Ok(Self { path })
    }

    /// Whether a sweep has taken it.
    pub fn is_taken(&self) -> bool {
        matches!(fs::symlink_metadata(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Takes away what was asked for: keys of stages to try again. What is no wish stays where it is and is not looked at.
pub(crate) fn take(results: &Path) -> Vec<StageKey> {
    let Ok(entries) = fs::read_dir(folder(results)) else { return Vec::new() };
    let mut keys = Vec::new();
    for entry in entries.flatten() {
        let is_wish = entry.file_name().to_str().is_some_and(|name| name.starts_with("retry-") && !name.contains('.'));
        let is_small = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= LIMIT);
        if !is_wish || !is_small {
            continue;
        }
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        // Where it cannot be taken away it would be granted every second.
        if fs::remove_file(entry.path()).is_ok() {
            keys.extend(text.lines().filter_map(|line| line.parse::<StageKey>().ok()));
        }
    }
    keys
}

fn folder(results: &Path) -> PathBuf {
    results.join("wishes")
}

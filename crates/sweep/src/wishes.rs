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

/// Maximum number of keys in one file; more are split over several.
const MOST: usize = 50_000;

/// Bytes of a wish that are read.
const LIMIT: u64 = 8 << 20;

/// Wishes that were written down.
#[derive(Debug)]
pub struct Wish {
    paths: Vec<PathBuf>,
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
        let mut paths = Vec::new();
        for keys in keys.chunks(MOST) {
            let path = folder.join(format!("retry-{}", nonce()));
            let lines: String = keys.iter().map(|key| format!("{}\n", key.hex())).collect();
            ressa_store::replace(&path, lines.as_bytes())?;
            paths.push(path);
        }
        Ok(Self { paths })
    }

    /// Whether a sweep has taken all of them.
    pub fn is_taken(&self) -> bool {
        let is_gone = |path: &PathBuf| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
        self.paths.iter().all(is_gone)
    }
}

/// What is asked for: files, with the keys of stages to try again. What is no wish stays where it is and is not looked at. Whoever has granted one
/// and written that down takes its file away.
pub(crate) fn asked(results: &Path) -> Vec<(PathBuf, Vec<StageKey>)> {
    let Ok(entries) = fs::read_dir(folder(results)) else { return Vec::new() };
    let wish = |entry: fs::DirEntry| {
        let is_wish = entry.file_name().to_str().is_some_and(|name| name.starts_with("retry-") && !name.contains('.'));
        let is_small = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= LIMIT);
        if !is_wish || !is_small {
            return None;
        }
        let text = fs::read_to_string(entry.path()).ok()?;
        Some((entry.path(), text.lines().filter_map(|line| line.parse::<StageKey>().ok()).collect()))
    };
    entries.flatten().filter_map(wish).collect()
}

fn folder(results: &Path) -> PathBuf {
    results.join("wishes")
}

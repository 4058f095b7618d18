//! One coordinator per results folder. Workers need no such lock: they claim stages one by one.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::SweepError;

/// How long a lock that is held is tried again.
const PATIENCE: Duration = Duration::from_millis(300);

/// Held while a sweep runs; given up when the process ends, however it ends.
#[derive(Debug)]
pub struct CoordinatorLock {
    _file: File,
}

impl CoordinatorLock {
    /// Takes the lock of a results folder (made when missing).
    pub fn acquire(results: &Path) -> Result<Self, SweepError> {
        fs::create_dir_all(results).map_err(|source| SweepError::Write { path: results.to_owned(), source })?;
        let path = lock_path(results);
        let write = |source| SweepError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(write)?;
        match try_lock_for(PATIENCE, &file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(SweepError::Busy { folder: results.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(write(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(write)?;
        Ok(Self { _file: file })
    }
}

/// A lock may be held for a moment by no sweep: by someone who looks whether there is one, or by a process that is about to become a worker.
fn try_lock_for(patience: Duration, file: &File) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10))
            }
            found => return found,
        }
    }
}

/// Process of the sweep that works on a results folder now.
pub fn running_coordinator(results: &Path) -> Option<String> {
    let path = lock_path(results);
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(fs::read_to_string(&path).ok()?.trim().to_owned()),
        _ => None,
    }
}

fn lock_path(results: &Path) -> PathBuf {
    results.join("sweep.lock")
}

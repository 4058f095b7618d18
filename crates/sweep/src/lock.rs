//! One coordinator per results folder.
//!
//! On one machine a file lock says so. Another machine may not see the lock: a coordinator also shows that it lives (a counter in the meeting
//! folder), and whoever finds such a counter of another machine watches it for a while before it takes over; on a file system that has no
//! locks, also one of this machine. Should two ever run at once all the same, the log tells them apart: the older one sees the newer one's
//! segment and stops.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ressa_runlog::host;

use crate::{SweepError, meet::Meet};

/// How long a lock that is held is tried again.
const PATIENCE: Duration = Duration::from_millis(300);

/// Held while a sweep runs; given up when the process ends, however it ends.
#[derive(Debug)]
pub struct CoordinatorLock {
    _file: File,
}

impl CoordinatorLock {
    /// Takes the lock of a results folder (made when missing). `lease` is the time without a sign of life after which a coordinator of another
    /// machine counts as gone.
    pub fn acquire(results: &Path, lease: Duration) -> Result<Self, SweepError> {
        fs::create_dir_all(results).map_err(|source| SweepError::Write { path: results.to_owned(), source })?;
        let path = lock_path(results);
        let write = |source| SweepError::Write { path: path.clone(), source };
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(write)?;
        let locks = match try_lock_for(PATIENCE, &file) {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
                return Err(SweepError::Busy { folder: results.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) if has_no_locks(&source) => false,
            Err(TryLockError::Error(source)) => return Err(write(source)),
        };
        let is_seen = |host_of: &str| locks && host_of == host();
        elsewhere(results, lease, is_seen)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(write)?;
        Ok(Self { _file: file })
    }
}

/// Whether a file system refuses locks altogether, as some that clusters share do.
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || [libc::ENOLCK, libc::ENOSYS].map(Some).contains(&error.raw_os_error())
}

/// Waits until it is sure that no coordinator lives whose lock would not be seen.
fn elsewhere(results: &Path, lease: Duration, is_seen: impl Fn(&str) -> bool) -> Result<(), SweepError> {
    let Ok(Some(meet)) = Meet::join(results) else { return Ok(()) };
    let Some((count, beat)) = meet.coordinator().filter(|(_, beat)| !is_seen(&beat.host)) else { return Ok(()) };
    let start = Instant::now();
    while start.elapsed() < lease / 3 {
        std::thread::sleep(Duration::from_millis(100));
        if meet.coordinator().is_some_and(|(now, beat)| now != count && !is_seen(&beat.host)) {
            let pid = format!("{} on {}", beat.pid, beat.host);
            return Err(SweepError::Busy { folder: results.to_owned(), pid });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meet::CoordinatorBeat;

    /// A counter that moves is a coordinator that lives, whoever's machine it is, unless its lock would be seen.
    #[test]
    fn without_locks_signs_of_life_tell() {
        let folder = tempfile::tempdir().unwrap();
        let meet = Meet::host(folder.path()).unwrap();
        let beat = |count| meet.beat(count, &CoordinatorBeat { segment: 1, host: host(), pid: 7 }).unwrap();
        beat(1);
        let lease = Duration::from_secs(3);
        assert!(elsewhere(folder.path(), lease, |_| true).is_ok(), "no lock, so no coordinator");
        assert!(elsewhere(folder.path(), Duration::from_millis(300), |_| false).is_ok(), "it stands still");
        let (done, over) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (beat, over) = (&beat, over);
            scope.spawn(move || {
                let mut count = 2;
                while over
                    .recv_timeout(Duration::from_millis(20))
                    .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    beat(count);
                    count += 1;
                }
            });
            let found = elsewhere(folder.path(), Duration::from_secs(60), |_| false);
            drop(done);
            assert!(matches!(found, Err(SweepError::Busy { .. })), "{found:?}");
        });
    }

    #[test]
    fn a_file_system_without_locks_is_told_from_a_broken_one() {
        let error = io::Error::from_raw_os_error;
        assert!([libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP].into_iter().all(|code| has_no_locks(&error(code))));
        assert!(![libc::EIO, libc::EACCES, libc::ENOSPC].into_iter().any(|code| has_no_locks(&error(code))));
    }
}

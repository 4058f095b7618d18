//! Why a sweep cannot run at all. A stage that fails is not an error but a record.

use std::path::PathBuf;

use ressa_store::StoreError;

use crate::RetiredSlot;

/// A sweep error.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another sweep works on the same results folder.
    #[error("another sweep (process {pid}) is working on `{}`; wait for it, stop it, or choose another folder with --results", folder.display())]
    Busy {
        /// Results folder.
        folder: PathBuf,
        /// Its process.
        pid: String,
    },
    /// A file of the results folder cannot be written.
    #[error("cannot write `{}`: {source}; make the folder writable, free some space, or choose another with --results", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The worker program cannot be started.
    #[error("cannot start the worker `{}`: {source}; build it with `make build`, or name it with --worker", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Workers end before they are ready.
    #[error("the worker `{}` on {device} ends before it is ready ({how}): {message}; `ressa doctor` looks for the cause", program.display())]
    NotReady {
        /// The program.
        program: PathBuf,
        /// The device that it was to use.
        device: String,
        /// How it ended.
        how: String,
        /// Last lines of its log.
        message: String,
    },
    /// No worker can work at any place, each for a reason of its own.
    #[error("no worker is left: {}", retired.iter().map(|slot| format!("worker {}: {}", slot.slot, slot.reason)).collect::<Vec<_>>().join("; "))]
    NoWorkers {
        /// All places.
        retired: Vec<RetiredSlot>,
    },
    /// A worker died while it recounted the weights behind a certificate.
    #[error("the worker died while it recounted `{what}` ({how}): {message}; its log is `{}`", log.display())]
    Recount {
        /// The stage in words.
        what: String,
        /// How it ended.
        how: String,
        /// Last lines of its log.
        message: String,
        /// Its log.
        log: PathBuf,
    },
}

impl SweepError {
    /// Whether the disk or its permissions are the cause.
    pub fn is_storage(&self) -> bool {
        match self {
            SweepError::Store(error) => error.is_storage(),
            SweepError::Write { .. } => true,
            SweepError::Busy { .. }
            | SweepError::Spawn { .. }
            | SweepError::NotReady { .. }
            | SweepError::NoWorkers { .. }
            | SweepError::Recount { .. } => false,
        }
    }
}

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
    /// Another coordinator took over while this one could not be seen.
    #[error("another sweep has taken over `{}`, where this one could not be seen any more; nothing is lost, and its workers go on there", folder.display())]
    Replaced {
        /// Results folder.
        folder: PathBuf,
    },
    /// The token of a sweep cannot be read.
    #[error("the token of the sweep in `{}` cannot be read: {source}; only the user who started the sweep may join it", folder.display())]
    Token {
        /// Results folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The programs of a sweep and of who joins it differ.
    #[error("the sweep runs {sweep}, this is {own}; use the same build on every machine")]
    OtherProgram {
        /// That of the sweep.
        sweep: String,
        /// Of this process.
        own: String,
    },
    /// A pilot's name is none that a file may have.
    #[error("a worker cannot be named `{name}`: at most 100 letters, digits, `.`, `_` and `-`, without a `.` in front")]
    Name {
        /// The name.
        name: String,
    },
    /// Every worker that a pilot starts ends before it is ready.
    #[error("no worker becomes ready on this machine; their logs are in `{}`, and `ressa doctor` looks for the cause", logs.display())]
    NoWorkerHere {
        /// Folder of the logs.
        logs: PathBuf,
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
    /// Workers of other machines were asked for, and none will come.
    #[error("no worker is left and none comes: {why}")]
    NobodyComes {
        /// Why.
        why: String,
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
            | SweepError::Replaced { .. }
            | SweepError::Token { .. }
            | SweepError::OtherProgram { .. }
            | SweepError::Name { .. }
            | SweepError::NoWorkerHere { .. }
            | SweepError::Spawn { .. }
            | SweepError::NotReady { .. }
            | SweepError::NoWorkers { .. }
            | SweepError::NobodyComes { .. }
            | SweepError::Recount { .. } => false,
        }
    }
}

//! What can go wrong with a store, with the path and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A store error.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is published under a key that is needed.
    #[error("stage `{}` is not in the store; run `ressa sweep` to make it", &key[..12.min(key.len())])]
    Absent {
        /// The key.
        key: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write `{}`: {}", path.display(), advice(source))]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What is on disk is not what was published.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl StoreError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        StoreError::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        StoreError::Write { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        StoreError::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// Whether the disk or its permissions are the cause.
    pub fn is_storage(&self) -> bool {
        matches!(self, StoreError::Write { .. })
    }

    /// Whether making the stage again would help.
    pub fn is_damage(&self) -> bool {
        matches!(self, StoreError::Damaged { .. })
    }
}

fn advice(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{source}; free some space and run again, finished stages are kept")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{source}; make the folder writable or choose another with --results")
        }
        _ => source.to_string(),
    }
}

//! What can be wrong with a checkpoint folder.

use std::path::PathBuf;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file cannot be read, mapped or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, `map`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("`{}` cannot be used: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and, where it helps, what to do.
        reason: String,
    },
}

impl CheckpointError {
    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        matches!(self, CheckpointError::Io { action: "write", .. })
    }

    /// For `map_err`: the system refused an action on a file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> CheckpointError {
        let path = path.into();
        move |source| CheckpointError::Io { action, path, source }
    }

    /// A file that is not what it should be.
    pub fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> CheckpointError {
        CheckpointError::File { path: path.into(), reason: reason.to_string() }
    }
}

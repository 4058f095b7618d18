//! What can be wrong with what a stage reads.

use std::{io, path::PathBuf};

use ressa_checkpoint::CheckpointError;
use ressa_data::DataError;

/// An error about something outside the store.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a checkpoint folder.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Annotations that cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// It is not there any more.
    #[error("`{place}` is not there any more ({reason}); put it back, or say in the experiment where it is now")]
    Gone {
        /// The folder, as the experiment names it.
        place: String,
        /// What is missing of it.
        reason: String,
    },
    /// It is not what the stage was planned with.
    #[error(
        "`{place}` changed since this sweep was planned{}; run the sweep again, it plans with what is there now",
        reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
    )]
    Changed {
        /// The folder, as the experiment names it.
        place: String,
        /// What cannot be read of it, where that is what changed.
        reason: Option<String>,
    },
}

impl ContentError {
    /// Whether something is not there.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            ContentError::Data(DataError::Missing { .. }) => true,
            ContentError::Checkpoint(CheckpointError::File { path, .. }) => !path.exists(),
            other => other.cause().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound),
        }
    }

    /// Whether a file is there and could not be read.
    pub(crate) fn is_unanswered(&self) -> bool {
        // A folder or pipe under a file's name was answered: it is wrong. Errors of the disk have a number.
        let answers = [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory, io::ErrorKind::NotADirectory];
        self.cause().is_some_and(|cause| cause.raw_os_error().is_some() && !answers.contains(&cause.kind()))
    }

    fn cause(&self) -> Option<&io::Error> {
        match self {
            ContentError::Read { source, .. }
            | ContentError::Checkpoint(CheckpointError::Io { source, .. })
            | ContentError::Data(DataError::Read { source, .. }) => Some(source),
            _ => None,
        }
    }
}

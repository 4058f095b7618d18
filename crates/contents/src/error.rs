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

//! Part of a store as one file: a tar archive (compressed where its name ends in `.gz` or `.tgz`) that another results folder takes in.
//!
//! The first entry, `ressa-results.json`, lists every other file with its size and digest. All of them are plain files below `<shard>/<key>/`, as
//! in a store, or `scores/<key>.json`. What a manifest says about places on the machine that made it is reduced to names. Reading takes nothing on
//! trust: see [`import`].

mod list;
mod pack;
mod places;
mod unpack;
mod upstream;

use std::{io, path::PathBuf};

use ressa_store::StoreError;

pub use pack::{Packed, export};
pub use unpack::{Imported, import};

/// An archive that cannot be written or taken in.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file of an archive cannot be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive is not what a sound archive is; nothing of it was taken.
    #[error("`{}` is refused: {what}; nothing of it was taken", archive.display())]
    Refused {
        /// The archive.
        archive: PathBuf,
        /// What is wrong with it, with the name of the entry.
        what: String,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
    /// Whether the disk or its permissions are the cause.
    pub fn is_storage(&self) -> bool {
        match self {
            ArchiveError::Write { .. } => true,
            ArchiveError::Store(error) => error.is_storage(),
            ArchiveError::Refused { .. } => false,
        }
    }
}

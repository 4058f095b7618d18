//! Whether somebody touched an output since it was proven, without reading it.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use ressa_store::MANIFEST;

use crate::Proof;

impl Proof {
    /// What the file system says now of the files of an output and of its manifest.
    ///
    /// The device is left out: it differs between machines that share a disk.
    ///
    /// # Errors
    /// A file that is missing or cannot be looked at.
    pub fn of<'n>(folder: &Path, files: impl IntoIterator<Item = &'n str>) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        for name in files.into_iter().chain([MANIFEST]) {
            let data = fs::metadata(folder.join(name))?;
            if !data.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            hasher.update(name.as_bytes());
            for number in [data.ino(), data.size()] {
                hasher.update(&number.to_le_bytes());
            }
            for number in [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()] {
                hasher.update(&number.to_le_bytes());
            }
        }
        let first = hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default();
        Ok(Self(u64::from_le_bytes(first)))
    }
}

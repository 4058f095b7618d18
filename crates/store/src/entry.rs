//! A published folder, read back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use crate::{Digests, FileDigest, MANIFEST, Manifest, StoreError};

/// A published stage output.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: PathBuf,
    writable: bool,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Entry {
    pub(crate) fn read(folder: PathBuf, key: &str, writable: bool) -> Result<Self, StoreError> {
        let path = folder.join(MANIFEST);
        let text = fs::read(&path).map_err(|e| StoreError::read(&path, e))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| StoreError::damaged(&path, format!("not a manifest ({e})")))?;
        if manifest.key != key {
            return Err(StoreError::damaged(&path, format!("it describes stage `{}`", manifest.key)));
        }
        Ok(Self { folder, writable, manifest })
    }

    /// The same output at another place.
    pub(crate) fn moved(self, folder: PathBuf) -> Self {
        Self { folder, ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it lies in the writable root.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Path of a file the stage published.
    pub fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !self.manifest.files.contains_key(name) {
            let what = format!("its manifest lists no `{name}`");
            return Err(StoreError::damaged(&self.folder.join(MANIFEST), what));
        }
        Ok(self.folder.join(name))
    }

    /// The stage's result as its type.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(&self.manifest.result)
            .map_err(|e| StoreError::damaged(&self.folder.join(MANIFEST), format!("unexpected result ({e})")))
    }

    /// Proves that every file still has the size and digest that were published, by reading it.
    pub fn check(&self) -> Result<(), StoreError> {
        self.prove(digest)
    }

    /// The same, but a file whose digest is remembered since it was last touched is not read again. Finds every edit; decay of the disk only
    /// [`Entry::check`] finds.
    pub fn check_remembered(&self, digests: &Digests) -> Result<(), StoreError> {
        self.prove(|path| {
            let (bytes, digest) = digests.of_file(path).map_err(|e| unreadable(path, e))?;
            Ok(FileDigest { bytes, blake3: digest.to_hex().to_string() })
        })
    }

    fn prove(&self, digest: impl Fn(&Path) -> Result<FileDigest, StoreError>) -> Result<(), StoreError> {
        for (name, expected) in &self.manifest.files {
            let path = self.folder.join(name);
            let found = digest(&path)?;
            if found.bytes != expected.bytes {
                let what = format!("{} bytes where {} were published", found.bytes, expected.bytes);
                return Err(StoreError::damaged(&path, what));
            }
            if found.blake3 != expected.blake3 {
                return Err(StoreError::damaged(&path, "its content differs from what was published"));
            }
        }
        Ok(())
    }
}

/// A missing file is damage; any other error says nothing about what was published.
fn unreadable(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
            StoreError::damaged(path, "it is missing")
        }
        _ => StoreError::read(path, error),
    }
}

/// Size and digest of a file; a missing one is damage.
pub(crate) fn digest(path: &Path) -> Result<FileDigest, StoreError> {
    let mut file = fs::File::open(path).map_err(|e| unreadable(path, e))?;
    let mut hasher = blake3::Hasher::new();
    let bytes = io::copy(&mut file, &mut hasher).map_err(|e| unreadable(path, e))?;
    Ok(FileDigest { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

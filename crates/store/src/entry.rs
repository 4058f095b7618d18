//! A published folder, read back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use crate::{FileDigest, MANIFEST, Manifest, StoreError};

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

    /// Proves that every file still has the size and digest that were published.
    pub fn check(&self) -> Result<(), StoreError> {
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

/// Size and digest of a file; a missing one is damage.
pub(crate) fn digest(path: &Path) -> Result<FileDigest, StoreError> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(StoreError::damaged(path, "it is missing")),
        Err(e) => return Err(StoreError::read(path, e)),
    };
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(|e| StoreError::read(path, e))?;
    Ok(FileDigest { bytes, blake3: hasher.finalize().to_hex().to_string() })
}

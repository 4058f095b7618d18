//! A content-keyed store of stage outputs: published atomically, checked when read back.
//!
//! One folder per key, `<root>/<first two digits>/<key>/`, complete when and only when it holds `manifest.json`. A folder is filled as a
//! draft elsewhere in the root and renamed when everything in it is written, so a process killed at any moment leaves nothing half-made
//! behind a key. Read-only roots (the models shipped with the repository) are looked at after the writable one.
//!
//! Beside it, [`Cache`] keeps intermediate results that are only worth their time: lost without harm, bounded, cleared by `ressa gc`.

mod accelerator;
mod cache;
mod digests;
mod draft;
mod entry;
mod error;
mod manifest;
mod walk;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

pub use accelerator::accelerator;
pub use cache::{Cache, CacheKey, CacheUsage};
pub use digests::Digests;
pub use draft::{Draft, SUPERSEDED};
pub use entry::Entry;
pub use error::StoreError;
pub use manifest::{Environment, FileDigest, MANIFEST, Manifest};
pub use walk::{is_key, keys_in, named};

/// A store: one writable root and any number of read-only ones.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    shipped: Vec<PathBuf>,
    digests: Digests,
}

impl Store {
    /// A store over `root` (made when missing) and the read-only roots in `shipped`.
    pub fn open(root: impl Into<PathBuf>, shipped: Vec<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        for folder in ["", "drafts", "damaged"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(|e| StoreError::write(&path, e))?;
        }
        Ok(Self::reading(root, shipped))
    }

    /// The same for who only reads: no folder is made. What writes (`claim`, `scratch`, `set_aside`) needs `open`.
    pub fn reading(root: impl Into<PathBuf>, shipped: Vec<PathBuf>) -> Self {
        let root = root.into();
        let digests = Digests::open(&root);
        Self { root, shipped, digests }
    }

    /// The writable root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The read-only roots.
    pub fn shipped(&self) -> &[PathBuf] {
        &self.shipped
    }

    /// Remembered digests of files, inside and outside the store.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Where the output of a key is, or will be, in the writable root.
    pub fn folder(&self, key: &str) -> PathBuf {
        folder_in(&self.root, key)
    }

    /// Whether a key is published. Looks for the manifest only; `entry` reads it, `Entry::check` proves it.
    pub fn contains(&self, key: &str) -> bool {
        self.locate(key).is_ok_and(|found| found.is_some())
    }

    /// The folder of a published key, and whether it is the writable root's. A disk that does not answer is an error, not an absence.
    fn locate(&self, key: &str) -> Result<Option<(PathBuf, bool)>, StoreError> {
        let own = self.folder(key);
        if has_manifest(&own)? {
            return Ok(Some((own, true)));
        }
        for folder in self.shipped.iter().map(|root| folder_in(root, key)) {
            if has_manifest(&folder)? {
                return Ok(Some((folder, false)));
            }
        }
        Ok(None)
    }

    /// The published output of a key; `None` when there is none. A manifest that cannot be understood is an error.
    pub fn entry(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.locate(key)? {
            Some((folder, writable)) => Entry::read(folder, key, writable).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a key is published and proven to be what was published. Damage counts as absence here; the next coordinator quarantines it.
    pub fn usable(&self, key: &str) -> Result<bool, StoreError> {
        let found =
            self.entry(key).and_then(|entry| entry.map(|entry| entry.check_remembered(&self.digests)).transpose());
        match found {
            Ok(found) => Ok(found.is_some()),
            Err(e) if e.is_damage() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The published output of a key that a stage needs.
    pub fn require(&self, key: &str) -> Result<Entry, StoreError> {
        self.entry(key)?.ok_or_else(|| StoreError::Absent { key: key.to_owned() })
    }

    /// Where a stage may keep what it needs to go on after a kill (checkpoints of a training). Survives until the key is published.
    pub fn scratch(&self, key: &str) -> Result<PathBuf, StoreError> {
        let path = self.scratch_folder(key);
        fs::create_dir_all(&path).map_err(|e| StoreError::write(&path, e))?;
        Ok(path)
    }

    /// Where [`Store::scratch`] is, whether or not it is there.
    pub fn scratch_folder(&self, key: &str) -> PathBuf {
        self.root.join("drafts").join(format!("{key}.resume"))
    }

    /// Quarantines a damaged output (never deletes it), so that the key can be made again. Returns where it went.
    pub fn set_aside(&self, key: &str) -> Result<PathBuf, StoreError> {
        let from = self.folder(key);
        let to = (0..)
            .map(|n| self.root.join("damaged").join(format!("{key}.{n}")))
            .find(|path| !path.exists())
            .expect("some number is free");
        fs::rename(&from, &to).map_err(|e| StoreError::write(&from, e))?;
        Ok(to)
    }
}

fn has_manifest(folder: &Path) -> Result<bool, StoreError> {
    let path = folder.join(MANIFEST);
    match fs::metadata(&path) {
        Ok(data) => Ok(data.is_file()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(StoreError::read(&path, e)),
    }
}

/// Puts a file in the place of another, or where there is none: whole or not at all, whatever ends the process.
///
/// # Errors
/// A file that cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.draft", std::process::id()));
    let draft = path.with_file_name(name);
    fs::write(&draft, bytes)
        .and_then(|()| File::open(&draft)?.sync_all())
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|e| {
            // On a full disk, half a file would take the room that is to be made.
            let _ = fs::remove_file(&draft);
            StoreError::write(path, e)
        })
}

fn folder_in(root: &Path, key: &str) -> PathBuf {
    root.join(&key[..2.min(key.len())]).join(key)
}

//! A folder being filled, published by renaming it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::{Entry, FileDigest, MANIFEST, Manifest, Store, StoreError, entry::digest, is_key, journal, named};

/// The output of a stage while it is written. Dropped without `publish`, it is removed.
#[derive(Debug)]
pub struct Draft<'a> {
    store: &'a Store,
    key: String,
    folder: PathBuf,
}

impl<'a> Draft<'a> {
    pub(crate) fn begin(store: &'a Store, key: &str) -> Result<Self, StoreError> {
        let drafts = store.root().join("drafts");
        let pid = std::process::id();
        let folder = (0..)
            .map(|n| drafts.join(format!("{key}.{pid}.{n}")))
            .find(|path| !path.exists())
            .expect("some number is free");
        fs::create_dir(&folder).map_err(|e| StoreError::write(&folder, e))?;
        Ok(Self { store, key: key.to_owned(), folder })
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file of the output.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|e| StoreError::write(parent, e))?;
        }
        fs::write(&path, bytes).map_err(|e| StoreError::write(&path, e))
    }

    /// Flushes every file, writes the manifest last and moves the folder to its key. `manifest.files` is filled in here.
    /// If another process published the key meanwhile, that output stands and this one is dropped.
    pub fn publish(self, mut manifest: Manifest) -> Result<Entry, StoreError> {
        manifest.files = self.digests()?;
        let path = self.folder.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        fs::write(&path, text).map_err(|e| StoreError::write(&path, e))?;
        sync(&path)?;

        let target = self.store.folder(&self.key);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| StoreError::write(parent, e))?;
        }
        match fs::rename(&self.folder, &target) {
            // The stage is published; a line that cannot be added costs an estimate, and must not make it a failed one.
            Ok(()) => drop(journal::append(self.store, &manifest)),
            Err(_) if target.join(MANIFEST).is_file() => {}
            Err(e) => return Err(StoreError::write(&target, e)),
        }
        let _ = fs::remove_dir_all(self.store.root().join("drafts").join(format!("{}.resume", self.key)));
        Entry::read(target, &self.key, true)
    }

    fn digests(&self) -> Result<BTreeMap<String, FileDigest>, StoreError> {
        let mut files = BTreeMap::new();
        for item in WalkDir::new(&self.folder).sort_by_file_name() {
            let item = item.map_err(|e| StoreError::read(&self.folder, e.into()))?;
            if !item.file_type().is_file() {
                continue;
            }
            sync(item.path())?;
            let name = item.path().strip_prefix(&self.folder).expect("inside the draft").to_string_lossy().into_owned();
            files.insert(name, digest(item.path())?);
        }
        Ok(files)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.folder.exists() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| StoreError::write(path, e))
}

/// Removes drafts left behind by processes that died: nobody claims their key any more.
pub(crate) fn remove_abandoned(store: &Store) -> Result<u32, StoreError> {
    let mut removed = 0;
    for (name, folder) in named(&store.root().join("drafts"))? {
        // What an interrupted training goes on from stays, and so do strangers.
        let key = name.split('.').next().filter(|key| is_key(key) && !name.ends_with(".resume") && folder.is_dir());
        let Some(key) = key else { continue };
        let path = store.claim_path(key);
        let claim = File::create(&path).map_err(|e| StoreError::write(&path, e))?;
        if claim.try_lock().is_ok() {
            match fs::remove_dir_all(&folder) {
                // Published between the listing and the lock.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| StoreError::write(&folder, e))?,
            }
            removed += 1;
        }
    }
    Ok(removed)
}

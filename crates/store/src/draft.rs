//! A folder being filled, published by renaming it.
//!
//! Whoever makes an output fills `drafts/<key>.<attempt>` and finishes it; one process, the coordinator, renames it to its key. A maker whose
//! attempt was given to somebody else can therefore harm nothing, however late it comes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use crate::{Entry, FileDigest, MANIFEST, Manifest, Store, StoreError, entry::digest, is_key, named};

/// Folder within the store's root of outputs that came too late, `<key>.<attempt>`.
pub const SUPERSEDED: &str = "superseded";

/// The output of an attempt at a stage while it is written. Dropped without `finish` or `publish`, it is removed.
#[derive(Debug)]
pub struct Draft<'a> {
    store: &'a Store,
    key: String,
    attempt: u32,
    folder: PathBuf,
    finished: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn begin(store: &'a Store, key: &str, attempt: u32) -> Result<Self, StoreError> {
        let folder = store.draft_folder(key, attempt);
        // What stands there is of the same attempt in a worker that died.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| StoreError::write(&folder, e))?;
        }
        fs::create_dir_all(&folder).map_err(|e| StoreError::write(&folder, e))?;
        Ok(Self { store, key: key.to_owned(), attempt, folder, finished: false })
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

    /// Flushes every file and writes the manifest last, `manifest.files` filled in. The output is whole now, and waits to be published.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn finish(mut self, mut manifest: Manifest) -> Result<(), StoreError> {
        manifest.files = self.digests()?;
        let path = self.folder.join(MANIFEST);
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        fs::write(&path, text).map_err(|e| StoreError::write(&path, e))?;
        sync(&path)?;
        self.finished = true;
        Ok(())
    }

    /// Finishes and publishes in one step, for who makes an output outside a sweep. What is published already stands.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn publish(self, manifest: Manifest) -> Result<Entry, StoreError> {
        let (store, key, attempt) = (self.store, self.key.clone(), self.attempt);
        self.finish(manifest)?;
        let published = store.publish(&key, attempt)?;
        if published.is_none() {
            store.discard(&key, attempt)?;
        }
        store.require(&key)
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
        if !self.finished {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| StoreError::write(path, e))
}

impl Store {
    pub(crate) fn draft_folder(&self, key: &str, attempt: u32) -> PathBuf {
        self.root().join("drafts").join(format!("{key}.{attempt}"))
    }

    /// Starts the output of an attempt at a stage.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn draft(&self, key: &str, attempt: u32) -> Result<Draft<'_>, StoreError> {
        Draft::begin(self, key, attempt)
    }

    /// Moves the finished output of an attempt to its key; `None` where the key is published already, which stands. Only one process may
    /// call this for a store at a time: the coordinator of a sweep.
    ///
    /// # Errors
    /// An output that is not finished or not of this stage, or a folder that cannot be written.
    pub fn publish(&self, key: &str, attempt: u32) -> Result<Option<Entry>, StoreError> {
        let draft = self.finished(key, attempt)?;
        let target = self.folder(key);
        if target.join(MANIFEST).is_file() {
            return Ok(None);
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|e| StoreError::write(parent, e))?;
        }
        fs::rename(draft.folder(), &target).map_err(|e| StoreError::write(&target, e))?;
        let _ = fs::remove_dir_all(self.root().join("drafts").join(format!("{key}.resume")));
        Ok(Some(draft.moved(target)))
    }

    /// The finished output of an attempt that is not published.
    ///
    /// # Errors
    /// An output that is absent, not finished, or not of this stage.
    pub fn finished(&self, key: &str, attempt: u32) -> Result<Entry, StoreError> {
        let folder = self.draft_folder(key, attempt);
        if !folder.join(MANIFEST).is_file() {
            return Err(StoreError::damaged(&folder, "the worker says it is done, but its output is not finished"));
        }
        Entry::read(folder, key, true)
    }

    /// Puts the output of an attempt that was superseded beside the store, as evidence. Returns where it is.
    ///
    /// # Errors
    /// A folder that cannot be moved.
    pub fn keep_superseded(&self, key: &str, attempt: u32) -> Result<PathBuf, StoreError> {
        let folder = self.root().join(SUPERSEDED);
        fs::create_dir_all(&folder).map_err(|e| StoreError::write(&folder, e))?;
        let from = self.draft_folder(key, attempt);
        let to = (0..)
            .map(|n| folder.join(if n == 0 { format!("{key}.{attempt}") } else { format!("{key}.{attempt}.{n}") }))
            .find(|path| !path.exists())
            .expect("some number is free");
        fs::rename(&from, &to).map_err(|e| StoreError::write(&to, e))?;
        Ok(to)
    }

    /// The outputs that [`Store::keep_superseded`] keeps: key, attempt, and the output. Those that cannot be read are left out.
    ///
    /// # Errors
    /// A folder that is there and cannot be read.
    pub fn superseded(&self) -> Result<Vec<(String, u32, Entry)>, StoreError> {
        let kept = named(&self.root().join(SUPERSEDED))?.into_iter().filter_map(|(name, folder)| {
            let mut parts = name.split('.');
            let (key, attempt) = (parts.next().filter(|key| is_key(key))?, parts.next()?.parse().ok()?);
            let output = Entry::read(folder, key, true).ok()?;
            Some((key.to_owned(), attempt, output))
        });
        Ok(kept.collect())
    }

    /// Removes what an attempt wrote.
    ///
    /// # Errors
    /// A folder that cannot be removed.
    pub fn discard(&self, key: &str, attempt: u32) -> Result<(), StoreError> {
        removed(&self.draft_folder(key, attempt)).map(drop)
    }

    /// Removes drafts that nobody fills any more: those for which `is_alive` is false of their key and attempt (none: a name of earlier
    /// versions). What an interrupted training goes on from stays, and so do strangers. Returns how many there were.
    ///
    /// # Errors
    /// A folder that cannot be listed or removed.
    pub fn remove_abandoned_drafts(&self, is_alive: &dyn Fn(&str, Option<u32>) -> bool) -> Result<u32, StoreError> {
        let mut count = 0;
        for (name, folder) in named(&self.root().join("drafts"))? {
            let mut parts = name.splitn(2, '.');
            let (Some(key), Some(rest)) = (parts.next(), parts.next()) else { continue };
            if !is_key(key) || rest == "resume" || !folder.is_dir() || is_alive(key, rest.parse().ok()) {
                continue;
            }
            count += u32::from(removed(&folder)?);
        }
        Ok(count)
    }
}

/// Whether there was something to remove.
fn removed(folder: &Path) -> Result<bool, StoreError> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::write(folder, e)),
    }
}

//! What lies in a root, without the strangers that file systems and desktops leave there (`.nfs*`, `.DS_Store`, folders of people).

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use crate::{Store, StoreError};

/// Whether a name is a stage's key: 64 hexadecimal digits as the program writes them.
pub fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Store {
    /// The folders of the writable root that hold the published stages whose keys begin with the same two digits.
    ///
    /// # Errors
    /// A root that is there and cannot be read.
    pub fn own_shards(&self) -> Result<Vec<PathBuf>, StoreError> {
        shards(&self.root)
    }

    /// The folders of published stages in the writable root, with their keys, in no particular order. Whether they are whole is not looked at.
    ///
    /// # Errors
    /// A folder that is there and cannot be read: what it holds is not known.
    pub fn own_entries(&self) -> Result<Vec<(String, PathBuf)>, StoreError> {
        entries(&self.root)
    }

    /// The same for the read-only roots, as far as they can be read; a key may come more than once.
    pub fn shipped_entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.shipped.iter().flat_map(|root| entries(root).unwrap_or_default())
    }

    /// The same for every root.
    pub fn all_entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.own_entries().unwrap_or_default().into_iter().chain(self.shipped_entries())
    }
}

fn entries(root: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for shard in shards(root)? {
        let keys = keys_in(&shard)?.into_iter();
        found.extend(keys.map(|key| {
            let folder = shard.join(&key);
            (key, folder)
        }));
    }
    Ok(found)
}

fn shards(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let folders = items(root)?.into_iter().filter(|(name, item)| name.len() == 2 && is_folder(item));
    Ok(folders.map(|(_, item)| item.path()).collect())
}

/// The keys of the published stages in a folder of [`Store::own_shards`].
///
/// # Errors
/// A folder that is there and cannot be read.
pub fn keys_in(shard: &Path) -> Result<Vec<String>, StoreError> {
    let digits = shard.file_name().unwrap_or_default().to_string_lossy();
    let own = |name: &str, item: &DirEntry| is_key(name) && name.starts_with(&*digits) && is_folder(item);
    Ok(items(shard)?.into_iter().filter(|(name, item)| own(name, item)).map(|(name, _)| name).collect())
}

/// Whether an item of a folder is one, or leads to one. The list of most file systems says it, so that a million of them need not be asked.
fn is_folder(item: &DirEntry) -> bool {
    item.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && item.path().is_dir())
}

/// What is in a folder by name, as far as names are text; nothing where there is no such folder.
///
/// # Errors
/// A folder that is there and cannot be read.
pub fn named(folder: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    Ok(items(folder)?.into_iter().map(|(name, item)| (name, item.path())).collect())
}

fn items(folder: &Path) -> Result<Vec<(String, DirEntry)>, StoreError> {
    let unread = |e| StoreError::read(folder, e);
    // A link that leads nowhere is not an absent folder: a disk may be away.
    if fs::symlink_metadata(folder).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for item in fs::read_dir(folder).map_err(unread)? {
        let item = item.map_err(unread)?;
        if let Ok(name) = item.file_name().into_string() {
            found.push((name, item));
        }
    }
    Ok(found)
}

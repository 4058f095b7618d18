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
    for (shard, folder) in listed(root)?.into_iter().filter(|(name, item)| name.len() == 2 && is_folder(item)) {
        let inside = listed(&folder.path())?.into_iter();
        let inside = inside.filter(|(name, item)| is_key(name) && name.starts_with(&shard) && is_folder(item));
        found.extend(inside.map(|(name, item)| (name, item.path())));
    }
    Ok(found)
}

/// Whether an item is a folder or a link to one. Most file systems say so with the name, so that a large store is not asked folder by folder.
fn is_folder(item: &DirEntry) -> bool {
    item.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink() && item.path().is_dir())
}

/// What is in a folder by name, as far as names are text; nothing where there is no such folder.
///
/// # Errors
/// A folder that is there and cannot be read.
pub fn named(folder: &Path) -> Result<Vec<(String, PathBuf)>, StoreError> {
    Ok(listed(folder)?.into_iter().map(|(name, item)| (name, item.path())).collect())
}

fn listed(folder: &Path) -> Result<Vec<(String, DirEntry)>, StoreError> {
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

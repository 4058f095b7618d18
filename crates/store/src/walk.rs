//! What lies in a root, without the strangers that file systems and desktops leave there (`.nfs*`, `.DS_Store`, folders of people).

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Store;

/// Whether a name is a stage's key: 64 hexadecimal digits as the program writes them.
pub fn is_key(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Store {
    /// The folders of published stages in the writable root, with their keys, in no particular order. Whether they are whole is not looked at.
    pub fn own_entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        entries(&self.root)
    }

    /// The same for the read-only roots; a key may come more than once.
    pub fn shipped_entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.shipped.iter().flat_map(|root| entries(root))
    }

    /// The same for every root.
    pub fn all_entries(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.own_entries().chain(self.shipped_entries())
    }
}

fn entries(root: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    named(root).filter(|(name, _)| name.len() == 2).flat_map(|(shard, folder)| {
        named(&folder).filter(move |(name, path)| is_key(name) && name.starts_with(&shard) && path.is_dir())
    })
}

/// What is in a folder by name, if the name is text; nothing where the folder cannot be read.
pub fn named(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let items = fs::read_dir(folder).into_iter().flatten().flatten();
    items.filter_map(|item| Some((item.file_name().into_string().ok()?, item.path())))
}

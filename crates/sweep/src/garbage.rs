//! Stored stages that nobody asks for any more.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use ressa_store::{Store, StoreError};
use serde::Serialize;
use walkdir::WalkDir;

/// A folder of the writable root that can go.
#[derive(Clone, Debug, Serialize)]
pub struct Garbage {
    /// Name of the folder, which begins with the stage's key.
    pub name: String,
    /// What it is.
    pub what: String,
    /// Size of its files.
    pub bytes: u64,
    /// The folder.
    pub folder: PathBuf,
}

/// Folders of the writable root whose stage is not among `wanted`: published outputs, what interrupted trainings left, and everything
/// that was quarantined as damaged.
pub fn unreachable(store: &Store, wanted: &HashSet<String>) -> Vec<Garbage> {
    let root = store.root();
    let mut list = Vec::new();
    for shard in folders(root) {
        let name = file_name(&shard);
        let is_published = name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit());
        for folder in folders(&shard) {
            let key = file_name(&folder);
            let what = match name.as_str() {
                _ if is_published && !wanted.contains(&key) => match store.entry(&key) {
                    Ok(Some(entry)) => entry.manifest.kind,
                    _ => "unreadable".to_owned(),
                },
                "drafts" if key.strip_suffix(".resume").is_some_and(|key| !wanted.contains(key)) => {
                    "interrupted training".to_owned()
                }
                "damaged" => "damaged".to_owned(),
                _ => continue,
            };
            list.push(Garbage { name: key, what, bytes: bytes(&folder), folder });
        }
    }
    list.sort_by(|a, b| (&a.what, &a.name).cmp(&(&b.what, &b.name)));
    list
}

/// Removes one.
pub fn remove_unreachable(garbage: &Garbage) -> Result<(), StoreError> {
    fs::remove_dir_all(&garbage.folder).map_err(|source| StoreError::Write { path: garbage.folder.clone(), source })
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|item| Some(item.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn bytes(folder: &Path) -> u64 {
    let files = WalkDir::new(folder).into_iter().filter_map(Result::ok).filter(|item| item.file_type().is_file());
    files.filter_map(|item| Some(item.metadata().ok()?.len())).sum()
}

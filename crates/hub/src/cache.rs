//! What the cache already holds.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType};

use crate::{Settings, listing, name};

/// A repository as the client names it.
pub(crate) fn repository(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned())
}

/// The snapshot folder of a repository whose checkpoint is complete in the cache; the hub is not asked. `None` as well for texts that
/// cannot name a repository. The default revision is `main`.
pub fn cached(repo: &str, revision: Option<&str>, settings: &Settings) -> Option<PathBuf> {
    let revision = revision.unwrap_or(listing::MAIN);
    name::check(repo, revision).ok()?;
    let cache = Cache::new(settings.cache.clone()).repo(repository(repo, revision));
    let snapshot = |commit: &str| name::is_plain(commit).then(|| cache.pointer_path(commit));
    let reference = settings.cache.join(repository(repo, revision).folder_name()).join("refs").join(revision);
    let folder = match fs::read_to_string(reference) {
        Ok(commit) => snapshot(commit.trim()),
        Err(_) => name::is_commit(revision).then(|| snapshot(revision)).flatten(),
    }?;
    complete(&folder).then_some(folder)
}

/// Whether a folder holds a configuration and all files of its weights.
fn complete(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    has(listing::CONFIG)
        && (has(listing::SINGLE)
            || fs::read(folder.join(listing::INDEX))
                .ok()
                .and_then(|index| shards(&index).ok())
                .is_some_and(|shards| shards.iter().all(|shard| has(shard))))
}

/// Files that a list of shards names, sorted.
pub(crate) fn shards(index: &[u8]) -> Result<BTreeSet<String>, String> {
    let index: serde_json::Value = serde_json::from_slice(index).map_err(|e| e.to_string())?;
    let map = index["weight_map"].as_object().ok_or("it has no `weight_map`")?;
    let mut shards = BTreeSet::new();
    for file in map.values() {
        let name = file.as_str().unwrap_or_default();
        if !name::is_plain(name) || !name.ends_with(".safetensors") {
            return Err(format!("it names {file}, which is not a safetensors file beside it"));
        }
        shards.insert(name.to_owned());
    }
    if shards.is_empty() { Err("it names no shards".to_owned()) } else { Ok(shards) }
}

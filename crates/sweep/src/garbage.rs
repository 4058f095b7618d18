//! Stored stages that nobody asks for any more, and the trash they go through: nothing is deleted in the step that finds it unwanted.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ressa_experiment::{KeyMap, StageKey};
use ressa_store::{MANIFEST, Manifest, SUPERSEDED, Store, StoreError, named};
use serde::Serialize;
use walkdir::WalkDir;

use crate::{
    SweepRecord,
    made_of::{in_order, made, made_of},
};

/// Folder within the store's root where unwanted folders wait: `trash/<time>/<their path within the root>`.
const TRASH: &str = "trash";

/// A folder of the writable root that can go.
#[derive(Clone, Debug, Serialize)]
pub struct Garbage {
    /// Name of the folder, which begins with the stage's key.
    pub name: String,
    /// What it is.
    pub what: String,
    /// Who asked for it once, as far as that is recorded.
    pub made_by: Option<String>,
    /// Size of its files.
    pub bytes: u64,
    /// The folder.
    pub folder: PathBuf,
}

/// What lies in the trash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trash {
    /// Folders.
    pub folders: usize,
    /// Size of their files.
    pub bytes: u64,
}

/// Folders of the writable root whose stage is not among `wanted`: published outputs, what interrupted trainings left, and everything
/// that was quarantined as damaged or kept because it came too late. Names that the program does not write are passed over.
///
/// # Errors
/// A folder that cannot be read: what lies there is not known.
pub fn unreachable(
    store: &Store,
    wanted: &HashSet<StageKey>,
    sweeps: &[SweepRecord],
) -> Result<Vec<Garbage>, StoreError> {
    let mut makers: KeyMap<&SweepRecord> = KeyMap::default();
    for (sweep, key) in sweeps.iter().flat_map(|sweep| sweep.keys.iter().map(move |key| (sweep, key))) {
        makers.entry(*key).or_insert(sweep);
    }
    let item = |key: StageKey, name: String, what: String, folder: PathBuf| Garbage {
        made_by: makers.get(&key).map(|sweep| sweep.title()),
        bytes: bytes(&folder),
        name,
        what,
        folder,
    };
    let key = |name: &str| name.parse::<StageKey>().ok();
    let published = store.own_entries()?.into_iter().filter_map(|(name, folder)| {
        let key = key(&name).filter(|key| !wanted.contains(key))?;
        let what = match store.entry(&name) {
            Ok(Some(entry)) => entry.manifest.kind,
            _ => "unreadable".to_owned(),
        };
        Some(item(key, name, what, folder))
    });
    let interrupted = named(&store.root().join("drafts"))?.into_iter().filter_map(|(name, folder)| {
        let key = name.strip_suffix(".resume").and_then(key).filter(|key| !wanted.contains(key))?;
        Some(item(key, name, "interrupted training".to_owned(), folder))
    });
    let mut aside = Vec::new();
    for (folder, what) in [("damaged", "damaged"), (SUPERSEDED, "came too late")] {
        aside.extend(named(&store.root().join(folder))?.into_iter().filter_map(|(name, folder)| {
            let key = name.split('.').next().and_then(key).filter(|_| folder.is_dir())?;
            Some(item(key, name, what.to_owned(), folder))
        }));
    }
    let mut list: Vec<Garbage> = published.chain(interrupted).chain(aside).collect();
    list.sort_by(|a, b| (&a.what, &a.name).cmp(&(&b.what, &b.name)));
    Ok(list)
}

/// Moves folders to the trash, from where [`restore_trash`] brings all of them back and [`restore_stage`] one. Returns the folder of the trash
/// that has them.
///
/// # Errors
/// A folder that cannot be moved; those before it are moved.
pub fn move_to_trash(store: &Store, garbage: &[Garbage]) -> Result<PathBuf, StoreError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    let target = store.root().join(TRASH).join(now.to_string());
    for item in garbage {
        let inside = item.folder.strip_prefix(store.root()).unwrap_or(Path::new(&item.name));
        moved(&item.folder, &target.join(inside))?;
    }
    Ok(target)
}

/// Stages of the writable root that were made of some, directly or through others, whether or not anybody plans them now; each behind its inputs,
/// with these.
///
/// # Errors
/// A folder that cannot be read.
pub fn dependents(store: &Store, some: &BTreeSet<StageKey>) -> Result<Vec<(StageKey, Vec<StageKey>)>, StoreError> {
    let own = store.own_entries()?.into_iter();
    let stages: BTreeMap<StageKey, Manifest> = own.filter_map(|(_, folder)| stage_in(&folder)).collect();
    let made = made(&stages);
    let ordered = in_order(&made, made_of(&made, some));
    Ok(ordered.into_iter().map(|key| (key, made.get(&key).cloned().unwrap_or_default())).collect())
}

/// Brings one stage back from a folder of the trash.
///
/// # Errors
/// A folder that cannot be moved.
pub fn restore_stage(store: &Store, trash: &Path, key: &StageKey) -> Result<(), StoreError> {
    let place = store.folder(&key.hex());
    let inside = place.strip_prefix(store.root()).unwrap_or(&place);
    moved(&trash.join(inside), &place)
}

/// What the trash holds.
///
/// # Errors
/// A folder that cannot be read.
pub fn trash(store: &Store) -> Result<Trash, StoreError> {
    let folders = generations(store)?.concat();
    Ok(Trash { folders: folders.len(), bytes: folders.iter().map(|(folder, _)| bytes(folder)).sum() })
}

/// Deletes what the trash holds. Says what that was.
///
/// # Errors
/// A folder that cannot be deleted.
pub fn empty_trash(store: &Store) -> Result<Trash, StoreError> {
    let held = trash(store)?;
    let folder = store.root().join(TRASH);
    match fs::remove_dir_all(&folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Write { path: folder, source }),
        _ => Ok(held),
    }
}

/// Brings back what the trash holds, the latest first. What was made again meanwhile stays as it is, and its old form in the trash, together with
/// what was made of that where it is another. Returns how many folders came back.
///
/// # Errors
/// A folder that cannot be moved.
pub fn restore_trash(store: &Store) -> Result<usize, StoreError> {
    let mut restored = 0;
    // The form of each stage that what was thrown away earlier may have been made of: the one that was thrown away next after that.
    let mut forms: BTreeMap<StageKey, Manifest> = BTreeMap::new();
    for folders in generations(store)? {
        let stage = |(folder, inside): (PathBuf, PathBuf)| {
            let key = stage_in(&folder).map(|(key, form)| {
                forms.insert(key, form);
                key
            });
            (folder, inside, key)
        };
        let mut folders: Vec<(PathBuf, PathBuf, Option<StageKey>)> = folders.into_iter().map(stage).collect();
        let is_other = |(key, form): &(&StageKey, &Manifest)| {
            let there = store.entry(&key.hex()).ok().flatten();
            there.is_some_and(|there| !there.manifest.is_same_output(form))
        };
        let others: BTreeSet<StageKey> = forms.iter().filter(is_other).map(|(key, _)| *key).collect();
        let made = made(&forms);
        let of_others = made_of(&made, &others);
        // What a stage was made of comes back before it: whoever is killed in between leaves no scores of a training that is missing.
        let order = in_order(&made, folders.iter().filter_map(|(.., key)| *key).collect());
        let order: BTreeMap<StageKey, usize> = order.iter().enumerate().map(|(at, key)| (*key, at)).collect();
        folders.sort_by_key(|(.., key)| key.and_then(|key| order.get(&key)));
        for (folder, inside, key) in folders {
            let target = store.root().join(inside);
            let stays = key.is_some_and(|key| of_others.contains(&key));
            if !stays && !target.exists() {
                moved(&folder, &target)?;
                restored += 1;
            }
        }
    }
    Ok(restored)
}

/// The stage that a folder holds, if it is one.
fn stage_in(folder: &Path) -> Option<(StageKey, Manifest)> {
    let key = folder.file_name()?.to_str()?.parse().ok()?;
    Some((key, serde_json::from_slice(&fs::read(folder.join(MANIFEST)).ok()?).ok()?))
}

/// Folders in the trash with their paths within the root.
type Folders = Vec<(PathBuf, PathBuf)>;

/// Every folder in the trash, by when it came there, the latest first.
fn generations(store: &Store) -> Result<Vec<Folders>, StoreError> {
    let mut times = named(&store.root().join(TRASH))?;
    times.sort_by(|a, b| (b.0.len(), &b.0).cmp(&(a.0.len(), &a.0)));
    let folders = |(_, time): (String, PathBuf)| {
        let mut inside = Vec::new();
        for (_, part) in named(&time)? {
            inside.extend(named(&part)?.into_iter().map(|(_, folder)| folder));
        }
        inside.sort();
        let place = |folder: PathBuf| {
            let place = folder.strip_prefix(&time).unwrap_or(&folder).to_owned();
            (folder, place)
        };
        Ok(inside.into_iter().map(place).collect())
    };
    times.into_iter().map(folders).collect()
}

fn moved(from: &Path, to: &Path) -> Result<(), StoreError> {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::rename(from, to)).map_err(|source| StoreError::Write { path: to.to_owned(), source })
}

fn bytes(folder: &Path) -> u64 {
    let files = WalkDir::new(folder).into_iter().filter_map(Result::ok).filter(|item| item.file_type().is_file());
    files.filter_map(|item| Some(item.metadata().ok()?.len())).sum()
}

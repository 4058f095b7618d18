//! Takes the stages of an archive into a store.
//!
//! An archive may be anybody's. Everything is checked before anything is published: entries are plain files, each listed once, below the folder of
//! a stage and no larger than the list says; sizes and digests are those of the list; manifests speak of exactly these files. A stage that is there
//! already stays as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use ressa_experiment::StageKey;
use ressa_store::{FileDigest, MANIFEST, Manifest, Store, StoreError, named};
use serde::Serialize;
use tar::{Archive, Entry, EntryType};

use super::{
    ArchiveError,
    list::{LIST, LONGEST_LIST, List, Place, shown},
    places, upstream,
};
use crate::{
    made_of::{in_order, made, made_of},
    roots::record_keys,
};

/// How many times its size a compressed archive may hold: deflate cannot do more.
const MOST_COMPRESSED: u64 = 1100;

/// First bytes of what gzip has compressed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Beginning of the names of folders that archives are unpacked in, within the store's drafts.
const DRAFT: &str = "import.";

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Imported {
    /// Stages that are new.
    pub new: Vec<StageKey>,
    /// Stages that were there with the same bytes.
    pub known: Vec<StageKey>,
    /// Stages that were there with other bytes, which stay.
    pub different: Vec<StageKey>,
    /// Stages that are not taken: what is there of what they were made from has other bytes.
    pub of_different: Vec<StageKey>,
}

/// Whether an archive that is written under that name is compressed.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "gz" || ending == "tgz")
}

/// Checks an archive and publishes its stages in the writable root; the caller holds the lock of the results folder. They are recorded as wanted by
/// the experiments that the archive names, so that they are no garbage.
///
/// # Errors
/// [`ArchiveError::Refused`] with the first thing that is wrong; a store that cannot be written.
pub fn import(store: &Store, archive: &Path) -> Result<Imported, ArchiveError> {
    let drafts = store.root().join("drafts");
    // Whoever was killed while importing left a folder behind; no other process imports now.
    for (name, folder) in named(&drafts)? {
        if name.starts_with(DRAFT) {
            fs::remove_dir_all(&folder).map_err(|source| StoreError::Write { path: folder, source })?;
        }
    }
    let draft = drafts.join(format!("{DRAFT}{}", std::process::id()));
    fs::create_dir_all(&draft).map_err(|source| StoreError::Write { path: draft.clone(), source })?;
    let taken = take(store, archive, &draft);
    let _ = fs::remove_dir_all(&draft);
    taken
}

fn take(store: &Store, archive: &Path, draft: &Path) -> Result<Imported, ArchiveError> {
    let refuse = |what: String| ArchiveError::Refused { archive: archive.to_owned(), what };
    let file = File::open(archive).map_err(|e| refuse(format!("it cannot be opened ({e})")))?;
    let size = file.metadata().map_or(0, |data| data.len());
    let mut file = BufReader::new(file);
    // By its first bytes: it may have got another name on its way.
    let is_gzip = file.fill_buf().is_ok_and(|bytes| bytes.starts_with(&GZIP));
    let (content, room): (Box<dyn Read>, u64) = match is_gzip {
        true => (Box::new(GzDecoder::new(file)), size.saturating_mul(MOST_COMPRESSED)),
        false => (Box::new(file), size),
    };
    let mut reader = Archive::new(content);
    // The reason may quote bytes of the file.
    let broken = |e: io::Error| refuse(format!("it is no sound archive ({})", shown(&e.to_string())));
    // Raw: links, long names and other extensions are seen as what they are.
    let mut entries = reader.entries().map_err(broken)?.raw(true);
    let list = match entries.next() {
        Some(entry) => read_list(entry.map_err(broken)?, &refuse)?,
        None => return Err(refuse("it is empty".to_owned())),
    };
    if list.bytes() > room {
        return Err(refuse(format!("it lists {} bytes, more than can be in it", list.bytes())));
    }
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let (path, expected) = listed(&entry, &list, &seen).map_err(&refuse)?;
        unpack(&mut entry, &draft.join(&path), &path, &expected, &refuse)?;
        seen.insert(path);
    }
    if let Some(path) = list.entries.keys().find(|path| !seen.contains(*path)) {
        return Err(refuse(format!("`{path}` is listed and not in it")));
    }
    let stages = stages(&list, draft, &refuse)?;
    publish(store, draft, &list, stages)
}

type Refuse<'a> = &'a dyn Fn(String) -> ArchiveError;

fn read_list(mut entry: Entry<'_, impl Read>, refuse: Refuse<'_>) -> Result<List, ArchiveError> {
    let is_list = entry.header().entry_type() == EntryType::Regular && entry.path_bytes().as_ref() == LIST.as_bytes();
    if !is_list {
        return Err(refuse(format!("it does not begin with `{LIST}`, so no `ressa results export` has written it")));
    }
    if entry.size() > LONGEST_LIST {
        return Err(refuse(format!("its list has {} bytes, the limit is {LONGEST_LIST}", entry.size())));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|e| refuse(format!("its list cannot be read ({e})")))?;
    let list: List = serde_json::from_slice(&text)
        .map_err(|e| refuse(format!("its list cannot be understood ({})", shown(&e.to_string()))))?;
    match list.problem() {
        Some(problem) => Err(refuse(problem)),
        None => Ok(list),
    }
}

/// The path of an entry and what it must be, or what is wrong with it.
fn listed(entry: &Entry<'_, impl Read>, list: &List, seen: &BTreeSet<String>) -> Result<(String, FileDigest), String> {
    let bytes = entry.path_bytes();
    let name = shown(&String::from_utf8_lossy(&bytes));
    let what = match entry.header().entry_type() {
        EntryType::Regular => None,
        EntryType::Symlink | EntryType::Link => Some("a link"),
        EntryType::Directory => Some("a folder"),
        EntryType::Char | EntryType::Block | EntryType::Fifo => Some("a device"),
        _ => Some("an extension of the format"),
    };
    if let Some(what) = what {
        return Err(format!("`{name}` is {what}; only plain files are taken"));
    }
    let path = std::str::from_utf8(&bytes).map_err(|_| format!("`{name}` is no UTF-8 name"))?;
    Place::of(path).map_err(|what| format!("`{name}` is {what}"))?;
    let expected = list.entries.get(path).ok_or_else(|| format!("`{name}` is in it and not listed"))?;
    if seen.contains(path) {
        return Err(format!("`{name}` is in it twice"));
    }
    if entry.size() != expected.bytes {
        return Err(format!("`{name}` has {} bytes, listed are {}", entry.size(), expected.bytes));
    }
    Ok((path.to_owned(), expected.clone()))
}

/// Writes an entry into the draft; its digest must be the listed one.
fn unpack(
    entry: &mut Entry<'_, impl Read>,
    target: &Path,
    path: &str,
    expected: &FileDigest,
    refuse: Refuse<'_>,
) -> Result<(), ArchiveError> {
    let failed = |source| StoreError::Write { path: target.to_owned(), source };
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    // Two names that are one on this file system would meet here.
    let mut file = File::create_new(target).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = entry.read(&mut buffer).map_err(|e| refuse(format!("`{path}` cannot be read ({e})")))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    match hasher.finalize().to_hex().as_str() == expected.blake3 {
        true => Ok(()),
        false => Err(refuse(format!("`{path}` is not what was listed: its digest differs"))),
    }
}

/// The manifests of all stages, which must speak of the listed files and no others.
fn stages(list: &List, draft: &Path, refuse: Refuse<'_>) -> Result<BTreeMap<StageKey, Manifest>, ArchiveError> {
    let mut files: BTreeMap<&str, BTreeMap<String, FileDigest>> = BTreeMap::new();
    for (path, digest) in &list.entries {
        if let Ok(Place::Stage { key, name }) = Place::of(path) {
            files.entry(key).or_default().insert(name.to_owned(), digest.clone());
        }
    }
    let mut stages = BTreeMap::new();
    for (text, mut files) in files {
        let wrong = |what: &str| refuse(format!("the manifest of stage `{}` {what}", &text[..12]));
        files.remove(MANIFEST);
        let read = fs::read(draft.join(&text[..2]).join(text).join(MANIFEST));
        let manifest = read.ok().and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
        let manifest = manifest.ok_or_else(|| wrong("cannot be understood"))?;
        if manifest.key != text {
            return Err(wrong("is of another stage"));
        }
        if manifest.files != files {
            return Err(wrong("does not speak of the files that are listed"));
        }
        let key = text.parse::<StageKey>().map_err(|e| wrong(&e.to_string()))?;
        stages.insert(key, manifest);
    }
    Ok(stages)
}

/// Moves stages to their places, each in one step and behind what it was made of; what is there stays.
fn publish(
    store: &Store,
    draft: &Path,
    list: &List,
    stages: BTreeMap<StageKey, Manifest>,
) -> Result<Imported, ArchiveError> {
    let mut imported = Imported::default();
    // Before anything is there that nobody asks for.
    let clean = |texts: &[String]| texts.iter().map(|text| shown(text)).collect::<Vec<_>>();
    record_keys(store, &clean(&list.files), &clean(&list.words), stages.keys().copied())?;
    let mut there: BTreeMap<StageKey, bool> = BTreeMap::new();
    for (key, manifest) in &stages {
        let is_same = match store.entry(&key.hex()) {
            Ok(Some(mut entry)) => {
                // As it would be written for others.
                places::reduce(&mut entry.manifest.result);
                entry.manifest.is_same_output(manifest)
            }
            Ok(None) => continue,
            // Damaged: a sweep that finds it moves it away, and makes it again.
            Err(error) if error.is_damage() => false,
            Err(error) => return Err(error.into()),
        };
        there.insert(*key, is_same);
    }
    let mut others = upstream::others(store, &list.upstream)?;
    others.extend(there.iter().filter(|(_, same)| !**same).map(|(key, _)| *key));
    let mut made = made(&stages);
    // What is in it is judged as it is, whatever else the list says of it.
    for (key, stage) in &list.upstream {
        made.entry(*key).or_insert_with(|| stage.inputs.clone());
    }
    let of_others = made_of(&made, &others);
    for key in in_order(&made, stages.keys().copied().collect()) {
        let hex = key.hex();
        let is_same = there.get(&key).copied();
        match is_same {
            Some(true) => imported.known.push(key),
            Some(false) => imported.different.push(key),
            None if of_others.contains(&key) => imported.of_different.push(key),
            None => {
                moved(&draft.join(&hex[..2]).join(&*hex), &store.folder(&hex))?;
                imported.new.push(key);
            }
        }
        let scores = draft.join("scores").join(format!("{hex}.json"));
        let target = store.root().join("scores").join(format!("{hex}.json"));
        if is_same != Some(false) && !of_others.contains(&key) && scores.is_file() && !target.exists() {
            moved(&scores, &target)?;
        }
    }
    Ok(imported)
}

fn moved(from: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write { path: to.to_owned(), source };
    let parent: PathBuf = to.parent().map(Path::to_owned).unwrap_or_default();
    fs::create_dir_all(&parent).and_then(|()| fs::rename(from, to)).map_err(failed)?;
    File::open(&parent).and_then(|folder| folder.sync_all()).map_err(failed)
}

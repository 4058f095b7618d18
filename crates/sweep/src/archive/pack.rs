//! Writes stages of a store into an archive.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use ressa_experiment::{StageKey, record::ExternalScores};
use ressa_store::{Entry, FileDigest, MANIFEST, Manifest, Store, StoreError};
use serde::Serialize;
use serde_json::Value;
use tar::{Builder, EntryType, Header};

use super::{
    ArchiveError,
    list::{FORMAT, LIST, LONGEST_PATH, List},
    places,
    upstream::upstream,
};

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Packed {
    /// Stages in the archive.
    pub stages: usize,
    /// Size of their files.
    pub bytes: u64,
    /// Stages that were left out, with the reason.
    pub left_out: Vec<(StageKey, String)>,
}

/// Where the bytes of an entry are.
enum Content {
    File(PathBuf),
    Text(Vec<u8>),
}

/// Writes stages that the writable root has into a new file. `files` and `words` say which experiments ask for them.
///
/// # Errors
/// A file that is there already or cannot be written, a stage that cannot be read or is damaged; nothing is left behind.
pub fn export(
    store: &Store,
    keys: &[StageKey],
    files: &[String],
    words: &[String],
    output: &Path,
) -> Result<Packed, ArchiveError> {
    let mut packed = Packed::default();
    let mut entries: BTreeMap<String, (FileDigest, Content)> = BTreeMap::new();
    let mut inside: BTreeMap<StageKey, Manifest> = BTreeMap::new();
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for key in sorted {
        let Some(entry) = store.entry(&key.hex())?.filter(Entry::is_writable) else { continue };
        match stage(store, &entry) {
            Err(why) => packed.left_out.push((key, why)),
            Ok(found) => {
                packed.stages += 1;
                entries.extend(found);
                inside.insert(key, Manifest::clone(&entry.manifest));
            }
        }
    }
    let list = List {
        format: FORMAT,
        made_by: format!("ressa {}", env!("CARGO_PKG_VERSION")),
        files: files.iter().map(|file| reduced(file)).collect(),
        words: words.iter().map(|word| reduced(word)).collect(),
        entries: entries.iter().map(|(path, (digest, _))| (path.clone(), digest.clone())).collect(),
        upstream: upstream(store, &inside)?,
    };
    packed.bytes = list.bytes();
    let failed = |source| ArchiveError::Write { path: output.to_owned(), source };
    if output.exists() {
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "it is there already; choose another name")));
    }
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write(&part, output, &list, &entries).and_then(|()| fs::rename(&part, output).map_err(failed));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written.map(|()| packed)
}

fn reduced(text: &str) -> String {
    ressa_experiment::places::without_places(text)
}

/// A file of an archive: its name, what the list says of it, where its bytes are.
type Listed = (String, (FileDigest, Content));

/// The files of a stage by their paths in the archive, or why it cannot go into one.
fn stage(store: &Store, entry: &Entry) -> Result<Vec<Listed>, String> {
    let manifest = &entry.manifest;
    if manifest.result.get("checkpoint").and_then(Value::as_str).is_some() {
        return Err("it stands for a checkpoint folder of this machine; a sweep makes it again in no time".to_owned());
    }
    let below = |name: &str| format!("{}/{}/{name}", &manifest.key[..2], manifest.key);
    let mut found = Vec::new();
    for (name, digest) in &manifest.files {
        let path = entry.folder().join(name);
        if places::names_place(&path) {
            return Err(format!("its `{name}` names a place of this machine"));
        }
        if below(name).len() > LONGEST_PATH {
            return Err(format!("the name of its `{name}` is too long"));
        }
        found.push((below(name), (digest.clone(), Content::File(path))));
    }
    let mut manifest = Manifest::clone(manifest);
    for value in [&mut manifest.configuration, &mut manifest.inputs, &mut manifest.readings, &mut manifest.result] {
        places::reduce(value);
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| e.to_string())?;
    found.push((below(MANIFEST), described(text)));
    if let Ok(text) = fs::read(ExternalScores::path(store.root(), &manifest.key)) {
        found.push((format!("scores/{}.json", manifest.key), described(text)));
    }
    Ok(found)
}

fn described(text: Vec<u8>) -> (FileDigest, Content) {
    let digest = FileDigest { bytes: text.len() as u64, blake3: blake3::hash(&text).to_hex().to_string() };
    (digest, Content::Text(text))
}

/// Writes everything into `part`; how, the name of `output` says.
fn write(
    part: &Path,
    output: &Path,
    list: &List,
    entries: &BTreeMap<String, (FileDigest, Content)>,
) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Write { path: output.to_owned(), source };
    let file = File::create(part).map_err(failed)?;
    if super::unpack::is_compressed(output) {
        let zipped = fill(GzEncoder::new(BufWriter::new(file), Compression::default()), output, list, entries)?;
        let file = zipped.finish().and_then(|mut buffer| buffer.flush().map(|()| buffer)).map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)
    } else {
        let mut buffer = fill(BufWriter::new(file), output, list, entries)?;
        buffer.flush().and_then(|()| buffer.get_ref().sync_all()).map_err(failed)
    }
}

fn fill<W: Write>(
    writer: W,
    output: &Path,
    list: &List,
    entries: &BTreeMap<String, (FileDigest, Content)>,
) -> Result<W, ArchiveError> {
    let failed = |source| ArchiveError::Write { path: output.to_owned(), source };
    let mut builder = Builder::new(writer);
    let text = serde_json::to_vec(list).map_err(|e| failed(e.into()))?;
    append(&mut builder, LIST, text.len() as u64, text.as_slice()).map_err(failed)?;
    for (path, (digest, content)) in entries {
        match content {
            Content::Text(text) => append(&mut builder, path, digest.bytes, text.as_slice()).map_err(failed)?,
            Content::File(place) => {
                let damaged = |what: &str| {
                    let what = format!("{what}; `ressa verify --all` names all that is damaged");
                    ArchiveError::Store(StoreError::Damaged { path: place.clone(), what })
                };
                let file = File::open(place).map_err(|_| damaged("it cannot be opened"))?;
                let mut hashed = Hashed { file: file.take(digest.bytes), hasher: blake3::Hasher::new() };
                append(&mut builder, path, digest.bytes, &mut hashed).map_err(failed)?;
                if hashed.hasher.finalize().to_hex().as_str() != digest.blake3 {
                    return Err(damaged("its content differs from what was published"));
                }
            }
        }
    }
    builder.into_inner().map_err(failed)
}

/// Adds a plain file without times, owners or names of people.
fn append<W: Write>(builder: &mut Builder<W>, path: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    builder.append(&header, content)
}

/// A file whose bytes are hashed on their way.
struct Hashed<R> {
    file: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

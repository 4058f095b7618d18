//! The files of a folder beside its weights that belong to the model, carried along into a folder that others will read.
//!
//! The source may be anybody's and is not trusted: only files of known names go along ([`known`]), a link only where it stays in the folder
//! or leads to the hub's cache, and nothing in them that tells about the machine they lay on.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    CERTIFICATE, CheckpointError, INDEX, clean,
    draft::Draft,
    export::CONFIG,
    json, known,
    pickle::{is_foreign_weights, is_pickle},
};

/// Largest file that is carried along: above every published tokenizer.
const LIMIT: u64 = json::TOKENIZER_LIMIT;
/// Files that are named one by one as left out; a folder may hold millions.
const NAMED: usize = 200;

/// What became of the files.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Carried {
    /// Files that were copied, by their path in the folder.
    pub copied: Vec<PathBuf>,
    /// Files and folders that were not, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// A file or folder that was not carried along.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// Its path in the source folder as it can be shown: bytes that are no text, and control characters, are replaced.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

/// How a folder is carried along.
#[derive(Debug)]
pub(crate) struct Carry<'a> {
    /// Files that the caller writes.
    pub except: &'a BTreeSet<PathBuf>,
    /// Whether weights are changed, so that what the source says about their zeros no longer holds.
    pub changed: bool,
}

impl Carry<'_> {
    /// Copies the files that belong to the model from `source` into the draft.
    ///
    /// # Errors
    /// A file that cannot be read or written; a source whose `config.json` cannot go along.
    pub fn carry(&self, source: &Path, draft: &Draft) -> Result<Carried, CheckpointError> {
        let mut carried = Carried::default();
        let home = Home::of(source)?;
        self.folder(source, Path::new(""), &home, draft, &mut carried)?;
        let config = Path::new(CONFIG);
        if source.join(config).symlink_metadata().is_ok()
            && !self.except.contains(config)
            && !carried.copied.iter().any(|path| path == config)
        {
            let reason = "it is a link out of the folder, or no plain file; put a copy of the file in its place";
            return Err(CheckpointError::file(source.join(config), reason));
        }
        let more = carried.left_out.len().saturating_sub(NAMED);
        if more > 0 {
            carried.left_out.truncate(NAMED);
            carried.left_out.push(LeftOut { path: format!("{more} others"), reason: "not files of a model" });
        }
        Ok(carried)
    }

    fn folder(
        &self,
        source: &Path,
        inside: &Path,
        home: &Home,
        draft: &Draft,
        carried: &mut Carried,
    ) -> Result<(), CheckpointError> {
        let here = source.join(inside);
        let items = fs::read_dir(&here).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut items = items.map_err(CheckpointError::io("read", &here))?;
        items.sort_by_key(fs::DirEntry::file_name);
        for item in items {
            let path = inside.join(item.file_name());
            if self.except.contains(&path) {
                continue;
            }
            let kind = item.file_type().map_err(CheckpointError::io("read", item.path()))?;
            if kind.is_dir() && path == Path::new(known::QFORMER) {
                self.folder(source, &path, home, draft, carried)?;
                continue;
            }
            match refusal(&item.path(), &path, kind, home)? {
                Some(reason) => carried.left_out.push(LeftOut { path: shown(path.as_os_str()), reason }),
                None => {
                    self.copy(&item.path(), &path, draft)?;
                    carried.copied.push(path);
                }
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, path: &Path, draft: &Draft) -> Result<(), CheckpointError> {
        let bytes = json::bytes(from, LIMIT)?;
        let bytes = match path.extension().is_some_and(|ending| ending == "json") {
            true => clean::settings(path, &bytes, self.changed).unwrap_or(bytes),
            false if path == Path::new(crate::CARD) => clean::card(&bytes).unwrap_or(bytes),
            false => bytes,
        };
        draft.write(path, &bytes)
    }
}

/// Where files may lie that a folder holds.
struct Home {
    /// The folder itself, and the blobs of the hub's cache where it is a snapshot there; without links.
    folders: Vec<PathBuf>,
}

impl Home {
    fn of(source: &Path) -> Result<Self, CheckpointError> {
        let source = fs::canonicalize(source).map_err(CheckpointError::io("read", source))?;
        let blobs = snapshot(&source).and_then(|repository| fs::canonicalize(repository.join("blobs")).ok());
        // Blobs that are themselves a link lead where the hub's clients put them.
        Ok(Self { folders: [Some(source), blobs].into_iter().flatten().collect() })
    }

    fn holds(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|target| self.folders.iter().any(|folder| target.starts_with(folder)))
    }
}

/// The folder of a repository in the hub's cache, `models--OWNER--NAME`, of which a folder is a snapshot.
pub(crate) fn snapshot(folder: &Path) -> Option<&Path> {
    let snapshots = folder.parent().filter(|above| above.file_name() == Some(OsStr::new("snapshots")))?;
    snapshots
        .parent()
        .filter(|repository| repository.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--")))
}

/// A file of a folder that may be shown to others: a regular file, not a link that leads out of the folder.
pub(crate) fn is_own(folder: &Path, name: &str) -> bool {
    let path = folder.join(name);
    path.is_file() && Home::of(folder).is_ok_and(|home| home.holds(&path))
}

/// Why a file or folder is not carried along; nothing for the files of a model.
fn refusal(
    path: &Path,
    inside: &Path,
    kind: fs::FileType,
    home: &Home,
) -> Result<Option<&'static str>, CheckpointError> {
    let name = inside.to_str().unwrap_or_default();
    if inside.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
        return Ok(Some("hidden"));
    }
    if name == CERTIFICATE {
        return Ok(Some("the certificate of other weights"));
    }
    if name == INDEX || name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
        return Ok(Some("weights that the model does not read"));
    }
    if is_foreign_weights(inside) || name.ends_with(".bin.index.json") {
        return Ok(Some("weights in another form, possibly a pickle"));
    }
    if name == known::QFORMER {
        return Ok(Some("a link, not a folder"));
    }
    if !known::is_settings(name) && !known::is_document(name) {
        return Ok(Some("not a file of a model"));
    }
    let Ok(metadata) = fs::metadata(path) else { return Ok(Some("a link to nothing")) };
    if !metadata.is_file() {
        return Ok(Some("not a file"));
    }
    if kind.is_symlink() && !home.holds(path) {
        return Ok(Some("a link out of the folder"));
    }
    if metadata.len() > LIMIT {
        return Ok(Some("larger than a file of its name can be"));
    }
    let start = json::start(path)?;
    Ok(is_pickle(&start).then_some("a pickle"))
}

/// A name as it can be shown on a terminal and in JSON.
fn shown(name: &OsStr) -> String {
    name.to_string_lossy().chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

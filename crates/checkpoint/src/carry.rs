//! The files of a folder beside its weights: carried along as they are, except what must not be.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    CERTIFICATE, CheckpointError, INDEX,
    draft::Draft,
    pickle::{is_foreign_weights, is_pickle},
};

/// Deepest folder that is looked into; published ones are one deep.
const DEPTH: usize = 4;

/// What became of the files.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Carried {
    /// Files that were copied, by their path in the folder.
    pub copied: Vec<PathBuf>,
    /// Files that were not, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// A file that was not carried along.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// Its path in the folder.
    pub path: PathBuf,
    /// Why.
    pub reason: &'static str,
}

/// Copies every file of `source` into the draft, except weights, the list of pieces and `except` (which the caller writes), hidden files,
/// and whatever could be a pickle. Links to files are followed: the hub's cache is made of them.
pub(crate) fn carry(source: &Path, draft: &Draft, except: &BTreeSet<PathBuf>) -> Result<Carried, CheckpointError> {
    let mut carried = Carried::default();
    folder(source, Path::new(""), draft, except, 0, &mut carried)?;
    Ok(carried)
}

fn folder(
    source: &Path,
    inside: &Path,
    draft: &Draft,
    except: &BTreeSet<PathBuf>,
    depth: usize,
    carried: &mut Carried,
) -> Result<(), CheckpointError> {
    let here = source.join(inside);
    let items = fs::read_dir(&here).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut items = items.map_err(CheckpointError::io("read", &here))?;
    items.sort_by_key(fs::DirEntry::file_name);
    for item in items {
        let path = inside.join(item.file_name());
        let kind = item.file_type().map_err(CheckpointError::io("read", item.path()))?;
        // A link to a folder could lead anywhere, a link to a file only to that file.
        let is_file = fs::metadata(item.path()).is_ok_and(|metadata| metadata.is_file());
        let reason = if item.file_name().to_string_lossy().starts_with('.') {
            Some("hidden")
        } else if kind.is_dir() {
            match depth < DEPTH {
                true => {
                    folder(source, &path, draft, except, depth + 1, carried)?;
                    continue;
                }
                false => Some("too deep"),
            }
        } else if except.contains(&path) {
            continue;
        } else if is_file {
            refusal(&item.path(), &path)?
        } else {
            Some("not a file")
        };
        match reason {
            Some(reason) => carried.left_out.push(LeftOut { path, reason }),
            None => {
                draft.copy(&item.path(), &path)?;
                carried.copied.push(path);
            }
        }
    }
    Ok(())
}

/// Why a file is not carried along; nothing for most.
fn refusal(path: &Path, inside: &Path) -> Result<Option<&'static str>, CheckpointError> {
    let name = inside.to_string_lossy();
    if name == CERTIFICATE {
        return Ok(Some("the certificate of other weights"));
    }
    if name == INDEX || name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") {
        return Ok(Some("weights that the model does not read"));
    }
    if is_foreign_weights(inside) || name.ends_with(".bin.index.json") {
        return Ok(Some("weights in another form, possibly a pickle"));
    }
    let mut start = [0; 16];
    let mut file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
    let length = file.read(&mut start).map_err(CheckpointError::io("read", path))?;
    Ok(is_pickle(&start[..length]).then_some("a pickle"))
}

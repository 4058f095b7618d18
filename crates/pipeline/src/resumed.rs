//! What an interrupted stage left to resume from, and whether it is of the inputs that there are now: a stage that was made again may have another output
//! under the same key.

use std::{collections::BTreeSet, fs, io::ErrorKind, path::Path};

use ressa_experiment::{StageKey, StageNode};
use ressa_store::{Store, StoreError};

use crate::{
    PipelineError,
    resident::{identity, node_of},
};

/// Name of the note beside the checkpoint: what the stage's inputs were.
const INPUTS: &str = "inputs";

/// Empties the folder that a stage resumes from where nothing says that it is of the inputs that there are now.
pub(crate) fn settle(store: &Store, node: &StageNode) -> Result<(), PipelineError> {
    let folder = store.scratch(&node.key.hex())?;
    let (note, now) = (folder.join(INPUTS), digest(store, node)?);
    match fs::read(&note) {
        Ok(then) if then == now.as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::Read { path: note, source }.into()),
    }
    // The note goes last: whatever ends the process on the way, what is left is never taken for something of these inputs.
    let wrong = |path: &Path| {
        let path = path.to_owned();
        |source| StoreError::Write { path, source }
    };
    for item in fs::read_dir(&folder).map_err(wrong(&folder))? {
        let path = item.map_err(wrong(&folder))?.path();
        if path != note {
            let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
            let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(wrong(&path))?;
        }
    }
    Ok(ressa_store::replace(&note, now.as_bytes())?)
}

/// Of the outputs of a stage's inputs, and of all that these changed the weights on: a merge or a mask says nothing about the weights that it was made from.
fn digest(store: &Store, node: &StageNode) -> Result<String, PipelineError> {
    let mut hasher = blake3::Hasher::new();
    let mut open: Vec<StageKey> = node.inputs.iter().copied().collect();
    let mut seen = BTreeSet::new();
    while let Some(key) = open.pop() {
        let Some(entry) = seen.insert(key).then(|| store.entry(&key.hex())).transpose()?.flatten() else { continue };
        let made = node_of(&entry)?;
        if made.stage.changes_weights() {
            open.extend(made.inputs.iter().copied());
        }
        hasher.update(identity(&(key, &entry.manifest.files, &entry.manifest.result)).as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

//! What an interrupted stage left to resume from, and whether it is of the inputs that there are now: a stage that was made again may have another output
//! under the same key.

use std::{collections::BTreeSet, fs};

use ressa_experiment::{StageKey, StageNode};
use ressa_store::{Store, StoreError};

use crate::{
    PipelineError,
    resident::{identity, node_of},
};

/// Name of the note beside the checkpoint: what the stage's inputs were.
const INPUTS: &str = "inputs";

/// Empties the folder that a stage resumes from where it is of other inputs. A folder without a note is of a build that wrote none.
pub(crate) fn settle(store: &Store, node: &StageNode) -> Result<(), PipelineError> {
    let folder = store.scratch(&node.key.hex())?;
    let now = digest(store, node)?;
    match fs::read_to_string(folder.join(INPUTS)) {
        Ok(then) if then == now => return Ok(()),
        Ok(_) => {
            fs::remove_dir_all(&folder).map_err(|source| StoreError::Write { path: folder.clone(), source })?;
            store.scratch(&node.key.hex())?;
        }
        Err(_) => {}
    }
    Ok(ressa_store::replace(&folder.join(INPUTS), now.as_bytes())?)
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

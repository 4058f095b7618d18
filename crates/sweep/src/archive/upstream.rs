//! What the stages of an archive were made of that is not in it: enough to see whether another store has the same.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::StageKey;
use ressa_store::{Entry, Manifest, Store, StoreError};
use serde::{Deserialize, Serialize};

use super::places;
use crate::made_of::inputs_of;

/// A stage without its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    /// What it was made of itself.
    pub inputs: Vec<StageKey>,
    /// Digest of everything that others read of it.
    pub output: String,
}

impl Upstream {
    /// As a manifest says it.
    fn of(manifest: &Manifest) -> Self {
        let inputs = inputs_of(manifest);
        let mut result = manifest.result.clone();
        places::reduce(&mut result);
        let output = serde_json::to_vec(&(&manifest.files, result)).unwrap_or_default();
        Self { inputs, output: blake3::hash(&output).to_hex().to_string() }
    }
}

/// Everything that some stages were made of, as far as a store has it, without these themselves.
pub(super) fn upstream(
    store: &Store,
    stages: &BTreeMap<StageKey, Manifest>,
) -> Result<BTreeMap<StageKey, Upstream>, StoreError> {
    let mut found = BTreeMap::new();
    let mut open: Vec<StageKey> = stages.values().flat_map(inputs_of).collect();
    while let Some(key) = open.pop() {
        if stages.contains_key(&key) || found.contains_key(&key) {
            continue;
        }
        if let Some(entry) = compared(store, &key)? {
            let stage = Upstream::of(&entry.manifest);
            open.extend(&stage.inputs);
            found.insert(key, stage);
        }
    }
    Ok(found)
}

/// Those of an archive's list that a store has with another output.
pub(super) fn others(store: &Store, listed: &BTreeMap<StageKey, Upstream>) -> Result<BTreeSet<StageKey>, StoreError> {
    let mut others = BTreeSet::new();
    for (key, stage) in listed {
        match compared(store, key) {
            Ok(Some(entry)) if Upstream::of(&entry.manifest).output != stage.output => drop(others.insert(*key)),
            Ok(_) => {}
            // It will be made again, and nobody knows what comes out.
            Err(error) if error.is_damage() => drop(others.insert(*key)),
            Err(error) => return Err(error),
        }
    }
    Ok(others)
}

/// A stage that two stores can have in two forms: not one that shipped, nor one that stands for a folder of one machine.
fn compared(store: &Store, key: &StageKey) -> Result<Option<Entry>, StoreError> {
    let stands = |entry: &Entry| entry.manifest.result.get("checkpoint").is_some_and(serde_json::Value::is_string);
    Ok(store.entry(&key.hex())?.filter(|entry| entry.is_writable() && !stands(entry)))
}

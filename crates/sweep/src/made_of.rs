//! What was made of what, as manifests tell it.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::{StageKey, stage::Inputs};
use ressa_store::Manifest;

/// Stages with those that each was made of.
pub(crate) type Made = BTreeMap<StageKey, Vec<StageKey>>;

/// What the manifests of some stages say of each other.
pub(crate) fn made(stages: &BTreeMap<StageKey, Manifest>) -> Made {
    stages.iter().map(|(key, manifest)| (*key, inputs_of(manifest))).collect()
}

/// Stages that were made of some, directly or through others.
pub(crate) fn made_of(made: &Made, some: &BTreeSet<StageKey>) -> BTreeSet<StageKey> {
    let mut found = BTreeSet::new();
    if some.is_empty() {
        return found;
    }
    loop {
        let is_new = |(key, inputs): &(&StageKey, &Vec<StageKey>)| {
            !found.contains(*key) && inputs.iter().any(|input| some.contains(input) || found.contains(input))
        };
        let new: Vec<StageKey> = made.iter().filter(is_new).map(|(key, _)| *key).collect();
        if new.is_empty() {
            return found;
        }
        found.extend(new);
    }
}

/// Some stages, each behind those of its inputs that are among them.
pub(crate) fn in_order(made: &Made, mut some: BTreeSet<StageKey>) -> Vec<StageKey> {
    let mut ordered = Vec::with_capacity(some.len());
    while !some.is_empty() {
        let is_free = |key: &&StageKey| !made.get(*key).is_some_and(|of| of.iter().any(|input| some.contains(input)));
        let mut free: Vec<StageKey> = some.iter().filter(is_free).copied().collect();
        if free.is_empty() {
            // Manifests that name each other: nobody has written such, and no order is better than another.
            free = some.iter().copied().collect();
        }
        for key in free {
            some.remove(&key);
            ordered.push(key);
        }
    }
    ordered
}

/// The stages that one was made of, as far as its manifest says: an archive may be of another program.
pub(crate) fn inputs_of(manifest: &Manifest) -> Vec<StageKey> {
    serde_json::from_value::<Inputs>(manifest.inputs.clone())
        .map(|inputs| inputs.iter().copied().collect())
        .unwrap_or_default()
}

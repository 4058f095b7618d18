//! What of a graph is already in the store, proved by digests; what is damaged is quarantined by name.

use std::path::PathBuf;

use rayon::prelude::*;
use ressa_experiment::{Stage, StageKey};
use ressa_store::{MANIFEST, Store, StoreError};
use serde::Serialize;

use crate::{Graph, describe};

/// Which stages of a graph are published.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Per stage of the graph.
    pub present: Vec<bool>,
    /// What was found damaged (and is therefore not present).
    pub damaged: Vec<Damage>,
}

/// A store entry that is not what was published.
#[derive(Clone, Debug, Serialize)]
pub struct Damage {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub stage: String,
    /// File and finding.
    pub what: String,
    /// Where it was moved; none for a read-only (shipped) entry, which stays where it is and is not used.
    pub aside: Option<PathBuf>,
}

/// Looks for manifests only: enough to plan. Folders are listed rather than asked for key by key, so that the cost follows what the store
/// has, not what a large grid wants.
pub fn glance(graph: &Graph, store: &Store) -> Inventory {
    let mut present = vec![false; graph.stages.len()];
    for (key, folder) in store.all_entries() {
        if let Some(stage) = key.parse().ok().and_then(|key| graph.position(&key)) {
            present[stage] = present[stage] || folder.join(MANIFEST).is_file();
        }
    }
    let mut inventory = Inventory { present, damaged: Vec::new() };
    inventory.settle(graph);
    inventory
}

impl Inventory {
    /// Statistics that nobody is going to read count as present: they are means, and what was made of them is there.
    fn settle(&mut self, graph: &Graph) {
        for (position, stage) in graph.stages.iter().enumerate() {
            let is_statistics = matches!(*stage.node.stage, Stage::Statistics { .. });
            if is_statistics && stage.dependents.iter().all(|&dependent| self.present[dependent]) {
                self.present[position] = true;
            }
        }
    }
}

/// Proves every published stage of the graph; files that were not touched since they were last proved are not read again. Damaged ones are
/// quarantined, or only named when they lie in a read-only root, and count as absent.
///
/// # Errors
/// An entry that cannot be read for another reason than damage: it says nothing about what was published, so nothing is moved.
pub fn take_inventory(graph: &Graph, store: &Store) -> Result<Inventory, StoreError> {
    let findings: Vec<Finding> = graph.stages.par_iter().map(|stage| prove(store, &stage.node.key)).collect();
    store.digests().keep();

    let mut inventory = Inventory { present: Vec::with_capacity(findings.len()), damaged: Vec::new() };
    for (position, finding) in findings.into_iter().enumerate() {
        let node = &graph.stages[position].node;
        let damage = |what, aside| Damage { key: node.key, stage: describe(&node.stage), what, aside };
        inventory.present.push(matches!(finding, Finding::Good));
        match finding {
            Finding::Good | Finding::Absent => {}
            Finding::Unreadable(error) => return Err(error),
            Finding::Damaged(what) => {
                let aside = store.set_aside(&node.key.hex())?;
                inventory.damaged.push(damage(what, Some(aside)));
            }
            // Stays where it is: the worker proves a read-only entry again, passes it over and publishes in the writable root.
            Finding::ShippedDamaged(what) => inventory.damaged.push(damage(what, None)),
        }
    }
    inventory.settle(graph);
    Ok(inventory)
}

enum Finding {
    Good,
    Absent,
    Damaged(String),
    ShippedDamaged(String),
    Unreadable(StoreError),
}

fn prove(store: &Store, key: &StageKey) -> Finding {
    let own = store.folder(&key.hex());
    let in_own_root = own.join(MANIFEST).is_file();
    match store
        .entry(&key.hex())
        .and_then(|entry| entry.map(|entry| entry.check_remembered(store.digests())).transpose())
    {
        Ok(Some(())) => Finding::Good,
        // A folder without a manifest would stand in the way of publishing.
        Ok(None) if own.exists() => Finding::Damaged(format!("`{}` has no manifest", own.display())),
        Ok(None) => Finding::Absent,
        // A disk that does not answer, a file server that starts anew, missing permissions: making a stage again would not help.
        Err(error) if !error.is_damage() => Finding::Unreadable(error),
        Err(error) if in_own_root => Finding::Damaged(error.to_string()),
        Err(error) => Finding::ShippedDamaged(error.to_string()),
    }
}

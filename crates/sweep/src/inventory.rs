//! What of a graph is already in the store. What the log knows is compared with what the file system says of it, everything else is proven
//! by digests; what is damaged is quarantined by name.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use ressa_experiment::{Stage, StageKey};
use ressa_runlog::{Index, Proof, Published};
use ressa_store::{Entry, MANIFEST, Store, StoreError, keys_in};
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

/// What an inventory found that the log does not say.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Outputs that were proven now.
    pub found: Vec<(usize, Published)>,
    /// Stages that the log calls published and the store does not have, or not whole.
    pub gone: Vec<(usize, String)>,
}

/// Looks at names only: enough to plan.
pub fn glance(graph: &Graph, store: &Store) -> Inventory {
    let mut present = vec![false; graph.stages.len()];
    listed(store, |key| graph.position(key), |_| false).into_iter().for_each(|stage| present[stage] = true);
    let mut inventory = Inventory { present, damaged: Vec::new() };
    inventory.settle(graph);
    inventory
}

/// Positions of the stages whose outputs are in a store, by name. Folders are listed rather than asked for key by key, so that the cost follows
/// what the store has, not what a large grid wants. Where a folder is whole for whoever is `known`, it is not looked into.
pub(crate) fn listed(
    store: &Store,
    position: impl Fn(&StageKey) -> Option<usize> + Sync,
    known: impl Fn(&StageKey) -> bool + Sync,
) -> Vec<usize> {
    let whole = |shard: &Path, name: &str| {
        let key = name.parse().ok()?;
        let stage = position(&key)?;
        (known(&key) || shard.join(name).join(MANIFEST).is_file()).then_some(stage)
    };
    let own = store.own_shards().unwrap_or_default();
    let of_shard = |shard: &PathBuf| {
        let names = keys_in(shard).unwrap_or_default();
        names.iter().filter_map(|name| whole(shard, name)).collect::<Vec<_>>()
    };
    let mut found: Vec<usize> = own.par_iter().flat_map_iter(of_shard).collect();
    found.extend(store.shipped_entries().filter_map(|(name, folder)| whole(folder.parent()?, &name)));
    found
}

impl Inventory {
    /// Statistics that nobody is going to read count as present: they are means, and what was made of them is there. Where nothing at all
    /// reads them they were chosen for themselves.
    fn settle(&mut self, graph: &Graph) {
        for (position, stage) in graph.stages.iter().enumerate() {
            let is_statistics = matches!(*stage.node.stage, Stage::Statistics { .. });
            if is_statistics
                && !stage.dependents.is_empty()
                && stage.dependents.iter().all(|&dependent| self.present[dependent])
            {
                self.present[position] = true;
            }
        }
    }
}

/// Finds every published stage of the graph. Outputs that the log knows and nobody touched since are not read; others are read whole and
/// proven. Damaged ones are quarantined, or only named when they lie in a read-only root, and count as absent.
///
/// # Errors
/// An entry that cannot be read for another reason than damage: it says nothing about what was published, so nothing is moved.
pub(crate) fn take_inventory(graph: &Graph, store: &Store, index: &Index) -> Result<(Inventory, News), StoreError> {
    // Names are listed at once: on a network file system, asking for a million absent ones would take hours.
    let positions = |shard: &PathBuf| {
        let keys = keys_in(shard)?.into_iter().filter_map(|name| name.parse().ok());
        Ok(keys.filter_map(|key| graph.position(&key)).collect())
    };
    let own: Vec<Vec<usize>> = store.own_shards()?.par_iter().map(positions).collect::<Result<_, StoreError>>()?;
    let mut is_own = vec![false; graph.stages.len()];
    own.into_iter().flatten().for_each(|position| is_own[position] = true);
    let shipped: HashSet<StageKey> = store.shipped_entries().filter_map(|(key, _)| key.parse().ok()).collect();
    let look = |position: usize| {
        let key = &graph.stages[position].node.key;
        let known = index.published(key);
        let name = key.hex();
        if is_own[position] {
            if known.is_some_and(|known| known.is_untouched(&store.folder(&name))) {
                return Finding::Known;
            }
        } else if !shipped.contains(key) {
            return Finding::Absent;
        }
        prove(store, &name, &graph.stages[position].model)
    };
    let findings: Vec<Finding> = (0..graph.stages.len()).into_par_iter().map(look).collect();
    store.digests().keep();

    let mut inventory = Inventory { present: Vec::with_capacity(findings.len()), damaged: Vec::new() };
    let mut news = News::default();
    for (position, finding) in findings.into_iter().enumerate() {
        let node = &graph.stages[position].node;
        let damage =
            |what: &str, aside| Damage { key: node.key, stage: describe(&node.stage), what: what.to_owned(), aside };
        inventory.present.push(matches!(finding, Finding::Known | Finding::Good(_) | Finding::Shipped));
        let is_known = || index.published(&node.key).is_some();
        match finding {
            Finding::Known | Finding::Shipped => {}
            Finding::Good(record) => news.found.push((position, *record)),
            Finding::Absent if is_known() => news.gone.push((position, "it is no longer in the store".to_owned())),
            Finding::Absent => {}
            Finding::Unreadable(error) => return Err(*error),
            Finding::Damaged(what) => {
                let aside = store.set_aside(&node.key.hex())?;
                if is_known() {
                    news.gone.push((position, what.clone()));
                }
                inventory.damaged.push(damage(&what, Some(aside)));
            }
            // Stays where it is: it is passed over, and made in the writable root.
            Finding::ShippedDamaged(what) => inventory.damaged.push(damage(&what, None)),
        }
    }
    inventory.settle(graph);
    Ok((inventory, news))
}

enum Finding {
    /// As the log knows it.
    Known,
    /// Proven now.
    Good(Box<Published>),
    /// Proven, in a read-only root, which has no log.
    Shipped,
    Absent,
    Damaged(String),
    ShippedDamaged(String),
    Unreadable(Box<StoreError>),
}

fn prove(store: &Store, key: &str, model: &str) -> Finding {
    let own = store.folder(key);
    let in_own_root = own.join(MANIFEST).is_file();
    let proven = |entry: Entry| {
        // Before the files are read: an edit that comes later shows.
        let proof = proof(&entry);
        entry.check_remembered(store.digests()).map(|()| (proof, entry))
    };
    match store.entry(key).and_then(|entry| entry.map(proven).transpose()) {
        Ok(Some((Some(proof), entry))) if entry.is_writable() => {
            Finding::Good(Box::new(Published::of(&entry.manifest, model, proof)))
        }
        Ok(Some(_)) => Finding::Shipped,
        // A folder without a manifest would stand in the way of publishing.
        Ok(None) if own.exists() => Finding::Damaged(format!("`{}` has no manifest", own.display())),
        Ok(None) => Finding::Absent,
        // A disk that does not answer, a file server that starts anew, missing permissions: making a stage again would not help.
        Err(error) if !error.is_damage() => Finding::Unreadable(error.into()),
        Err(error) if in_own_root => Finding::Damaged(error.to_string()),
        Err(error) => Finding::ShippedDamaged(error.to_string()),
    }
}

/// What the file system says of an output now.
pub(crate) fn proof(entry: &Entry) -> Option<Proof> {
    Proof::of(entry.folder(), entry.manifest.files.keys().map(String::as_str)).ok()
}

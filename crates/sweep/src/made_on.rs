//! What cached stages were made on: libtorch's version and the kind of device decide how operations round, and are in no key.

use std::collections::BTreeMap;

use ressa_experiment::{KeyMap, Stage};
use ressa_store::{Environment, Store, read_journal};

use crate::{Graph, Inventory};

/// A libtorch on a kind of device: results of one round alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MadeOn {
    /// Version of libtorch, and whether it used TF32.
    pub libtorch: String,
    /// `cpu`, or the name of the GPU.
    pub machine: String,
}

impl MadeOn {
    /// What an environment says of it.
    pub fn of(environment: &Environment) -> Self {
        Self { libtorch: environment.arithmetic(), machine: environment.machine().to_owned() }
    }
}

impl std::fmt::Display for MadeOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "libtorch {} on {}", self.libtorch, self.machine)
    }
}

/// Cached stages of a graph by what they were made on, as positions. Dense models are left out: whoever trained one, it is the model, and a
/// published one is made by nothing.
pub fn made_on(graph: &Graph, inventory: &Inventory, store: &Store) -> BTreeMap<MadeOn, Vec<usize>> {
    let mut found: BTreeMap<MadeOn, Vec<usize>> = BTreeMap::new();
    // The journal says it of most without a look at each manifest; the last line of a key is that of what is there.
    let mut written: KeyMap<MadeOn> = KeyMap::default();
    for line in read_journal(store).into_iter().filter(|line| !line.arithmetic.is_empty()) {
        if let Ok(key) = line.key.parse() {
            written.insert(key, MadeOn { libtorch: line.arithmetic, machine: line.device });
        }
    }
    for (position, stage) in graph.stages.iter().enumerate() {
        let counts = inventory.present[position] && !matches!(*stage.node.stage, Stage::Dense { .. });
        if !counts {
            continue;
        }
        let of_entry = || Some(MadeOn::of(&store.entry(&stage.node.key.hex()).ok()??.manifest.environment));
        if let Some(kind) = written.remove(&stage.node.key).or_else(of_entry) {
            found.entry(kind).or_default().push(position);
        }
    }
    found
}

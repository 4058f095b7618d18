//! What cached stages were made on: libtorch's version and the kind of device decide how operations round, and are in no key.

use std::collections::BTreeMap;

use ressa_experiment::Stage;
use ressa_runlog::Index;
use ressa_store::{Environment, Store};

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
pub fn made_on(graph: &Graph, inventory: &Inventory, store: &Store, index: &Index) -> BTreeMap<MadeOn, Vec<usize>> {
    let mut found: BTreeMap<MadeOn, Vec<usize>> = BTreeMap::new();
    for (position, stage) in graph.stages.iter().enumerate() {
        let counts = inventory.present[position] && !matches!(*stage.node.stage, Stage::Dense { .. });
        if !counts {
            continue;
        }
        // The log says it of most without a look at each manifest.
        let known = index.published(&stage.node.key).map(|published| MadeOn::of(&published.environment));
        let of_entry = || Some(MadeOn::of(&store.entry(&stage.node.key.hex()).ok()??.manifest.environment));
        if let Some(kind) = known.or_else(of_entry) {
            found.entry(kind).or_default().push(position);
        }
    }
    found
}

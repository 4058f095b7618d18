//! Whether a sweep takes results that were made on another machine, and what is said about them.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use clap::ValueEnum;
use ressa_runlog::Index;
use ressa_store::{Environment, Store};
use ressa_sweep::{Graph, Inventory, MadeOn, made_on};

use crate::{
    arguments::MachineOptions,
    exit::{Exit, Failure},
    text::count,
    workspace::Workspace,
};

/// Which cached results a sweep takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Reuse {
    /// Those of any libtorch and any kind of device; mixtures are named
    #[default]
    Any,
    /// Only those of this libtorch on this kind of device; others go to the trash and are made again
    Alike,
}

/// A line for results that round differently, as they were made on different libtorches or kinds of devices; nothing where all are alike.
pub fn mixture(graph: &Graph, inventory: &Inventory, store: &Store, index: &Index) -> Option<String> {
    let kinds = made_on(graph, inventory, store, index);
    (kinds.len() > 1).then(|| {
        let part = |(kind, stages): (&MadeOn, &Vec<usize>)| format!("{} by {kind}", count(stages.len(), "stage"));
        let parts: Vec<String> = kinds.iter().map(part).collect();
        format!(
            "results were made in different ways, which round differently: {}; `ressa sweep --reuse alike` makes the others again",
            parts.join(", ")
        )
    })
}

/// Cached stages that were not made by this libtorch on this kind of device, by their positions. Those of a read-only root are left out: a worker
/// could not replace them.
pub fn others(
    workspace: &Workspace,
    machine: &MachineOptions,
    graph: &Graph,
    inventory: &Inventory,
    store: &Store,
) -> Result<Vec<usize>, Failure> {
    let present = present(workspace, machine)?;
    let mut kinds: BTreeMap<MadeOn, Vec<usize>> = made_on(graph, inventory, store, &ressa_runlog::read(store)?.index);
    kinds.remove(&present);
    let is_own = |position: &usize| store.folder(&graph.stages[*position].node.key.hex()).is_dir();
    Ok(kinds.into_values().flatten().filter(is_own).collect())
}

/// What workers would run on, as one of them says it.
fn present(workspace: &Workspace, machine: &MachineOptions) -> Result<MadeOn, Failure> {
    let options = workspace.sweep_options(machine);
    let device = options.workers().into_iter().next().unwrap_or_default();
    let program = options.worker.program.display();
    let unknown =
        |reason: String| Failure::new(Exit::Other, format!("`{program}` does not say what it runs on: {reason}"));
    let answer = Command::new(&options.worker.program)
        .args(["probe", "--device", &device])
        .envs(options.worker.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| unknown(e.to_string()))?;
    let environment: Environment = serde_json::from_slice(&answer.stdout).map_err(|_| {
        unknown(String::from_utf8_lossy(&answer.stderr).lines().last().unwrap_or("no answer").to_owned())
    })?;
    Ok(MadeOn::of(&environment))
}

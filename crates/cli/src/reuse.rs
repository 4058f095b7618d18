//! Whether a sweep takes results that were made on another machine, and what is said about them.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use clap::ValueEnum;
use ressa_runlog::Index;
use ressa_store::{Environment, Store};
use ressa_sweep::{
    CoordinatorLock, DEFAULT_LEASE, Garbage, Graph, Inventory, MadeOn, describe, interrupted, made_on, move_to_trash,
};

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

/// Cached stages that were not made by this libtorch on this kind of device, and all that was made of them, which count as absent from now on:
/// what is made again has other bytes, over which no earlier score may stand. Those of a read-only root stay: a worker could not replace them.
pub fn others(
    workspace: &Workspace,
    machine: &MachineOptions,
    graph: &Graph,
    inventory: &mut Inventory,
    store: &Store,
) -> Result<Vec<Garbage>, Failure> {
    let present = present(workspace, machine)?;
    let mut kinds: BTreeMap<MadeOn, Vec<usize>> = made_on(graph, inventory, store, &ressa_runlog::read(store)?.index);
    kinds.remove(&present);
    let folder = |position: usize| store.folder(&graph.stages[position].node.key.hex());
    let elsewhere = kinds.into_values().flatten().filter(|&position| folder(position).is_dir());
    let mut others = Vec::new();
    for position in graph.with_dependents(elsewhere) {
        let node = &graph.stages[position].node;
        if folder(position).is_dir() {
            inventory.present[position] = false;
            let (name, what, folder) = (node.key.to_string(), describe(&node.stage), folder(position));
            others.push(Garbage { name, what, made_by: None, bytes: 0, folder });
        }
        others.extend(interrupted(store, &node.key));
    }
    Ok(others)
}

/// Moves them to the trash.
pub fn put_away(workspace: &Workspace, store: &Store, others: &[Garbage]) -> Result<(), Failure> {
    if others.is_empty() {
        return Ok(());
    }
    let _lock = CoordinatorLock::acquire(&workspace.results, DEFAULT_LEASE)?;
    move_to_trash(store, others)?;
    Ok(())
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

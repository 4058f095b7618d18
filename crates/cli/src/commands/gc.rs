//! `ressa gc`: what the store keeps though no experiment file asks for it.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::Experiment;
use ressa_sweep::{CoordinatorLock, Graph, remove_unreachable, unreachable};
use serde_json::json;

use crate::{
    arguments::{GcOptions, Global},
    commands::{forecast::CARDS, gc_cache},
    exit::{Exit, Failure, Outcome},
    study::mark_checkpoints,
    text::{count, say, say_json, size},
    workspace::Workspace,
};

/// Lists, and with `--delete` removes.
pub fn run(global: &Global, options: &GcOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    if options.cache {
        return gc_cache::run(global, options, &workspace.results);
    }
    let store = workspace.store()?;
    let mut wanted: HashSet<String> = HashSet::new();
    for file in experiment_files(&workspace.experiments) {
        // A file that cannot be read might want anything, so nothing is removed behind its back.
        let mut experiment = Experiment::load(&file, &workspace.experiments, &[])?;
        mark_checkpoints(&workspace, &mut experiment);
        let graph = Graph::of([&experiment], true);
        wanted.extend(graph.stages.iter().map(|stage| stage.node.key.0.clone()));
    }
    if wanted.is_empty() {
        return Err(Failure::new(Exit::NothingSelected, "there is no experiment file, so everything would go"));
    }
    let _lock = CoordinatorLock::acquire(&workspace.results)?;
    let garbage = unreachable(&store, &wanted);
    let bytes: u64 = garbage.iter().map(|item| item.bytes).sum();
    if options.delete {
        for item in &garbage {
            remove_unreachable(item)?;
        }
    }
    if global.json {
        say_json(&json!({ "deleted": options.delete, "bytes": bytes, "entries": garbage }));
        return Ok(Exit::Done);
    }
    for item in &garbage {
        say(format_args!("{}  {:>9}  {}", &item.name[..12.min(item.name.len())], size(item.bytes), item.what));
    }
    let what = count(garbage.len(), "folder");
    match (garbage.is_empty(), options.delete) {
        (true, _) => say("nothing to remove: experiment files ask for everything in the store"),
        (false, true) => say(format_args!("{what} removed, {} freed", size(bytes))),
        (false, false) => say(format_args!("{what}, {}; `ressa gc --delete` removes them", size(bytes))),
    }
    if let Some(line) = gc_cache::mention(&workspace.results) {
        say(line);
    }
    Ok(Exit::Done)
}

/// Experiment files below a folder, without `base` (what others extend is not an experiment), the shipped store and the file of cards.
fn experiment_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().filter_map(|item| Some(item.ok()?.path())) {
            if path.is_dir() {
                if !path.ends_with("base") && !path.ends_with("store") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "yaml") && !path.ends_with(CARDS) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

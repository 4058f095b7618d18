//! `ressa gc`: what the store keeps though no experiment file and no recorded sweep asks for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use ressa_experiment::{Experiment, StageKey};
use ressa_store::{Store, named};
use ressa_sweep::{
    CoordinatorLock, DEFAULT_LEASE, Graph, SweepRecord, empty_trash, forget_sweep, move_to_trash, recorded_sweeps,
    restore_trash, trash, unreachable,
};
use serde_json::json;

use crate::{
    arguments::{GcOptions, Global},
    commands::{forecast::CARDS, gc_cache},
    exit::{Exit, Failure, Outcome},
    study::read_contents,
    text::{columns, count, say, say_json, size},
    workspace::Workspace,
};

/// Word for sweeps whose files were swept again.
const SUPERSEDED: &str = "superseded";

/// Lists, and with `--delete` moves to the trash.
pub fn run(global: &Global, options: &GcOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    if options.cache {
        return gc_cache::run(global, options, &workspace.results);
    }
    if options.sweeps {
        return list_sweeps(global, &workspace.reading());
    }
    let moves = options.delete || options.empty || options.restore || !options.forget.is_empty();
    let store = if moves { workspace.store()? } else { workspace.reading() };
    // Before anything is read: what a sweep makes meanwhile must not look unwanted.
    let _lock = moves.then(|| CoordinatorLock::acquire(&workspace.results, DEFAULT_LEASE)).transpose()?;
    if options.empty || options.restore {
        return handle_trash(global, options, &store);
    }
    let forgotten = forget(&store, &options.forget)?;
    let sweeps = recorded_sweeps(&store)?;
    let wanted = wanted(&workspace, &sweeps)?;
    if wanted.is_empty() {
        return Err(Failure::new(
            Exit::NothingSelected,
            "there is no experiment file and no recorded sweep, so everything would go",
        ));
    }
    let keys: HashSet<StageKey> = wanted.keys().copied().collect();
    let garbage = unreachable(&store, &keys, &sweeps)?;
    let bytes: u64 = garbage.iter().map(|item| item.bytes).sum();
    if options.delete {
        move_to_trash(&store, &garbage)?;
    }
    let mut kept: Vec<(&StageKey, &BTreeSet<String>)> =
        store.own_entries()?.into_iter().filter_map(|(name, _)| wanted.get_key_value(&name.parse().ok()?)).collect();
    kept.sort();
    if global.json {
        let kept: Vec<_> = kept.iter().map(|(key, by)| json!({ "key": key, "wanted-by": by })).collect();
        say_json(&json!({
            "deleted": options.delete, "bytes": bytes, "entries": garbage, "kept": kept, "forgotten": forgotten,
            "trash": trash(&store)?,
        }));
        return Ok(Exit::Done);
    }
    for title in &forgotten {
        say(format_args!("forgotten: {title}"));
    }
    for item in &garbage {
        let by = item.made_by.as_ref().map(|title| format!("  made by `ressa sweep {title}`")).unwrap_or_default();
        say(format_args!("{}  {:>9}  {}{by}", &item.name[..12], size(item.bytes), item.what));
    }
    if global.verbose {
        for (key, by) in &kept {
            say(format_args!(
                "{}  kept for {}",
                key.short(),
                by.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ));
        }
    }
    let what = count(garbage.len(), "folder");
    match (garbage.is_empty(), options.delete) {
        (true, _) => say("nothing to remove: experiment files and recorded sweeps ask for everything in the store"),
        (false, true) => say(format_args!(
            "{what} moved to the trash, {}; `ressa gc --empty` frees the space, `ressa gc --restore` brings them back",
            size(bytes)
        )),
        (false, false) => say(format_args!("{what}, {}; `ressa gc --delete` moves them to the trash", size(bytes))),
    }
    mention_others(&workspace, &store, options.delete)?;
    Ok(Exit::Done)
}

/// Lines about what else takes space.
fn mention_others(workspace: &Workspace, store: &Store, just_moved: bool) -> Result<(), Failure> {
    let held = trash(store)?;
    if held.folders > 0 && !just_moved {
        let what = count(held.folders, "folder");
        say(format_args!("the trash holds {what}, {}; `ressa gc --empty` deletes them", size(held.bytes)));
    }
    if let Some(line) = gc_cache::mention(&workspace.results) {
        say(line);
    }
    Ok(())
}

/// Every wanted key, and by whom: experiment files as a sweep would load them, and recorded sweeps.
fn wanted(workspace: &Workspace, sweeps: &[SweepRecord]) -> Result<BTreeMap<StageKey, BTreeSet<String>>, Failure> {
    let mut wanted = BTreeMap::<StageKey, BTreeSet<String>>::new();
    for file in experiment_files(&workspace.experiments)? {
        // A file that cannot be read might want anything, so nothing is moved behind its back.
        let mut experiment = [Experiment::load(&file, &workspace.experiments, &[])?];
        read_contents(workspace, &mut experiment)?;
        for stage in &Graph::of(&experiment, true).stages {
            wanted.entry(stage.node.key).or_default().insert(workspace.show(&file));
        }
    }
    for sweep in sweeps.iter().filter(|sweep| !sweep.forgotten) {
        for key in &sweep.keys {
            wanted.entry(*key).or_default().insert(format!("sweep {} ({})", sweep.id, sweep.title()));
        }
    }
    Ok(wanted)
}

/// Gives up the recorded sweeps that words name. Says which.
fn forget(store: &Store, words: &[String]) -> Result<Vec<String>, Failure> {
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let sweeps: Vec<SweepRecord> = recorded_sweeps(store)?.into_iter().filter(|sweep| !sweep.forgotten).collect();
    let mut named: BTreeSet<usize> = BTreeSet::new();
    for word in words {
        let found: Vec<usize> = (0..sweeps.len()).filter(|&at| names(&sweeps, at, word)).collect();
        if found.is_empty() && word != SUPERSEDED {
            let message = format!("no recorded sweep is called `{word}`; `ressa gc --sweeps` lists them");
            return Err(Failure::new(Exit::NothingSelected, message));
        }
        named.extend(found);
    }
    let mut titles = Vec::new();
    for at in named {
        forget_sweep(store, &sweeps[at])?;
        titles.push(format!("{}  {}", sweeps[at].id, sweeps[at].title()));
    }
    Ok(titles)
}

/// Whether a word names a sweep; the list begins with the latest.
fn names(sweeps: &[SweepRecord], at: usize, word: &str) -> bool {
    let sweep = &sweeps[at];
    if word == SUPERSEDED {
        return sweeps[..at].iter().any(|later| later.files == sweep.files && later.overrides == sweep.overrides);
    }
    // A file names the sweeps of it alone: one of several files is wanted for the others too.
    let is_file = |file: &String| file == word || Path::new(file).file_stem().is_some_and(|stem| stem == word);
    (word.len() >= 4 && sweep.id.starts_with(word)) || (sweep.files.len() == 1 && sweep.files.iter().any(is_file))
}

fn list_sweeps(global: &Global, store: &Store) -> Outcome {
    let sweeps = recorded_sweeps(store)?;
    if global.json {
        let brief = |s: &SweepRecord| {
            json!({
                "id": s.id, "files": s.files, "overrides": s.overrides, "first": s.first, "last": s.last,
                "forgotten": s.forgotten, "stages": s.keys.len(),
            })
        };
        say_json(&json!({ "sweeps": sweeps.iter().map(brief).collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    let mut rows = vec![["sweep", "stages", "", "experiments and overrides"].map(str::to_owned).to_vec()];
    for sweep in &sweeps {
        let state = if sweep.forgotten { "forgotten" } else { "" };
        rows.push(vec![sweep.id.clone(), sweep.keys.len().to_string(), state.to_owned(), sweep.title()]);
    }
    if sweeps.is_empty() {
        say("no sweep is recorded yet");
    } else {
        say(columns(&rows).trim_end());
    }
    Ok(Exit::Done)
}

fn handle_trash(global: &Global, options: &GcOptions, store: &Store) -> Outcome {
    if options.restore {
        let restored = restore_trash(store)?;
        let left = trash(store)?;
        match global.json {
            true => say_json(&json!({ "restored": restored, "trash": left })),
            false => say(format_args!("{} brought back", count(restored, "folder"))),
        }
        return Ok(Exit::Done);
    }
    let held = empty_trash(store)?;
    match global.json {
        true => say_json(&json!({ "emptied": held })),
        false => say(format_args!("{} deleted, {} freed", count(held.folders, "folder"), size(held.bytes))),
    }
    Ok(Exit::Done)
}

/// Experiment files below a folder, without `base` (what others extend is no experiment), the shipped store and the file of cards.
fn experiment_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shipped = folder.join("store");
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for (name, path) in named(&folder)? {
            if name.starts_with('.') {
                continue;
            }
            if path.is_dir() {
                if name != "base" && path != shipped {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && !path.ends_with(CARDS) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

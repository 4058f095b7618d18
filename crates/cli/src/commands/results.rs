//! `ressa results`: part of a store as one archive, written and taken in.

use ressa_experiment::StageKey;
use ressa_sweep::{
    CoordinatorLock,
    archive::{self, ArchiveError},
};
use serde_json::json;

use crate::{
    arguments::{
        Global,
        results::{ExportOptions, ImportOptions, Results},
    },
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{count, note, say, say_json, size},
    workspace::Workspace,
};

/// Writes or reads an archive.
pub fn run(global: &Global, what: &Results) -> Outcome {
    match what {
        Results::Export(options) => export(global, options),
        Results::Import(options) => import(global, options),
    }
}

fn export(global: &Global, options: &ExportOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let study = Study::load(&workspace, &options.selection)?;
    let graph = study.graph(true);
    let keys: Vec<StageKey> = study.selected(&graph).into_iter().map(|stage| graph.stages[stage].node.key).collect();
    let is_own = |key: &&StageKey| store.folder(&key.hex()).is_dir();
    if keys.iter().filter(is_own).count() == 0 {
        let message = "nothing that is selected is in the store; `ressa sweep` makes it";
        return Err(Failure::new(Exit::NothingSelected, message));
    }
    let files: Vec<String> = study.experiments.iter().map(|experiment| workspace.show(&experiment.path)).collect();
    let packed = archive::export(&store, &keys, &files, &study.words(), &options.archive)?;
    if global.json {
        say_json(&json!(packed));
        return Ok(Exit::Done);
    }
    for (key, why) in packed.left_out.iter().filter(|_| !global.quiet) {
        note(format_args!("left out: stage {}: {why}", key.short()));
    }
    let archive = options.archive.display();
    say(format_args!("{}, {} in `{archive}`", count(packed.stages, "stage"), size(packed.bytes)));
    Ok(Exit::Done)
}

fn import(global: &Global, options: &ImportOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    if !options.archive.is_file() {
        let message = format!("there is no file `{}`", options.archive.display());
        return Err(Failure::new(Exit::MissingInput, message));
    }
    let store = workspace.store()?;
    let _lock = CoordinatorLock::acquire(&workspace.results, ressa_sweep::DEFAULT_LEASE)?;
    let imported = archive::import(&store, &options.archive)?;
    if global.json {
        say_json(&json!(imported));
        return Ok(Exit::Done);
    }
    for key in imported.different.iter().filter(|_| !global.quiet) {
        note(format_args!("stage {} is there with other bytes and stays as it is", key.short()));
    }
    for key in imported.of_different.iter().filter(|_| !global.quiet) {
        note(format_args!("stage {} is not taken: it was made of one that is there with other bytes", key.short()));
    }
    let known = imported.known.len() + imported.different.len();
    say(format_args!("{} taken, {known} were there", count(imported.new.len(), "stage")));
    Ok(Exit::Done)
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let exit = match &error {
            error if error.is_storage() => Exit::CannotWrite,
            ArchiveError::Refused { .. } => Exit::Unusable,
            _ => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    }
}

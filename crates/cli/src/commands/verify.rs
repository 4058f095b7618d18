//! `ressa verify`: digests of files, certificates recounted on weights.

use ressa_sweep::{Verdict, verify};
use serde_json::json;

use crate::{
    arguments::{Global, Selection, VerifyOptions},
    commands::verify_folder,
    exit::{Exit, Failure, Outcome},
    study::{Match, Study, find},
    text::{count, say, say_json},
    workspace::Workspace,
};

/// Verifies what is selected; names what does not hold.
pub fn run(global: &Global, options: &VerifyOptions) -> Outcome {
    let folders = options.which.iter().filter(|word| verify_folder::is_folder(word)).count();
    if folders > 0 && folders == options.which.len() {
        return verify_folder::run(global, options);
    }
    if folders > 0 {
        return Err(Failure::new(Exit::Usage, "folders and runs are verified with a command each"));
    }
    let claims = options.pattern.is_some() || options.sparsity.is_some() || !options.towers.is_empty();
    if let Some(word) = options.which.iter().find(|word| claims || word.contains(std::path::MAIN_SEPARATOR)) {
        return Err(Failure::new(Exit::MissingInput, format!("there is no folder `{word}`")));
    }
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let study = Study::load(&workspace, &Selection { what: options.files.clone() })?;
    let graph = study.graph(true);
    let mut positions: Vec<usize> = Vec::new();
    if options.all {
        positions.extend((0..graph.stages.len()).filter(|&stage| store.contains(&graph.stages[stage].node.key.hex())));
    }
    for word in &options.which {
        match find(&graph, word)? {
            Match::Run(run) => positions.extend(&graph.runs[run].stages),
            Match::Stage(stage) => positions.push(stage),
        }
    }
    positions.sort_unstable();
    positions.dedup();
    if positions.is_empty() {
        return Err(Failure::new(
            Exit::NothingSelected,
            "nothing of these experiments is in the store; `ressa sweep` makes it",
        ));
    }

    let mut verdicts: Vec<Verdict> = Vec::new();
    let limits = workspace.sweep_options(&options.machine);
    verify(&graph, &positions, &store, &limits, &mut |verdict| {
        if !global.json && (!verdict.violations.is_empty() || (global.verbose && verdict.present)) {
            let state = if verdict.violations.is_empty() { "holds".to_owned() } else { verdict.violations.join("; ") };
            say(format_args!("{}  {}  {state}", verdict.key.short(), verdict.what));
        }
        verdicts.push(verdict);
    })?;
    let wrong = verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).count();
    let absent = verdicts.iter().filter(|verdict| !verdict.present).count();
    let recounted = verdicts.iter().filter(|verdict| verdict.recounted).count();
    if global.json {
        say_json(&json!(verdicts));
    } else {
        let checked = count(verdicts.len() - absent, "stage");
        let certificates = count(recounted, "certificate");
        say(format_args!("{checked} checked, {certificates} recounted, {wrong} wrong, {absent} not made yet"));
    }
    Ok(if wrong > 0 { Exit::NotVerified } else { Exit::Done })
}

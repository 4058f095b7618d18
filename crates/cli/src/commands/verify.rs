//! `ressa verify`: digests of files, certificates recounted on weights, scores computed again from predictions.

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

impl VerifyOptions {
    /// Whether all that is selected is verified, and words are experiments.
    fn is_whole(&self) -> bool {
        self.all || !self.filters.filter.is_empty()
    }

    fn selection(&self) -> Selection {
        let words = self.which.iter().filter(|_| self.is_whole());
        let what = words.chain(&self.files).cloned().collect();
        Selection { what, filters: self.filters.clone(), partition: None }
    }
}

/// Verifies what is selected; names what does not hold.
pub fn run(global: &Global, options: &VerifyOptions) -> Outcome {
    let is_whole = options.is_whole();
    let folders = options.which.iter().filter(|word| !is_whole && verify_folder::is_folder(word)).count();
    if folders > 0 && folders == options.which.len() {
        return verify_folder::run(global, options);
    }
    if folders > 0 {
        return Err(Failure::new(Exit::Usage, "folders and runs are verified with a command each"));
    }
    let claims = options.pattern.is_some() || options.sparsity.is_some() || !options.towers.is_empty();
    let is_place = |word: &&String| claims || (!is_whole && word.contains(std::path::MAIN_SEPARATOR));
    if let Some(word) = options.which.iter().find(is_place) {
        return Err(Failure::new(Exit::MissingInput, format!("there is no folder `{word}`")));
    }
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let study = Study::load(&workspace, &options.selection())?;
    let graph = study.graph(true);
    let mut positions: Vec<usize> = Vec::new();
    if is_whole {
        let stored = |stage: &usize| store.contains(&graph.stages[*stage].node.key.hex());
        positions.extend(study.selected(&graph).into_iter().filter(stored));
    }
    for word in options.which.iter().filter(|_| !is_whole) {
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
    let rescored = verdicts.iter().filter(|verdict| verdict.rescored).count();
    if global.json {
        say_json(&json!(verdicts));
    } else {
        let checked = count(verdicts.len() - absent, "stage");
        let (certificates, scores) = (count(recounted, "certificate"), count(rescored, "score"));
        say(format_args!(
            "{checked} checked, {certificates} recounted, {scores} computed again, {wrong} wrong, {absent} not made yet"
        ));
    }
    Ok(if wrong > 0 { Exit::NotVerified } else { Exit::Done })
}

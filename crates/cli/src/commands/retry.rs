//! `ressa retry`: forget failures, so that the next sweep tries again.

use std::collections::HashSet;

use ressa_experiment::protocol::FailureKind;
use ressa_sweep::{clear_failure, read_failures};
use serde_json::json;

use crate::{
    arguments::{Global, RetryOptions, Selection},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{count, say, say_json},
    workspace::Workspace,
};

/// Clears the selected records.
pub fn run(global: &Global, options: &RetryOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let mut records = read_failures(&store);
    if !options.filters.filter.is_empty() {
        let (what, filters) = (options.files.clone(), options.filters.clone());
        let study = Study::load(&workspace, &Selection { what, filters, partition: None })?;
        let graph = study.graph(true);
        let selected: HashSet<usize> = study.selected(&graph).into_iter().collect();
        records.retain(|record| graph.position(&record.key).is_some_and(|stage| selected.contains(&stage)));
    }
    if let Some(word) =
        options.keys.iter().find(|word| !records.iter().any(|record| record.key.hex().starts_with(*word)))
    {
        let message = format!("no stage that failed has a key beginning with `{word}`; `ressa logs` lists them");
        return Err(Failure::new(Exit::NothingSelected, message));
    }
    let selected: Vec<_> = records
        .iter()
        .filter(|record| options.keys.is_empty() || options.keys.iter().any(|word| record.key.hex().starts_with(word)))
        .filter(|record| !options.oom || record.failure.kind == FailureKind::Oom)
        .collect();
    for record in &selected {
        clear_failure(&store, &record.key)?;
    }
    if global.json {
        say_json(&json!({ "cleared": selected.iter().map(|record| &record.key).collect::<Vec<_>>() }));
    } else {
        for record in &selected {
            say(format_args!("{}  {}  {}", record.key.short(), record.what, record.failure.message));
        }
        let what = count(selected.len(), "failure");
        say(format_args!("{what} cleared{}", if selected.is_empty() { "" } else { "; the next sweep tries again" }));
    }
    Ok(Exit::Done)
}

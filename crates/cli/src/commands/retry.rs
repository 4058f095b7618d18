//! `ressa retry`: forget failures, so that the next sweep tries again.

use std::collections::HashSet;

use ressa_experiment::protocol::FailureKind;
use ressa_runlog::{FailureRecord, Log, LogEvent, read};
use ressa_sweep::{CoordinatorLock, DEFAULT_LEASE, failures};
use serde_json::json;

use crate::{
    arguments::{Global, RetryOptions, Selection},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{count, say, say_json},
    workspace::{Workspace, program},
};

/// Clears the selected records.
pub fn run(global: &Global, options: &RetryOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let reading = read(&store)?;
    let mut records = failures(reading.index.failures(), &store);
    if !options.filters.filter.is_empty() {
        let (what, filters) = (options.files.clone(), options.filters.clone());
        let study = Study::load(&workspace, &Selection { what, filters, partition: None })?;
        let graph = study.graph(true);
        let selected: HashSet<usize> = study.selected(&graph).into_iter().collect();
        records.retain(|record| graph.position(&record.key).is_some_and(|stage| selected.contains(&stage)));
    }
    if let Some(word) =
        options.keys.iter().find(|word| !records.iter().any(|record| record.key.hex().starts_with(word.as_str())))
    {
        let message = format!("no stage that failed has a key beginning with `{word}`; `ressa logs` lists them");
        return Err(Failure::new(Exit::NothingSelected, message));
    }
    let is_named = |record: &FailureRecord| {
        options.keys.is_empty() || options.keys.iter().any(|word| record.key.hex().starts_with(word.as_str()))
    };
    let selected: Vec<&FailureRecord> = records
        .into_iter()
        .filter(|record| is_named(record))
        .filter(|record| !options.oom || record.failure.kind == FailureKind::Oom)
        .collect();
    if !selected.is_empty() {
        // One process writes the log at a time.
        let _lock = CoordinatorLock::acquire(&workspace.results, DEFAULT_LEASE)?;
        let store = workspace.store()?;
        let mut log = Log::begin(&store, &program())?;
        ressa_runlog::take_over(&store, &mut log)?;
        for record in &selected {
            log.write(LogEvent::Retried { key: record.key })?;
        }
        log.settle()?;
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

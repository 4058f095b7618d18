//! `ressa retry`: forget failures, so that the next sweep tries again.

use ressa_experiment::protocol::FailureKind;
use ressa_sweep::{clear_failure, read_failures};
use serde_json::json;

use crate::{
    arguments::{Global, RetryOptions},
    exit::{Exit, Failure, Outcome},
    text::{count, say, say_json},
    workspace::Workspace,
};

/// Clears the selected records.
pub fn run(global: &Global, options: &RetryOptions) -> Outcome {
    let store = Workspace::find(global)?.reading();
    let records = read_failures(&store);
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

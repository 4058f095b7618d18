//! `ressa logs`: failed stages, and the log of one.

use ressa_sweep::read_failures;
use serde_json::json;

use crate::{
    arguments::{Global, LogsOptions},
    exit::{Exit, Failure, Outcome},
    text::{say, say_json},
    workspace::Workspace,
};

/// Lists failures, or prints a log.
pub fn run(global: &Global, options: &LogsOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let records = read_failures(&workspace.reading());
    let Some(word) = &options.key else {
        if global.json {
            say_json(&json!(records));
        } else if records.is_empty() {
            say(format_args!(
                "no stage has failed; workers log to {}",
                workspace.show(&workspace.results.join("logs"))
            ));
        }
        for record in records.iter().filter(|_| !global.json) {
            say(format_args!("{}  {}  {}", record.key.short(), record.what, record.label));
            say(format_args!("    {}", record.failure.message));
        }
        return Ok(Exit::Done);
    };
    let Some(record) = records.iter().find(|record| record.key.hex().starts_with(word.as_str())) else {
        let message = format!("no stage that failed has a key beginning with `{word}`; `ressa logs` lists them");
        return Err(Failure::new(Exit::NothingSelected, message));
    };
    let log = record.failure.log.as_ref().and_then(|path| std::fs::read(path).ok());
    let log = log.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if global.json {
        say_json(&json!({ "record": record, "log": log }));
        return Ok(Exit::Done);
    }
    say(format_args!("{}  {}\n{}\n", record.what, record.label, record.failure.message));
    say(log.filter(|text| !text.trim().is_empty()).as_deref().unwrap_or("the worker logged nothing").trim_end());
    Ok(Exit::Done)
}

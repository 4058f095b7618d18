//! `ressa retry`: forget failures, so that the sweep that runs, or else the next one, tries again.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use ressa_experiment::{StageKey, protocol::FailureKind};
use ressa_runlog::{FailureRecord, Log, LogEvent, read};
use ressa_sweep::{CoordinatorLock, DEFAULT_LEASE, SweepError, Wish, failures};
use serde_json::json;

use crate::{
    arguments::{Global, RetryOptions, Selection},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{count, say, say_json},
    workspace::{Workspace, program},
};

/// How long a running sweep is waited for: it looks once a second.
const ANSWER: Duration = Duration::from_secs(5);

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
    let taken = if selected.is_empty() { Taken::Next } else { clear(&workspace, &selected)? };
    if global.json {
        let cleared: Vec<&StageKey> = selected.iter().map(|record| &record.key).collect();
        say_json(&json!({ "cleared": cleared, "by": taken.name() }));
    } else {
        for record in &selected {
            say(format_args!("{}  {}  {}", record.key.short(), record.what, record.failure.message));
        }
        let what = count(selected.len(), "failure");
        let then = match taken {
            _ if selected.is_empty() => "",
            Taken::Next => "; the next sweep tries again",
            Taken::Running => "; the running sweep tries again what is its own",
            Taken::Pending => "; the running sweep was asked to try again, and has not answered yet",
        };
        say(format_args!("{what} cleared{then}"));
    }
    Ok(Exit::Done)
}

/// Who tries the stages again.
enum Taken {
    /// The next sweep.
    Next,
    /// The one that runs.
    Running,
    /// The one that runs, which has not taken the wish within some seconds; if it ends before it does, the next one.
    Pending,
}

impl Taken {
    /// The name in JSON.
    fn name(&self) -> &'static str {
        match self {
            Taken::Next => "next",
            Taken::Running => "running",
            Taken::Pending => "pending",
        }
    }
}

/// Clears records: in the log, or, while a sweep writes it, by asking that sweep.
fn clear(workspace: &Workspace, selected: &[&FailureRecord]) -> Result<Taken, Failure> {
    let lock = match CoordinatorLock::acquire(&workspace.results, DEFAULT_LEASE) {
        Ok(lock) => lock,
        Err(SweepError::Busy { .. }) => {
            let keys: Vec<StageKey> = selected.iter().map(|record| record.key).collect();
            let wish = Wish::retry(&workspace.results, &keys)?;
            let start = Instant::now();
            while !wish.is_taken() {
                if start.elapsed() > ANSWER {
                    return Ok(Taken::Pending);
                }
                thread::sleep(Duration::from_millis(50));
            }
            return Ok(Taken::Running);
        }
        Err(error) => return Err(error.into()),
    };
    let store = workspace.store()?;
    let mut log = Log::begin(&store, &program())?;
    ressa_runlog::take_over(&store, &mut log)?;
    for record in selected {
        log.write(LogEvent::Retried { key: record.key })?;
    }
    log.settle()?;
    drop(lock);
    Ok(Taken::Next)
}

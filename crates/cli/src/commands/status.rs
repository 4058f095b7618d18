//! `ressa status`: how far experiments are.

use ressa_experiment::StageKey;
use ressa_sweep::{failures, glance, is_retried, live_status, running_coordinator};
use serde_json::json;

use crate::{
    arguments::{Global, MachineOptions, StatusOptions},
    commands::watch::{self, is_stale, render},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{columns, count, say, say_json},
    workspace::Workspace,
};

/// Prints what runs, one line per experiment, then what failed.
pub fn run(global: &Global, options: &StatusOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    if options.watch {
        if !options.selection.filters.filter.is_empty() || options.selection.partition.is_some() {
            let message = "--watch shows a whole sweep; leave out -E and --partition, or --watch";
            return Err(Failure::new(Exit::Usage, message));
        }
        return watch::watch(&workspace, global.json);
    }
    let store = workspace.reading();
    let running = running_coordinator(&workspace.results);
    let live = live_status(&workspace.results).filter(|live| !live.ended && !is_stale(live));
    // On one machine the lock knows better.
    let live = live.filter(|live| running.is_some() || live.host != ressa_runlog::host());
    let selection = &options.selection;
    let is_whole = selection.what.is_empty() && selection.filters.filter.is_empty() && selection.partition.is_none();
    if let Some(live) = live.as_ref().filter(|_| is_whole && !global.json) {
        // What the coordinator counts need not be counted again.
        say(render(live).trim_end());
        return Ok(Exit::Done);
    }
    let study = Study::load(&workspace, &options.selection)?;
    let now = workspace.sweep_options(&MachineOptions::default()).circumstances();
    let graph = study.graph(true);
    let present = glance(&graph, &store).present;

    let mut rows = vec![["experiment", "runs", "complete", "stages", "made"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for experiment in study.parts() {
        let is_made = |key: &StageKey| graph.position(key).is_some_and(|stage| present[stage]);
        let (runs, stages) = (experiment.runs(), experiment.stages());
        let complete = runs.iter().filter(|run| run.stages.iter().all(|node| is_made(&node.key))).count();
        let made = stages.iter().filter(|node| is_made(&node.key)).count();
        let figures = [runs.len(), complete, stages.len(), made];
        list.push(json!({
            "experiment": experiment.name, "runs": figures[0], "complete": figures[1], "stages": figures[2], "made": figures[3],
        }));
        rows.push(std::iter::once(experiment.name.clone()).chain(figures.map(|n| n.to_string())).collect());
    }
    let log = ressa_runlog::read(&store)?;
    let (failed, others): (Vec<_>, Vec<_>) =
        failures(&log.index, &store).into_iter().partition(|record| graph.position(&record.key).is_some());

    if global.json {
        say_json(&json!({ "running": running, "live": live, "experiments": list, "failures": failed }));
        return Ok(Exit::Done);
    }
    match (running, &live) {
        (Some(pid), _) => say(format_args!("a sweep is running (process {pid})\n")),
        // The lock of another machine's coordinator is not always seen here.
        (None, Some(live)) => say(format_args!("a sweep is running (process {} on {})\n", live.pid, live.host)),
        (None, None) => say("no sweep is running\n"),
    }
    say(columns(&rows).trim_end());
    if !failed.is_empty() {
        say(format_args!("\n{} failed:", count(failed.len(), "stage")));
        for record in failed {
            let again = if is_retried(record, &now) { "; the next sweep tries again" } else { "" };
            say(format_args!("  {}  {}  {}{again}", record.key.short(), record.what, record.failure.message));
        }
    }
    if !others.is_empty() {
        let others = count(others.len(), "stage");
        say(format_args!("\n{others} of other experiments failed; `ressa logs` lists all that failed"));
    }
    Ok(Exit::Done)
}

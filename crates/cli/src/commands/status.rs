//! `ressa status`: how far experiments are.

use ressa_sweep::{Graph, glance, read_failures, running_coordinator};
use serde_json::json;

use crate::{
    arguments::{Global, MachineOptions, Selection},
    exit::{Exit, Outcome},
    study::Study,
    text::{columns, count, say, say_json},
    workspace::Workspace,
};

/// Prints one line per experiment, then what failed.
pub fn run(global: &Global, selection: &Selection) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let study = Study::load(&workspace, selection)?;
    let now = workspace.sweep_options(&MachineOptions::default()).circumstances();
    let running = running_coordinator(&workspace.results);

    let mut rows = vec![["experiment", "runs", "complete", "stages", "made"].map(str::to_owned).to_vec()];
    let mut list = Vec::new();
    for experiment in &study.experiments {
        let graph = Graph::of([experiment], true);
        let present = glance(&graph, &store).present;
        let complete = graph.runs.iter().filter(|run| run.stages.iter().all(|&stage| present[stage])).count();
        let made = present.iter().filter(|&&present| present).count();
        let figures = [graph.runs.len(), complete, graph.stages.len(), made];
        list.push(json!({
            "experiment": experiment.name, "runs": figures[0], "complete": figures[1], "stages": figures[2], "made": figures[3],
        }));
        rows.push(std::iter::once(experiment.name.clone()).chain(figures.map(|n| n.to_string())).collect());
    }
    let graph = study.graph(true);
    let failures: Vec<_> =
        read_failures(&store).into_iter().filter(|record| graph.position(&record.key).is_some()).collect();

    if global.json {
        say_json(&json!({ "running": running, "experiments": list, "failures": failures }));
        return Ok(Exit::Done);
    }
    match running {
        Some(pid) => say(format_args!("a sweep is running (process {pid})\n")),
        None => say("no sweep is running\n"),
    }
    say(columns(&rows).trim_end());
    if !failures.is_empty() {
        say(format_args!("\n{} failed:", count(failures.len(), "stage")));
        for record in failures {
            let again = if record.is_retried(&now) { "; the next sweep tries again" } else { "" };
            say(format_args!("  {}  {}  {}{again}", record.key.short(), record.what, record.failure.message));
        }
    }
    Ok(Exit::Done)
}

//! `ressa plan`: what a sweep would do, without doing it.

use ressa_experiment::Stage;
use ressa_store::Store;
use ressa_sweep::{Estimates, FailureRecord, Graph, GraphStage, Inventory, glance, read_failures};
use serde_json::json;

use crate::{
    arguments::{Global, Selection},
    exit::{Exit, Outcome},
    missing::{Missing, missing},
    study::{Study, last_used, short},
    text::{columns, count, duration, say, say_json},
    workspace::Workspace,
};

/// Prints the plan of the selected experiments.
pub fn run(global: &Global, selection: &Selection) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.store()?;
    let study = Study::load(&workspace, selection)?;
    let graph = study.graph(true);
    let inventory = glance(&graph, &store);
    let estimates = Estimates::from_journal(&store);
    let slots = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan::new(&graph, &inventory, &estimates, &store, slots);
    let lacking = missing(&graph, &inventory, &workspace.root);
    if global.json {
        say_json(&plan.json(&study, &graph, &inventory, &lacking));
    } else {
        print(&plan, &study, &graph, &inventory, &lacking, global.verbose);
    }
    Ok(Exit::Done)
}

/// The figures of a plan.
pub struct Plan {
    /// Kind, distinct stages, cached ones, estimated seconds of the others.
    kinds: Vec<(&'static str, usize, usize, f64)>,
    /// Runs whose every stage is cached.
    complete: usize,
    /// Stages that failed earlier and are not tried again.
    failed: usize,
    /// Estimated wall seconds.
    seconds: f64,
    slots: usize,
    has_history: bool,
    /// Whether a published checkpoint was never used here: times of other models say nothing about it.
    is_unknown: bool,
    /// Checkpoint folders that are not what earlier results were made from.
    changed: Vec<String>,
}

impl Plan {
    /// Figures of a graph, given what is in the store.
    pub fn new(graph: &Graph, inventory: &Inventory, estimates: &Estimates, store: &Store, slots: usize) -> Self {
        let mut kinds: Vec<(&'static str, usize, usize, f64)> =
            graph.kinds().into_iter().map(|(kind, distinct)| (kind, distinct, 0, 0.0)).collect();
        for (stage, present) in graph.stages.iter().zip(&inventory.present) {
            let Some(row) = kinds.iter_mut().find(|row| row.0 == stage.node.stage.kind()) else { continue };
            if *present {
                row.2 += 1;
                continue;
            }
            row.3 += estimates.seconds(&stage.node.stage);
        }
        let is_open = |record: &FailureRecord| {
            !record.is_retried() && graph.position(&record.key).is_some_and(|stage| !inventory.present[stage])
        };
        let failed = read_failures(store).iter().filter(|record| is_open(record)).count();
        let complete = graph.runs.iter().filter(|run| run.stages.iter().all(|&s| inventory.present[s])).count();
        let work: f64 = kinds.iter().map(|row| row.3).sum();
        // A dense model is one stage that everything waits for, so it is not divided by the number of workers.
        let dense = kinds.iter().find(|row| row.0 == "dense").map_or(0.0, |row| row.3);
        let seconds = dense + (work - dense) / slots.max(1) as f64;
        let is_new_checkpoint = |(stage, present): (&GraphStage, &bool)| {
            !present && matches!(*stage.node.stage, Stage::Dense { checkpoint: Some(_), .. })
        };
        let is_unknown = graph.stages.iter().zip(&inventory.present).any(is_new_checkpoint);
        let is_changed = |(stage, &present): (&GraphStage, &bool)| match &*stage.node.stage {
            Stage::Dense { checkpoint: Some(folder), fingerprint: Some(now), .. } if !present => {
                last_used(store, folder).filter(|before| before != now).map(|_| folder.clone())
            }
            _ => None,
        };
        let changed = graph.stages.iter().zip(&inventory.present).filter_map(is_changed).collect();
        Self { changed, kinds, complete, failed, seconds, slots, has_history: estimates.has_history(), is_unknown }
    }

    /// Stages to be made.
    pub fn to_do(&self) -> usize {
        self.kinds.iter().map(|(_, distinct, cached, _)| distinct - cached).sum()
    }

    fn json(&self, study: &Study, graph: &Graph, inventory: &Inventory, lacking: &[Missing]) -> serde_json::Value {
        json!({
            "experiments": study.experiments.iter().map(|e| json!({"name": e.name, "cells": e.cells.len()})).collect::<Vec<_>>(),
            "runs": graph.runs.len(),
            "complete": self.complete,
            "stages": {
                "distinct": graph.stages.len(),
                "unshared": graph.unshared(),
                "cached": graph.stages.len() - self.to_do(),
                "to-do": self.to_do(),
                "kinds": self.kinds.iter().map(|(kind, distinct, cached, seconds)| json!({
                    "kind": kind, "distinct": distinct, "cached": cached, "to-do": distinct - cached, "seconds": seconds,
                })).collect::<Vec<_>>(),
            },
            "failed-earlier": self.failed,
            "estimate": { "seconds": self.seconds, "slots": self.slots, "from-history": self.has_history, "unknown": self.is_unknown },
            "changed-checkpoints": self.changed,
            "missing": lacking,
            "list": graph.runs.iter().map(|run| json!({
                "run": run.id,
                "label": run.label,
                "to-do": run.stages.iter().filter(|&&s| !inventory.present[s]).map(|&s| &graph.stages[s].node.key).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

fn print(plan: &Plan, study: &Study, graph: &Graph, inventory: &Inventory, lacking: &[Missing], verbose: bool) {
    for experiment in &study.experiments {
        say(format_args!("{:<14} {}", experiment.name, count(experiment.cells.len(), "cell")));
    }
    let (distinct, unshared) = (graph.stages.len(), graph.unshared());
    let factor = unshared as f64 / distinct.max(1) as f64;
    say(format_args!(
        "\n{}, {} complete\n{} where {unshared} would run without sharing ({factor:.1} to 1)",
        count(graph.runs.len(), "distinct run"),
        plan.complete,
        count(distinct, "distinct stage"),
    ));
    let mut rows = vec![["stage", "distinct", "cached", "to do", "estimated"].map(str::to_owned).to_vec()];
    for (kind, distinct, cached, seconds) in &plan.kinds {
        let to_do = distinct - cached;
        let time = match (to_do, plan.is_unknown) {
            (0, _) => String::new(),
            (_, true) => "?".to_owned(),
            (_, false) => duration(*seconds),
        };
        rows.push(vec![(*kind).to_owned(), distinct.to_string(), cached.to_string(), to_do.to_string(), time]);
    }
    say(format_args!("\n{}", columns(&rows)));
    if plan.to_do() == 0 {
        say("everything is cached");
    } else if plan.is_unknown {
        say("how long it takes is not known: nothing was timed with this checkpoint yet");
    } else {
        let source =
            if plan.has_history { "from the times of earlier stages" } else { "a guess: nothing was timed here yet" };
        say(format_args!("about {} with {} ({source})", duration(plan.seconds), count(plan.slots, "worker")));
    }
    for folder in &plan.changed {
        say(format_args!("`{folder}` is not what earlier results were made from: what reads it is made again"));
    }
    if plan.failed > 0 {
        say(format_args!(
            "{} failed earlier and will not be tried again; `ressa logs` shows why, `ressa retry` clears them",
            count(plan.failed, "stage")
        ));
    }
    if !lacking.is_empty() {
        say("\nmissing");
        for file in lacking {
            say(format_args!("  {}  ({})", file.path, file.what.join("; ")));
        }
    }
    if verbose {
        say("\nruns");
        for run in &graph.runs {
            let open = run.stages.iter().filter(|&&stage| !inventory.present[stage]).count();
            let state = if open == 0 { "complete".to_owned() } else { format!("{} to do", count(open, "stage")) };
            say(format_args!("  {}  {}  ({state})", short(&run.id), run.label));
        }
    }
}

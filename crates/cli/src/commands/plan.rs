//! `ressa plan`: what a sweep would do, without doing it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ressa_contents::Findings;
use ressa_runlog::{FailureRecord, Index, read};
use ressa_store::Store;
use ressa_sweep::{Estimates, Graph, GraphStage, Inventory, Options, expected_seconds, glance, is_retried};
use serde_json::json;

use crate::{
    arguments::{Global, MachineOptions, PlanOptions},
    commands::forecast::{Forecast, forecasts},
    exit::{Exit, Outcome},
    memory,
    missing::{Missing, missing},
    preflight::{Preflight, refusal},
    reuse::mixture,
    study::{Study, short},
    text::{columns, count, duration, note, say, say_json},
    workspace::Workspace,
};

/// Prints the plan of the selected experiments.
pub fn run(global: &Global, options: &PlanOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let mut study = Study::load(&workspace, &options.selection)?;
    study.check_reports(&workspace)?.iter().filter(|_| !global.quiet).for_each(note);
    let graph = study.graph(true);
    let inventory = glance(&graph, &store);
    // As a sweep that is told nothing about the machine.
    let mut machine = workspace.sweep_options(&MachineOptions::default());
    memory::bound(&mut machine, &graph, &workspace.root, || None);
    let log = read(&store)?;
    let estimates = Estimates::of(&log.index, |device| device == machine.machine);
    let plan = Plan::new(&graph, &inventory, &estimates, (&store, &log.index), &machine, &study.findings);
    let lacking = missing(&graph, &inventory, &store, &workspace.root);
    let forecasts = forecasts(options, &workspace, &graph, &inventory, (&store, &log.index))?;
    let mut preflight = Preflight::of(&graph, &inventory, &store, &workspace.root);
    preflight.note_steps(&study.experiments);
    if forecasts.is_empty() {
        preflight.note_arithmetic(&graph, &inventory, &machine.workers());
    }
    if global.json {
        let mut answer = plan.json(&study, &graph, &inventory, &lacking);
        answer["problems"] = json!(preflight.problems);
        answer["notes"] = json!(preflight.notes);
        if !forecasts.is_empty() {
            answer["devices"] = forecasts.iter().map(Forecast::json).collect();
        }
        say_json(&answer);
    } else {
        print(&plan, &study, &graph, &inventory, &lacking, &forecasts, global.verbose);
        preflight.print();
    }
    // As the sweep would end here: a script asks with the plan. For a card that is elsewhere, files may be elsewhere too.
    let lacking = if forecasts.is_empty() { &lacking[..] } else { &[] };
    let exit = refusal(lacking, &preflight).map_or(Exit::Done, |(exit, _)| exit);
    // The process ends: a million small parts need not be freed one by one.
    std::mem::forget((study, graph));
    Ok(exit)
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
    /// Whether stages of a published checkpoint were never timed here: times of other models say nothing about them.
    is_unknown: bool,
    /// What is said where cached results round differently.
    mixture: Option<String>,
    /// Folders that are not what earlier results were made from.
    changed: Vec<String>,
}

impl Plan {
    /// Figures of a graph, given what is in the store.
    pub fn new(
        graph: &Graph,
        inventory: &Inventory,
        estimates: &Estimates,
        (store, index): (&Store, &Index),
        options: &Options,
        findings: &Findings,
    ) -> Self {
        let mut kinds: Vec<(&'static str, usize, usize, f64)> =
            graph.kinds().into_iter().map(|(kind, distinct)| (kind, distinct, 0, 0.0)).collect();
        for (stage, present) in graph.stages.iter().zip(&inventory.present) {
            let Some(row) = kinds.iter_mut().find(|row| row.0 == stage.node.stage.kind()) else { continue };
            if *present {
                row.2 += 1;
                continue;
            }
            row.3 += estimates.seconds(stage);
        }
        let (slots, now) = (options.workers().len(), options.circumstances());
        let is_open = |record: &FailureRecord| {
            !is_retried(record, &now) && graph.position(&record.key).is_some_and(|stage| !inventory.present[stage])
        };
        let failed = index.failures().into_iter().filter(|record| is_open(record)).count();
        let complete = graph.runs.iter().filter(|run| run.stages.iter().all(|&s| inventory.present[s])).count();
        let seconds = expected_seconds(graph, inventory, estimates, slots);
        let open =
            || graph.stages.iter().zip(&inventory.present).filter(|(_, present)| !**present).map(|(stage, _)| stage);
        let is_untimed = |stage: &GraphStage| !stage.is_embedded && estimates.timed(stage).is_none();
        let is_unknown = open().any(is_untimed);
        let has_history = open().any(|stage| estimates.timed(stage).is_some());
        let reads = open().flat_map(|stage| stage.node.readings.iter()).map(|reading| &reading.place);
        let reads: BTreeSet<PathBuf> = reads.map(|place| Path::new(place).components().collect()).collect();
        let changed = findings.changed.iter().filter(|place| reads.contains(Path::new(place))).cloned().collect();
        let mixture = mixture(graph, inventory, store, index);
        Self { mixture, changed, kinds, complete, failed, seconds, slots, has_history, is_unknown }
    }

    /// Stages to be made.
    pub fn to_do(&self) -> usize {
        self.kinds.iter().map(|(_, distinct, cached, _)| distinct - cached).sum()
    }

    fn json(&self, study: &Study, graph: &Graph, inventory: &Inventory, lacking: &[Missing]) -> serde_json::Value {
        json!({
            "experiments": study.experiments.iter().map(|e| json!({"name": e.name, "cells": e.cells.len()})).collect::<Vec<_>>(),
            "selection": study.selection,
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
            "changed-folders": self.changed,
            "mixture": self.mixture,
            "missing": lacking,
            "list": graph.runs.iter().map(|run| json!({
                "run": run.id,
                "label": run.label,
                "to-do": run.stages.iter().filter(|&&s| !inventory.present[s]).map(|&s| &graph.stages[s].node.key).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        })
    }
}

fn print(
    plan: &Plan,
    study: &Study,
    graph: &Graph,
    inventory: &Inventory,
    lacking: &[Missing],
    forecasts: &[Forecast],
    verbose: bool,
) {
    for experiment in &study.experiments {
        say(format_args!("{:<14} {}", experiment.name, count(experiment.cells.len(), "cell")));
    }
    if !study.selection.is_empty() {
        let whole = if study.is_of_stages() { "selected stages, and what they read" } else { "selected" };
        say(format_args!("{whole}: {}", study.selection.join(" ")));
    }
    let (distinct, unshared) = (graph.stages.len(), graph.unshared());
    let factor = unshared as f64 / distinct.max(1) as f64;
    say(format_args!(
        "\n{}, {} complete\n{} where {unshared} would run without sharing ({factor:.1} to 1)",
        count(graph.runs.len(), "distinct run"),
        plan.complete,
        count(distinct, "distinct stage"),
    ));
    if forecasts.is_empty() {
        print_stages(plan);
    } else if plan.to_do() == 0 {
        say("\neverything is cached");
    } else {
        forecasts.iter().for_each(Forecast::print);
    }
    for folder in &plan.changed {
        say(format_args!("`{folder}` is not what earlier results were made from: what reads it is made again"));
    }
    if let Some(line) = &plan.mixture {
        say(line);
    }
    if plan.failed > 0 {
        say(format_args!(
            "{} failed earlier and will not be tried again; `ressa logs` shows why, `ressa retry` clears them",
            count(plan.failed, "stage")
        ));
    }
    for (unusable, head) in [(false, "\nmissing"), (true, "\ncannot be used")] {
        for (number, file) in lacking.iter().filter(|file| file.unusable == unusable).enumerate() {
            if number == 0 {
                say(head);
            }
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

/// The stages by kind, and how long they take here.
fn print_stages(plan: &Plan) {
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
        say(
            "how long it takes is not known: not all of it was timed with this checkpoint here; `--device h100` predicts it for a card",
        );
    } else {
        let source =
            if plan.has_history { "from the times of earlier stages" } else { "a guess: nothing was timed here yet" };
        say(format_args!("about {} with {} ({source})", duration(plan.seconds), count(plan.slots, "worker")));
    }
}

//! How long stages are expected to take.

use std::fs;

use ressa_experiment::{
    config::{Metric, RestoreMethod},
    model::ModelConfig,
};
use ressa_store::read_journal;
use ressa_sweep::{Estimates, Graph, GraphStage};
use serde_json::json;

use crate::bench::{Bench, cell, cells, graph, run};

/// A journal with one line per item.
fn journal(bench: &Bench, lines: &[serde_json::Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(bench.store.root().join("journal.jsonl"), text).unwrap();
}

fn line(model: &str, device: &str, kind: &str, detail: &str, seconds: f64) -> serde_json::Value {
    json!({ "key": "ab", "kind": kind, "detail": detail, "model": model, "device": device,
        "seconds": seconds, "cpu_seconds": 0.0, "pid": 1 })
}

fn stage<'g>(graph: &'g Graph, kind: &str) -> &'g GraphStage {
    graph.stages.iter().find(|stage| stage.node.stage.kind() == kind).unwrap()
}

#[test]
fn times_are_those_of_the_model_and_the_device() {
    let bench = Bench::new();
    journal(
        &bench,
        &[
            line("shapes-flant5", "cpu", "adapt", "", 20.0),
            line("shapes-flant5", "NVIDIA H100 80GB HBM3", "adapt", "", 2.0),
            line("checkpoints/large", "NVIDIA H100 80GB HBM3", "adapt", "", 900.0),
            line("checkpoints/large", "NVIDIA H100 80GB HBM3", "prune", "vision", 4.0),
        ],
    );
    let small = graph(&cells());
    let mut large = run(Metric::Wanda, RestoreMethod::SparseLora, 0);
    large.model = ModelConfig { checkpoint: Some("checkpoints/large".into()), ..ModelConfig::default() };
    let large = graph(&[cell(large)]);
    let on = |device: &str| Estimates::from_journal(&bench.store, |known| known == device);
    let (cpu, gpu) = (on("cpu"), on("NVIDIA H100 80GB HBM3"));
    assert_eq!(cpu.timed(stage(&small, "adapt")), Some(20.0));
    assert_eq!(gpu.timed(stage(&small, "adapt")), Some(2.0));
    assert_eq!(gpu.timed(stage(&large, "adapt")), Some(900.0));
    assert_eq!(cpu.timed(stage(&large, "adapt")), None);
    // A kind that was timed stands for its other sorts, another kind does not.
    let language = large.stages.iter().filter(|stage| stage.node.stage.kind() == "prune").nth(1).unwrap();
    assert_eq!(gpu.timed(language), Some(4.0));
    assert_eq!(gpu.timed(stage(&large, "evaluate")), None);
}

#[test]
fn lines_of_earlier_versions_are_times_of_the_embedded_world_on_a_cpu() {
    let bench = Bench::new();
    journal(
        &bench,
        &[json!({ "key": "ab", "kind": "adapt", "detail": "", "seconds": 30.0, "cpu_seconds": 0.0, "pid": 1 })],
    );
    let graph = graph(&cells());
    let on = |device: &str| Estimates::from_journal(&bench.store, |known| known == device);
    assert_eq!(on("cpu").timed(stage(&graph, "adapt")), Some(30.0));
    assert_eq!(on("cuda").timed(stage(&graph, "adapt")), None);
}

#[test]
fn a_sweep_writes_down_which_model_ran_on_what() {
    let bench = Bench::new();
    let graph = graph(&cells());
    bench.sweep(&graph);
    let lines = read_journal(&bench.store);
    assert_eq!(lines.len(), graph.stages.len());
    assert!(lines.iter().all(|line| (line.model.as_str(), line.device.as_str()) == ("shapes-flant5", "cpu")));
    let estimates = Estimates::from_journal(&bench.store, |device| device == "cpu");
    assert!(graph.stages.iter().all(|stage| estimates.timed(stage).is_some()));
}

//! The dense gate.

use ressa_experiment::{
    Gate, Task,
    config::{Metric, RestoreMethod},
};
use ressa_sweep::Graph;
use serde_json::json;

use crate::bench::{Bench, cell, cells, run};

fn gated() -> Graph {
    gated_at(0.0)
}

/// The same of a model with planted channel scales.
fn gated_at(spread: f64) -> Graph {
    let mut dense = run(Metric::None, RestoreMethod::None, 0);
    dense.model.channel_spread = spread;
    dense.prune.vision.sparsity = 0.0;
    dense.prune.language.sparsity = 0.0;
    dense.evaluate.tasks = vec![Task::Vqav2, Task::Gqa];
    let cells = if spread > 0.0 { vec![cell(dense.clone())] } else { cells() };
    let stages = cell(dense).stages;
    let first = stages.len() - 2;
    let gate = Gate {
        model_name: "shapes-flant5".to_owned(),
        evaluate: stages[first..].to_vec(),
        floors: [("vqav2".to_owned(), 90.0), ("gqa".to_owned(), 60.0)].into(),
    };
    Graph::new("test", &cells, &[gate])
}

#[test]
fn a_dense_model_below_its_gate_stops_the_sweep_before_anything_is_pruned() {
    let bench = Bench::new();
    bench.instruct(json!({ "evaluate vqav2": { "score": 91.0 }, "evaluate gqa": { "score": 59.9 } }));
    let summary = bench.sweep(&gated());
    assert!(summary.gate_failed);
    let found: Vec<_> = summary.gate.iter().map(|check| (check.name.as_str(), check.found, check.passes())).collect();
    assert_eq!(found, [("vqav2", Some(91.0), true), ("gqa", Some(59.9), false)]);
    // The dense model and the two evaluations of it.
    assert_eq!(summary.totals.made, 3);
}

#[test]
fn a_dense_model_that_passes_lets_the_sweep_go_on() {
    let bench = Bench::new();
    bench.instruct(json!({ "evaluate": { "score": 95.0 } }));
    let summary = bench.sweep(&gated());
    assert!(!summary.gate_failed);
    assert_eq!((summary.complete, summary.totals.made), (4, 19));
}

#[test]
fn a_rescaled_model_is_gated_behind_the_model_it_is_made_of() {
    let bench = Bench::new();
    bench.instruct(json!({ "evaluate vqav2": { "score": 91.0 }, "evaluate gqa": { "score": 59.9 } }));
    let summary = bench.sweep(&gated_at(0.7));
    assert!(summary.gate_failed);
    assert_eq!(summary.gate[0].model, "dense shapes-flant5, rescale channels 0.7");
    // The dense model, the rescaled one and two evaluations of it.
    assert_eq!(summary.totals.made, 4);
}

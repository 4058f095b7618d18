//! A training on a device that is too small for it: recomputed, in ever smaller parts, with the same result within rounding.

use std::path::Path;

use ressa_experiment::{Experiment, Stage, StageNode};
use ressa_store::Store;
use ressa_testkit::stand_in::{StandIn, reports};
use serde_json::Value;

use crate::{
    Machine, repository,
    worker::{Worker, program},
};

/// Trains on a device of so many bytes. Gives the stage's result and the peak of memory.
fn train(root: &Path, name: &str, inputs: &Path, node: &StageNode, bytes: Option<u64>) -> (Value, u64) {
    let (store, report) = (root.join(name), root.join(format!("{name}.report")));
    let mut command = program("serve", "cuda:0");
    StandIn { bytes, ..StandIn::new() }.lend(&mut command, &report);
    command.arg("--shipped").arg(inputs).arg("--shipped").arg(repository().join("experiments/store"));
    let mut worker = Worker::spawn(command, &store);
    let event = worker.execute(node);
    assert!(matches!(event, ressa_experiment::protocol::Event::Done { .. }), "{name}: {event:?}");
    worker.finish();
    let manifest = Store::open(&store, Vec::new()).unwrap().require(&node.key.hex()).unwrap().manifest;
    (manifest.result, reports(&report).pop().unwrap().peak_bytes[0])
}

#[test]
fn a_training_that_does_not_fit_takes_the_same_steps_in_less_memory() {
    let root = tempfile::tempdir().unwrap();
    let experiments = repository().join("experiments");
    let experiment = Experiment::load(&experiments.join("shapes/smoke.yaml"), &experiments, &[]).unwrap();
    let nodes: Vec<StageNode> = experiment.stages().into_iter().map(|node| (**node).clone()).collect();
    let before = |node: &&StageNode| matches!(*node.stage, Stage::Dense { .. } | Stage::Prune { .. });
    let inputs = root.path().join("inputs");
    Machine::Cpu.execute(&inputs, &nodes.iter().filter(before).cloned().collect::<Vec<_>>());
    let training = nodes.iter().find(|node| matches!(*node.stage, Stage::Adapt { .. })).expect("a training");

    let (whole, peak) = train(root.path(), "whole", &inputs, training, None);
    assert!(whole.get("recompute").is_none() && whole.get("micro-batch").is_none(), "{whole}");
    let (small, less) = train(root.path(), "small", &inputs, training, Some(peak / 2));
    assert_eq!(small["recompute"], "blocks", "{small}");
    assert!(less <= peak / 2);
    let loss = |result: &Value| result["last-loss"].as_f64().unwrap();
    assert!((loss(&whole) - loss(&small)).abs() <= 1e-3 * loss(&whole), "{whole} {small}");
}

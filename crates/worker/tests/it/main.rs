//! The worker as a process: requests in, events out, failures as data, and an end when its input ends.

mod pruning;
mod worker;

use std::{io::Write, path::Path};

use ressa_experiment::{
    RunConfig, StageNode,
    config::Metric,
    model::{ModelConfig, Preset},
    protocol::{Event, FailureKind, Request},
    stage::stages,
};
use ressa_store::Store;

use crate::worker::{Worker, program};

/// A worker on the CPU.
fn start(store: &Path) -> Worker {
    Worker::spawn(program("serve", "cpu"), store)
}

fn nodes() -> Vec<StageNode> {
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    run.dense.steps = Some(1);
    run.prune.metric = Metric::Magnitude;
    run.prune.vision.sparsity = 0.5;
    run.evaluate.questions = 8;
    run.evaluate.images = 4;
    stages(&run)
}

#[test]
fn stages_are_executed_once_and_failures_do_not_end_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = nodes();
    let mut worker = start(folder.path());
    let store = Store::open(folder.path(), Vec::new()).unwrap();

    // Asked for a stage whose input is not there, the worker says so and goes on.
    let Event::Failed { key, failure, .. } = worker.execute(&nodes[1]) else {
        panic!("a stage without its input fails")
    };
    assert_eq!((key, failure.kind), (nodes[1].key, FailureKind::Data));
    assert!(failure.message.contains("ressa sweep"), "{}", failure.message);

    for node in &nodes {
        assert!(matches!(worker.make(&store, node), Event::Done { attempt: 1, .. }));
    }
    let verified = worker.ask(&Request::Verify { node: Box::new(nodes[1].clone()) });
    assert!(matches!(verified, Event::Verified { violations, .. } if violations.is_empty()));

    assert!(nodes.iter().all(|node| store.usable(&node.key.hex()).unwrap()));
    worker.finish();
}

#[test]
fn a_line_that_is_no_request_ends_the_worker_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = start(folder.path());
    worker.input.as_mut().unwrap().write_all(b"nonsense\n").unwrap();
    assert!(worker.next().is_none());
    assert!(!worker.child.wait().unwrap().success());
}

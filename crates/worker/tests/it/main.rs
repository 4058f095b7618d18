//! The worker as a process: requests in, events out, failures as data, and an end when its input ends.

mod pruning;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ressa_experiment::{
    RunConfig, StageNode,
    config::Metric,
    model::{ModelConfig, Preset},
    protocol::{Event, FailureKind, Request},
    stage::stages,
};
use ressa_store::Store;

struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ressa-worker"))
            .args(["serve", "--device", "cpu", "--store"])
            .arg(store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, input, output };
        assert!(matches!(worker.next(), Some(Event::Ready { threads: 1, .. })));
        worker
    }

    fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn ask(&mut self, request: &Request) -> Event {
        let mut line = serde_json::to_string(request).unwrap();
        line.push('\n');
        self.input.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        loop {
            match self.next().expect("the worker answers") {
                Event::Progress { fraction, .. } => assert!((0.0..=1.0 + 1e-9).contains(&fraction)),
                other => return other,
            }
        }
    }

    fn execute(&mut self, node: &StageNode) -> Event {
        self.ask(&Request::Execute { node: Box::new(node.clone()) })
    }
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
    let mut worker = Worker::start(folder.path());

    // Asked for a stage whose input is not there, the worker says so and goes on.
    let Event::Failed { key, failure } = worker.execute(&nodes[1]) else { panic!("a stage without its input fails") };
    assert_eq!((key, failure.kind), (nodes[1].key.clone(), FailureKind::Data));
    assert!(failure.message.contains("ressa sweep"), "{}", failure.message);

    for node in &nodes {
        assert!(matches!(worker.execute(node), Event::Done { already_there: false, .. }));
    }
    assert!(matches!(worker.execute(&nodes[0]), Event::Done { already_there: true, .. }));
    let verified = worker.ask(&Request::Verify { node: Box::new(nodes[1].clone()) });
    assert!(matches!(verified, Event::Verified { violations, .. } if violations.is_empty()));

    let store = Store::open(folder.path(), Vec::new()).unwrap();
    assert!(nodes.iter().all(|node| store.usable(&node.key.0).unwrap()));

    // Its input ends, and so does the worker.
    worker.input = None;
    assert!(worker.next().is_none());
    assert!(worker.child.wait().unwrap().success());
}

#[test]
fn a_line_that_is_no_request_ends_the_worker_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut worker = Worker::start(folder.path());
    worker.input.as_mut().unwrap().write_all(b"nonsense\n").unwrap();
    assert!(worker.next().is_none());
    assert!(!worker.child.wait().unwrap().success());
}

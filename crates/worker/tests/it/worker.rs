//! A worker process that is asked by a test.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ressa_experiment::{
    StageNode,
    job::{Job, Reply},
    protocol::{Event, Failure, Request},
};
use ressa_store::Store;
use serde_json::Value;

pub struct Worker {
    pub child: Child,
    pub input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The program, on a device.
pub fn program(subcommand: &str, device: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ressa-worker"));
    command.args([subcommand, "--device", device, "--threads", "1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Worker {
    /// A worker that publishes into `store`.
    pub fn spawn(mut command: Command, store: &Path) -> Self {
        let mut child = command.arg("--store").arg(store).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, input, output };
        assert!(matches!(worker.next(), Some(Event::Ready { threads: 1, .. })));
        worker
    }

    pub fn next(&mut self) -> Option<Event> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    pub fn ask(&mut self, request: &Request) -> Event {
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

    pub fn execute(&mut self, node: &StageNode) -> Event {
        self.ask(&Request::Execute { node: Box::new(node.clone()), attempt: 1 })
    }

    /// Makes a stage, and publishes it as its coordinator does.
    pub fn make(&mut self, store: &Store, node: &StageNode) -> Event {
        let event = self.execute(node);
        if matches!(event, Event::Done { .. }) {
            store.publish(&node.key.hex(), 1).unwrap();
        }
        event
    }

    /// Ends its input and waits for its end.
    pub fn finish(mut self) {
        self.input = None;
        assert!(self.next().is_none());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Starts a process that does a job.
pub fn start(mut command: Command, job: &Job) -> Child {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(job).unwrap()).unwrap();
    child
}

/// Has a job done to its end.
pub fn work(command: Command, job: &Job) -> Result<Value, Failure> {
    let output = start(command, job).wait_with_output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap().lines().last().map(str::to_owned).unwrap();
    match serde_json::from_str(&last).unwrap() {
        Reply::Done { output } => Ok(output),
        Reply::Failed { failure } => Err(failure),
        Reply::Progress { .. } => panic!("the worker ends without an answer"),
    }
}

//! Proves stored results: digests here; certificates and scores by a worker that recounts the weights and scores the predictions again.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    sync::mpsc,
};

use ressa_experiment::{
    Stage, StageKey,
    protocol::{Event, Request},
};
use ressa_store::Store;
use serde::Serialize;

use crate::{
    Graph, Options, SweepError, describe,
    worker::{Line, Worker},
};

/// What was found about one stage.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The stage.
    pub key: StageKey,
    /// The stage in words.
    pub what: String,
    /// Whether it is in the store at all.
    pub present: bool,
    /// Whether a certificate was recounted (`prune` and `merge` have one).
    pub recounted: bool,
    /// Whether scores were computed again (`evaluate` has them).
    pub rescored: bool,
    /// What does not hold; empty when all holds.
    pub violations: Vec<String>,
}

/// Verifies the stages at `positions`, in order, telling each verdict as it comes.
///
/// # Errors
/// When the worker cannot be started or dies.
pub fn verify(
    graph: &Graph,
    positions: &[usize],
    store: &Store,
    options: &Options,
    verdicts: &mut dyn FnMut(Verdict),
) -> Result<(), SweepError> {
    let log = log(&options.results);
    let device = options.workers().into_iter().next().unwrap_or_else(|| "auto".to_owned());
    let mut worker: Option<(Worker, mpsc::Receiver<_>)> = None;
    let mut ready = false;
    for &position in positions {
        let node = &graph.stages[position].node;
        let mut verdict = Verdict {
            key: node.key,
            what: describe(&node.stage),
            present: false,
            recounted: false,
            rescored: false,
            violations: Vec::new(),
        };
        match store.entry(&node.key.hex()) {
            Ok(None) => {
                verdicts(verdict);
                continue;
            }
            Ok(Some(entry)) => verdict.violations.extend(entry.check().err().map(|error| error.to_string())),
            Err(error) => verdict.violations.push(error.to_string()),
        }
        verdict.present = true;
        let is_certified = node.stage.is_certified();
        let is_scored = matches!(*node.stage, Stage::Evaluate { .. });
        if verdict.violations.is_empty() && (is_certified || is_scored) {
            let (worker, answers) = match &mut worker {
                Some(started) => started,
                None => {
                    let (sender, receiver) = mpsc::channel();
                    let hand = move |line| sender.send(line).is_ok();
                    let started = Worker::start(&options.worker, store, &device, &log, hand)?;
                    worker.insert((started, receiver))
                }
            };
            let began = worker.log_size();
            worker.send(&Request::Verify { node: Box::new(node.as_ref().clone()) });
            (verdict.recounted, verdict.rescored) = (is_certified, is_scored);
            verdict.violations = loop {
                match answers.recv() {
                    Ok(Line::Event(Event::Verified { violations, .. })) => break violations,
                    Ok(Line::Event(Event::Failed { failure, .. })) => break vec![failure.message],
                    Ok(Line::Event(Event::Ready { .. })) => ready = true,
                    Ok(Line::Event(_)) => {}
                    Ok(Line::Closed) | Err(_) => {
                        let how = worker.wait().map_or_else(|_| "unknown end".to_owned(), crate::worker::ending);
                        let message = crate::worker::last_lines(&worker.log_since(began));
                        return Err(if ready {
                            SweepError::Recount { what: verdict.what, how, message, log }
                        } else {
                            SweepError::NotReady { program: options.worker.program.clone(), device, how, message }
                        });
                    }
                }
            };
        }
        verdicts(verdict);
    }
    Ok(())
}

/// The file that the worker's words go to; nowhere in a results folder that cannot be written, where results are verified all the same.
fn log(results: &Path) -> PathBuf {
    let folder = results.join("logs");
    let log = folder.join("verify.log");
    let opened = fs::create_dir_all(&folder).and_then(|()| OpenOptions::new().create(true).append(true).open(&log));
    opened.map_or_else(|_| PathBuf::from("/dev/null"), |_| log)
}

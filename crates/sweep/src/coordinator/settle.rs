//! How an attempt ends: published, failed, given back, or too late.

use std::{
    fs,
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use ressa_experiment::{
    StageKey,
    protocol::{Failure, FailureKind},
};
use ressa_runlog::{Comparison, FailureRecord, LogEvent, LogPart, Published};
use ressa_store::{Entry, Manifest, StoreError};

use super::Coordinator;
use crate::{
    FailedStage, SweepError, SweepEvent, describe, detail, failures,
    inventory::proof,
    schedule::{State, dense_of},
    slot::{Link, Running},
    wishes,
    worker::read_part,
};

/// Share of a stage that is done between two lines about it in the log.
const LOGGED: f64 = 0.1;
/// Failures of one machine that are remembered.
const QUICK: usize = 20;

/// What an attempt made that is no longer the current one.
#[derive(Debug)]
pub(super) struct Late {
    key: StageKey,
    attempt: u32,
    worker: String,
    /// What it says of itself, or why it cannot be used.
    manifest: Result<Box<Manifest>, String>,
    /// Where it is kept.
    kept: Option<PathBuf>,
}

impl Coordinator<'_> {
    /// Takes the stage from a worker that says it has ended; `None` where it is not what the worker was given.
    pub(super) fn ended(&mut self, index: usize, key: &StageKey, attempt: u32) -> Option<Running> {
        let graph = self.graph;
        let slot = &mut self.slots[index];
        let is_own = |running: &mut Running| running.attempt == attempt && graph.stages[running.stage].node.key == *key;
        let running = slot.running.take_if(is_own)?;
        self.running -= 1;
        if slot.is_free() {
            self.free.insert(index);
        }
        Some(running)
    }

    pub(super) fn progressed(
        &mut self,
        index: usize,
        key: &StageKey,
        fraction: f64,
        message: String,
        loss: Option<f64>,
    ) {
        let graph = self.graph;
        let Some(running) = &mut self.slots[index].running else { return };
        if graph.stages[running.stage].node.key != *key {
            return;
        }
        running.fraction = fraction;
        running.message.clone_from(&message);
        if let Some(loss) = loss {
            running.losses.add(fraction, loss);
        }
        let attempt = running.attempt;
        if fraction >= running.logged + LOGGED {
            running.logged = fraction;
            self.note(LogEvent::Progress { key: *key, attempt, fraction, message: message.clone() });
        }
        (self.events)(SweepEvent::Progress { slot: index, fraction, message });
    }

    /// Publishes what an attempt made. `index` is its worker, where it is there still.
    pub(super) fn finish(
        &mut self,
        index: Option<usize>,
        position: usize,
        attempt: u32,
        seconds: f64,
        log: Option<LogPart>,
    ) {
        let stage = &self.graph.stages[position];
        let key = stage.node.key;
        let record = match self.publish(&key, attempt, &stage.model) {
            Ok(record) => record,
            Err(error) => {
                let kind = if error.is_storage() { FailureKind::Storage } else { FailureKind::Bug };
                let failure = Failure { kind, message: error.to_string(), log: None };
                let text = self.text_of(log.as_ref());
                return self.fail(index, position, attempt, failure, &text, seconds);
            }
        };
        let worker = index.map_or_else(String::new, |index| self.slots[index].name.clone());
        self.note(LogEvent::Published { key, attempt, worker, record, log });
        for late in self.alone.remove(&key).unwrap_or_default() {
            self.judge(late);
        }
        self.estimates.learn(&stage.model, stage.node.stage.kind(), detail(&stage.node.stage), seconds);
        self.schedule.made(position);
        if let Some(index) = index {
            let slot = &mut self.slots[index];
            slot.resident.last = Some(position);
            slot.resident.dense = dense_of(self.graph, position);
            let host = slot.host.clone();
            self.quick.remove(&host);
        }
        let totals = self.totals();
        (self.events)(SweepEvent::StageFinished {
            slot: index.unwrap_or_default(),
            key,
            what: describe(&stage.node.stage),
            label: self.graph.label(position).to_owned(),
            seconds,
            totals,
        });
    }

    /// Moves a finished output to its key. What is there already, by whoever's hand, stands.
    fn publish(&self, key: &StageKey, attempt: u32, model: &str) -> Result<Published, StoreError> {
        let entry = match self.store.publish(&key.hex(), attempt)? {
            Some(entry) => entry,
            None => {
                self.store.discard(&key.hex(), attempt)?;
                self.store.require(&key.hex())?
            }
        };
        let unread = |entry: &Entry| StoreError::Damaged {
            path: entry.folder().to_owned(),
            what: "a file that was just published is missing".to_owned(),
        };
        let proof = proof(&entry).ok_or_else(|| unread(&entry))?;
        Ok(Published::of(&entry.manifest, model, proof))
    }

    /// Records a failure with what the worker logged during the stage, and skips what depends on it.
    pub(super) fn fail(
        &mut self,
        index: Option<usize>,
        position: usize,
        attempt: u32,
        mut failure: Failure,
        log: &str,
        seconds: f64,
    ) {
        let stage = &self.graph.stages[position];
        let key = stage.node.key;
        let path = self.logs.join(format!("{}.log", key.short()));
        failure.log = fs::write(&path, log).is_ok().then_some(path);
        let failed = FailedStage {
            key,
            what: describe(&stage.node.stage),
            label: self.graph.label(position).to_owned(),
            failure,
        };
        let kind = failed.failure.kind;
        let failures = self.retried.entry(position).or_default();
        *failures += 1;
        let delay = self.options.retries.delay(kind, *failures).filter(|_| !self.stopping);
        if kind == FailureKind::Storage && delay.is_none() {
            self.storage.get_or_insert_with(|| failed.failure.message.clone());
        }
        let mut kept = failed.failure.clone();
        // Results may move: where the log is, is said relative to them.
        kept.log = kept.log.map(|_| PathBuf::from("logs").join(format!("{}.log", key.short())));
        let record = FailureRecord {
            key,
            what: failed.what.clone(),
            label: failed.label.clone(),
            failure: kept,
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
            circumstances: match index.map(|index| &self.slots[index].link) {
                Some(Link::Remote { pilot, .. }) => self.circumstances_at(pilot),
                Some(Link::Local { .. }) | None => self.circumstances.clone(),
            },
        };
        let worker = index.map_or_else(String::new, |index| self.slots[index].name.clone());
        self.note(LogEvent::Failed { key, attempt, worker, record });
        // An output that is finished and could not be published is published by the next sweep.
        if kind != FailureKind::Storage {
            let _ = self.store.discard(&key.hex(), attempt);
        }
        // Limits that were set, data and numbers say nothing of a machine.
        let blames_machine = matches!(kind, FailureKind::Killed | FailureKind::Oom | FailureKind::Bug);
        if let Some(index) = index.filter(|_| blames_machine) {
            let quick = self.quick.entry(self.slots[index].host.clone()).or_default();
            if quick.len() == QUICK {
                quick.remove(0);
            }
            quick.push(seconds);
        }
        if let Some(delay) = delay {
            // It counts as running meanwhile, so nobody else takes it.
            self.resting.push((Instant::now() + delay, position));
            let (what, message) = (&failed.what, &failed.failure.message);
            let wait = delay.as_secs();
            return self.say(format!("{what} failed and is tried again in {wait} s ({}: {message})", kind.name()));
        }
        self.schedule.failed(position);
        self.failed.push(failed.clone());
        self.failed_now += 1;
        let totals = self.totals();
        (self.events)(SweepEvent::StageFailed { slot: index.unwrap_or_default(), failed, totals });
        if self.storage.is_some() {
            self.stop("nothing can be written any more; what is running may finish");
        } else if self.options.max_failures.is_some_and(|most| self.failed_now >= most) {
            self.stop("--max-failures is reached");
        }
    }

    /// A stage comes back without result and without fault: somebody else gets it.
    pub(super) fn give_back(&mut self, position: usize, attempt: u32, why: &str) {
        let key = self.graph.stages[position].node.key;
        self.note(LogEvent::Returned { key, attempt, why: why.to_owned() });
        if self.schedule.state(position) == State::Running {
            self.schedule.put_back(position);
        }
    }

    /// An attempt that is no longer the current one has a result after all: it is compared, kept and not used.
    pub(super) fn too_late(&mut self, key: &StageKey, attempt: u32, worker: &str) {
        let (key, worker) = (*key, worker.to_owned());
        let late = match self.store.finished(&key.hex(), attempt) {
            Ok(draft) => {
                let kept = self.store.keep_superseded(&key.hex(), attempt).ok();
                let kept =
                    kept.map(|path| path.strip_prefix(&self.options.results).map_or(path.clone(), PathBuf::from));
                Late { key, attempt, worker, manifest: Ok(Box::new(draft.manifest)), kept }
            }
            Err(error) => Late { key, attempt, worker, manifest: Err(error.to_string()), kept: None },
        };
        self.judge(late);
    }

    /// Compares what came too late with what was published; where nothing is yet, again when it is.
    fn judge(&mut self, late: Late) {
        let key = late.key;
        let comparison = match (&late.manifest, self.store.entry(&key.hex())) {
            (Err(why), _) => Comparison::Unusable { why: why.clone() },
            (Ok(_), Err(error)) => Comparison::Unusable { why: error.to_string() },
            (Ok(_), Ok(None)) => Comparison::Alone,
            (Ok(late), Ok(Some(published))) => {
                let (a, b) = (&late.files, &published.manifest.files);
                let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
                let files: Vec<String> = names.filter(|name| a.get(*name) != b.get(*name)).cloned().collect();
                if files.is_empty() { Comparison::Same } else { Comparison::Differs { files } }
            }
        };
        if let Comparison::Differs { files } = &comparison {
            let files = files.join(", ");
            let told = format!("two attempts at stage {} differ in {files}; both are kept", key.short());
            self.say(told);
        }
        let (attempt, worker, kept) = (late.attempt, late.worker.clone(), late.kept.clone());
        if matches!(comparison, Comparison::Alone) {
            self.alone.entry(key).or_default().push(late);
        }
        self.note(LogEvent::Superseded { key, attempt, worker, comparison, kept });
    }

    /// Remembers what came too late under an earlier coordinator for stages that are still not published.
    pub(super) fn remember_late(&mut self) -> Result<(), SweepError> {
        for (key, attempt, output) in self.store.superseded()? {
            let Ok(key) = key.parse::<StageKey>() else { continue };
            let position = self.graph.position(&key);
            if position.is_some_and(|position| self.schedule.state(position) != State::Cached) {
                let kept = output.folder();
                let kept = kept.strip_prefix(&self.options.results).unwrap_or(kept).to_owned();
                let late = Late {
                    key,
                    attempt,
                    worker: String::new(),
                    manifest: Ok(Box::new(output.manifest)),
                    kept: Some(kept),
                };
                self.alone.entry(key).or_default().push(late);
            }
        }
        Ok(())
    }

    /// Publishes what attempts finished whose coordinator died before it could, and removes what nobody fills any more.
    pub(super) fn gather_unpublished(&mut self) -> Result<(), SweepError> {
        for position in 0..self.graph.stages.len() {
            if matches!(self.schedule.state(position), State::Cached) {
                continue;
            }
            let key = self.graph.stages[position].node.key;
            let Some(record) = self.log.index().get(&key) else { continue };
            let (attempt, remote) =
                (record.attempts, record.open.get(&record.attempts).is_some_and(|open| open.remote));
            if remote {
                continue; // Its pilot will say it.
            }
            let Ok(draft) = self.store.finished(&key.hex(), attempt) else { continue };
            if draft.check().is_ok() && matches!(self.schedule.state(position), State::Ready) {
                let seconds = draft.manifest.seconds;
                if self.schedule.reserve(position) {
                    self.finish(None, position, attempt, seconds, None);
                }
            }
        }
        let index = self.log.index();
        let is_remote = |key: &str, attempt: Option<u32>| {
            let record = key.parse().ok().and_then(|key| index.get(&key));
            record.zip(attempt).and_then(|(record, attempt)| record.open.get(&attempt)).is_some_and(|open| open.remote)
        };
        self.store.remove_abandoned_drafts(&is_remote)?;
        Ok(())
    }

    /// Takes over failures of earlier sweeps. Those whose cause may be gone are forgotten.
    pub(super) fn remember_failures(&mut self) -> Result<(), SweepError> {
        let records: Vec<FailureRecord> = self.log.index().failures().into_iter().cloned().collect();
        for record in records {
            let Some(position) = self.graph.position(&record.key) else { continue };
            if self.schedule.state(position) == State::Cached {
                continue;
            }
            if failures::is_retried(&record, &self.circumstances) {
                self.log.write(LogEvent::Retried { key: record.key })?;
                continue;
            }
            self.schedule.failed(position);
            let stage = &self.graph.stages[position];
            let mut failure = record.failure;
            failure.log = failure.log.map(|log| self.options.results.join(log));
            let failed = FailedStage {
                key: record.key,
                what: describe(&stage.node.stage),
                label: self.graph.label(position).to_owned(),
                failure,
            };
            (self.events)(SweepEvent::Remembered(failed.clone()));
            self.failed.push(failed);
        }
        Ok(())
    }

    /// Tries failed stages again that somebody asked for while the sweep runs. A sweep that stops begins nothing: the next one is asked.
    pub(super) fn grant_wishes(&mut self) {
        if self.stopping {
            return;
        }
        for (path, keys) in wishes::asked(&self.options.results) {
            if self.granted.contains(&path) {
                continue;
            }
            keys.into_iter().for_each(|key| self.grant(key));
            // Written down first: a wish that is gone must not be forgotten. One that cannot be taken away is granted once.
            if self.log.settle().is_ok() && fs::remove_file(&path).is_err() {
                self.granted.insert(path);
            }
        }
    }

    fn grant(&mut self, key: StageKey) {
        let Some(position) = self.graph.position(&key) else {
            // Another sweep's stage: that it failed is forgotten, so that its next sweep tries again.
            return self.note(LogEvent::Retried { key });
        };
        if let Some((at, _)) = self.resting.iter_mut().find(|(_, resting)| *resting == position) {
            *at = Instant::now();
            return;
        }
        // What has been made meanwhile needs nothing.
        if !self.schedule.try_again(position) {
            return;
        }
        self.note(LogEvent::Retried { key });
        self.failed.retain(|failed| failed.key != key);
        self.retried.remove(&position);
        self.say(format!("{} is tried again, as somebody asked", describe(&self.graph.stages[position].node.stage)));
    }

    /// The text of a part of a log.
    pub(super) fn text_of(&self, part: Option<&LogPart>) -> String {
        part.map_or_else(String::new, |part| read_part(&self.options.results, part))
    }
}

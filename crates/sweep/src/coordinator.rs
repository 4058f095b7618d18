//! The loop that hands stages to workers until everything is settled.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use ressa_experiment::protocol::{Event, Failure, FailureKind, Request};
use ressa_store::Store;

use crate::{
    Circumstances, CoordinatorLock, DeviceChoice, Estimates, FailedStage, GateCheck, Graph, Interruption, RetiredSlot,
    SkippedStage, Stop, Summary, SweepError, SweepEvent, Totals, WorkerCommand, clear_failure, describe, detail,
    devices, failures, gate,
    schedule::{Counts, Schedule, State, dense_of},
    slot::{Running, Slot, death},
    take_inventory,
    worker::{Line, Message, Worker, ending, last_lines},
};

/// How often the loop looks at interrupts and timeouts when no worker speaks.
const TICK: Duration = Duration::from_millis(50);

/// Workers in a row that may end before they are ready.
const FALSE_STARTS: u32 = 2;

/// Maximum time from the start of a worker until it is ready: libraries may come from a slow disk, but a device that hangs must not hold up
/// a sweep for ever.
const START_LIMIT: Duration = Duration::from_secs(600);

/// Machine settings of a sweep: nothing here can change what is asked, and on a CPU nothing here can change a result.
#[derive(Clone, Debug)]
pub struct Options {
    /// Results folder: lock and logs.
    pub results: PathBuf,
    /// The worker program.
    pub worker: WorkerCommand,
    /// Where workers run.
    pub device: DeviceChoice,
    /// GPUs that may be used, as `visible_gpus` counts them.
    pub gpus: u32,
    /// What times are comparable on, as `machine_name` says it.
    pub machine: String,
    /// Maximum number of workers; none means one per GPU, or one per core.
    pub slots: Option<usize>,
    /// Stop starting stages after this many failed in this sweep.
    pub max_failures: Option<usize>,
    /// Time limit of a stage.
    pub timeout: Option<Duration>,
}

impl Options {
    /// One device argument per worker.
    pub fn devices(&self) -> Vec<String> {
        devices::slots(self.device, self.gpus, self.slots, self.worker.threads)
    }

    /// What decides whether a stage that failed before may succeed now.
    pub fn circumstances(&self) -> Circumstances {
        Circumstances {
            timeout: self.timeout.map(|limit| limit.as_secs_f64()),
            slots: self.devices().len(),
            machine: self.machine.clone(),
            program: failures::identity(&self.worker.program),
        }
    }
}

/// Makes every stage of a graph that the store does not have. Ends when all is settled: made, failed, or skipped for a failed input.
///
/// # Errors
/// Only what keeps a sweep from running at all: another coordinator, a folder that cannot be written, a worker that cannot be started.
pub fn execute(
    graph: &Graph,
    store: &Store,
    options: &Options,
    stop: &Stop,
    events: &mut dyn FnMut(SweepEvent),
) -> Result<Summary, SweepError> {
    let start = Instant::now();
    let _lock = CoordinatorLock::acquire(&options.results)?;
    let logs = options.results.join("logs");
    fs::create_dir_all(&logs).map_err(|source| SweepError::Write { path: logs.clone(), source })?;
    store.remove_abandoned_drafts()?;

    let devices = options.devices();
    let inventory = take_inventory(graph, store)?;
    for damage in &inventory.damaged {
        events(SweepEvent::Damaged(damage.clone()));
    }
    let estimates = Estimates::from_journal(store, |device| device == options.machine);
    let schedule = Schedule::new(graph, &inventory, &estimates);
    let (sender, receiver) = mpsc::channel();
    let slots = devices
        .into_iter()
        .enumerate()
        .map(|(index, device)| Slot::new(device, logs.join(format!("worker-{index}.log"))))
        .collect();
    let mut coordinator = Coordinator {
        graph,
        store,
        options,
        logs,
        events,
        schedule,
        estimates,
        slots,
        sender,
        circumstances: options.circumstances(),
        failed: Vec::new(),
        failed_now: 0,
        gate: None,
        storage: None,
        stopping: false,
    };
    coordinator.remember_failures()?;
    let totals = coordinator.totals();
    (coordinator.events)(SweepEvent::Started { totals, slots: coordinator.slots.len(), runs: graph.runs.len() });
    let outcome = {
        let _watch = stop.watch();
        coordinator.run(&receiver, stop)
    };
    outcome?;
    let mut summary = coordinator.summary();
    summary.damaged = inventory.damaged;
    summary.interrupted = stop.interruption();
    summary.seconds = start.elapsed().as_secs_f64();
    drop(coordinator);
    store.remove_abandoned_drafts()?;
    Ok(summary)
}

struct Coordinator<'a> {
    graph: &'a Graph,
    store: &'a Store,
    options: &'a Options,
    logs: PathBuf,
    events: &'a mut dyn FnMut(SweepEvent),
    schedule: Schedule<'a>,
    estimates: Estimates,
    slots: Vec<Slot>,
    sender: Sender<Message>,
    circumstances: Circumstances,
    failed: Vec<FailedStage>,
    /// Stages that failed in this sweep.
    failed_now: usize,
    /// Outcome of the gate, once it is settled.
    gate: Option<Vec<GateCheck>>,
    storage: Option<String>,
    /// Whether no new stage may be started.
    stopping: bool,
}

impl Coordinator<'_> {
    fn run(&mut self, receiver: &Receiver<Message>, stop: &Stop) -> Result<(), SweepError> {
        for slot in &self.slots {
            // Logs of an earlier sweep; those of failed stages have been copied.
            let _ = fs::remove_file(&slot.log);
        }
        loop {
            if stop.requests() >= 1 {
                self.stop(match stop.interruption() {
                    Some(Interruption::Terminate) => "asked to end; a second signal ends it at once",
                    _ => "interrupted; press Ctrl-C again to stop at once",
                });
            }
            if stop.requests() >= 2 {
                self.kill_all();
                return Ok(());
            }
            self.settle_gate()?;
            if !self.stopping {
                self.assign()?;
            }
            if self.slots.iter().all(Slot::is_idle) {
                return Ok(());
            }
            match receiver.recv_timeout(TICK) {
                Ok(message) => self.receive(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the coordinator holds a sender"),
            }
            self.end_overdue();
        }
    }

    /// Gives every idle place a stage.
    fn assign(&mut self) -> Result<(), SweepError> {
        let gate_only = self.gate.is_none();
        for index in 0..self.slots.len() {
            if !self.slots[index].is_idle() || self.slots[index].retired.is_some() {
                continue;
            }
            let Some(stage) = self.schedule.take(&self.slots[index].resident, gate_only) else { continue };
            match self.start_worker(index) {
                Ok(()) => {}
                Err(error @ SweepError::Spawn { .. }) => {
                    self.schedule.put_back(stage);
                    self.retire(index, error)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let node = self.graph.stages[stage].node.as_ref().clone();
            let slot = &mut self.slots[index];
            let Some(worker) = &mut slot.worker else { unreachable!("a worker was just started") };
            let log_offset = worker.log_size();
            worker.send(&Request::Execute { node: Box::new(node.clone()) });
            slot.running = Some(Running {
                stage,
                since: Instant::now(),
                fraction: 0.0,
                log_offset,
                oom_kills: crate::worker::kernel_oom_kills(),
                timed_out: None,
            });
            (self.events)(SweepEvent::StageStarted {
                slot: index,
                what: describe(&node.stage),
                label: self.graph.label(stage).to_owned(),
                seconds: self.estimates.seconds(&self.graph.stages[stage]),
                key: node.key,
            });
        }
        Ok(())
    }

    fn start_worker(&mut self, index: usize) -> Result<(), SweepError> {
        let slot = &mut self.slots[index];
        if slot.worker.is_none() {
            slot.generation += 1;
            slot.ready = false;
            slot.resident = Default::default();
            let place = (index, slot.generation);
            let sender = self.sender.clone();
            slot.worker =
                Some(Worker::start(&self.options.worker, self.store, &slot.device, &slot.log, place, sender)?);
        }
        Ok(())
    }

    /// Gives a place up: no worker becomes ready there. The others go on; without any other, that ends the sweep.
    fn retire(&mut self, index: usize, error: SweepError) -> Result<(), SweepError> {
        let slot = &mut self.slots[index];
        slot.retired = Some(error.to_string());
        let retired = self.retired();
        if retired.len() == self.slots.len() {
            let same = retired.iter().all(|slot| slot.reason == retired[0].reason);
            return Err(if same { error } else { SweepError::NoWorkers { retired } });
        }
        let Some(slot) = retired.into_iter().find(|slot| slot.slot == index) else { return Ok(()) };
        (self.events)(SweepEvent::SlotRetired(slot));
        Ok(())
    }

    fn retired(&self) -> Vec<RetiredSlot> {
        let retired = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let reason = slot.retired.clone()?;
            Some(RetiredSlot { slot: index, device: slot.device.clone(), reason })
        });
        retired.collect()
    }

    fn receive(&mut self, message: Message) -> Result<(), SweepError> {
        let index = message.slot;
        if self.slots[index].generation != message.generation || self.slots[index].worker.is_none() {
            return Ok(());
        }
        match message.line {
            Line::Closed => self.bury(index)?,
            Line::Event(Event::Ready { device, .. }) => {
                self.slots[index].ready = true;
                self.slots[index].false_starts = 0;
                // The limit of a stage is not about loading libraries.
                if let Some(running) = &mut self.slots[index].running {
                    running.since = Instant::now();
                }
                (self.events)(SweepEvent::WorkerReady { slot: index, device });
            }
            Line::Event(Event::Progress { fraction, message, .. }) => {
                if let Some(running) = &mut self.slots[index].running {
                    running.fraction = fraction;
                }
                (self.events)(SweepEvent::Progress { slot: index, fraction, message });
            }
            Line::Event(Event::Done { key, seconds, .. }) => {
                let Some(running) = self.slots[index].running.take() else { return Ok(()) };
                if self.store.contains(&key.hex()) {
                    self.finish(index, &running, seconds)?;
                } else {
                    let message = "the worker says it is done, but nothing is published".to_owned();
                    let log = self.log_of(index, &running);
                    self.fail(index, &running, Failure { kind: FailureKind::Bug, message, log: None }, &log);
                }
            }
            Line::Event(Event::Failed { failure, .. }) => {
                let Some(running) = self.slots[index].running.take() else { return Ok(()) };
                let log = self.log_of(index, &running);
                self.fail(index, &running, failure, &log);
            }
            Line::Event(Event::Verified { .. }) => {}
        }
        Ok(())
    }

    fn finish(&mut self, index: usize, running: &Running, seconds: f64) -> Result<(), SweepError> {
        let graph = self.graph;
        let stage = &graph.stages[running.stage];
        self.estimates.learn(&stage.model, stage.node.stage.kind(), detail(&stage.node.stage), seconds);
        self.schedule.made(running.stage);
        self.slots[index].resident.last = Some(running.stage);
        self.slots[index].resident.dense = dense_of(graph, running.stage);
        clear_failure(self.store, &stage.node.key)?;
        let totals = self.totals();
        (self.events)(SweepEvent::StageFinished {
            slot: index,
            key: stage.node.key,
            what: describe(&stage.node.stage),
            label: graph.label(running.stage).to_owned(),
            seconds,
            totals,
        });
        Ok(())
    }

    fn log_of(&self, index: usize, running: &Running) -> String {
        self.slots[index].worker.as_ref().map_or_else(String::new, |worker| worker.log_since(running.log_offset))
    }

    /// Records a failure with what the worker logged during the stage, and skips what depends on it.
    fn fail(&mut self, index: usize, running: &Running, mut failure: Failure, log: &str) {
        let stage = &self.graph.stages[running.stage];
        let path = self.logs.join(format!("{}.log", stage.node.key.short()));
        failure.log = fs::write(&path, log).is_ok().then_some(path);
        let failed = FailedStage {
            key: stage.node.key,
            what: describe(&stage.node.stage),
            label: self.graph.label(running.stage).to_owned(),
            failure,
        };
        if failed.failure.kind == FailureKind::Storage {
            self.storage.get_or_insert_with(|| failed.failure.message.clone());
        }
        if let Err(error) = failures::record(self.store, &failed, &self.circumstances) {
            self.storage.get_or_insert_with(|| error.to_string());
        }
        self.schedule.failed(running.stage);
        self.failed.push(failed.clone());
        self.failed_now += 1;
        let totals = self.totals();
        (self.events)(SweepEvent::StageFailed { slot: index, failed, totals });
        if self.storage.is_some() {
            self.stop("nothing can be written any more; what is running may finish");
        } else if self.options.max_failures.is_some_and(|most| self.failed_now >= most) {
            self.stop("--max-failures is reached");
        }
    }

    /// A worker's output has ended: records what that means.
    fn bury(&mut self, index: usize) -> Result<(), SweepError> {
        let slot = &mut self.slots[index];
        let Some(mut worker) = slot.worker.take() else { return Ok(()) };
        let status = worker.wait().ok();
        let how = status.map_or_else(|| "unknown end".to_owned(), ending);
        let running = slot.running.take();
        let timed_out = running.as_ref().and_then(|running| running.timed_out);
        let began = running.as_ref().map_or(0, |running| running.log_offset);
        let log = worker.log_since(began);
        if !slot.ready {
            let how = timed_out.map_or(how, |limit| format!("not ready after {} s", limit.as_secs()));
            slot.false_starts += 1;
            let is_given_up = slot.false_starts >= FALSE_STARTS;
            let device = slot.device.clone();
            if let Some(running) = running {
                self.schedule.put_back(running.stage);
            }
            if is_given_up {
                let program = self.options.worker.program.clone();
                let message = last_lines(&worker.own_log());
                return self.retire(index, SweepError::NotReady { program, device, how, message });
            }
            (self.events)(SweepEvent::WorkerDied { slot: index, message: format!("{how}, before it was ready") });
            return Ok(());
        }
        let message = if timed_out.is_some() { "its stage took too long".to_owned() } else { how };
        (self.events)(SweepEvent::WorkerDied { slot: index, message });
        if let Some(running) = running {
            let failure = death(&running, status, &log);
            // The publication may have come through although the worker's last word did not.
            if self.store.contains(&self.graph.stages[running.stage].node.key.hex()) {
                return self.finish(index, &running, running.since.elapsed().as_secs_f64());
            }
            self.fail(index, &running, failure, &log);
        }
        Ok(())
    }

    /// Once everything the gate waits for is settled, compares; a floor that is not reached stops the sweep.
    fn settle_gate(&mut self) -> Result<(), SweepError> {
        if self.gate.is_some() || !self.schedule.gate_is_settled() {
            return Ok(());
        }
        let checks = gate::check(self.graph, self.store)?;
        if !checks.is_empty() {
            (self.events)(SweepEvent::Gate(checks.clone()));
        }
        if !checks.iter().all(GateCheck::passes) {
            self.stop("a dense model does not reach its gate");
        }
        self.gate = Some(checks);
        Ok(())
    }

    fn stop(&mut self, why: &str) {
        if !self.stopping {
            self.stopping = true;
            let running = self.slots.iter().filter(|slot| !slot.is_idle()).count();
            (self.events)(SweepEvent::Stopping { why: why.to_owned(), running });
        }
    }

    fn kill_all(&mut self) {
        for slot in &mut self.slots {
            if let Some(mut worker) = slot.worker.take() {
                worker.kill();
            }
        }
    }

    /// Kills workers whose stage, or whose start, takes longer than allowed; their end is then received like any other.
    fn end_overdue(&mut self) {
        for slot in &mut self.slots {
            let limit = if slot.ready { self.options.timeout } else { Some(START_LIMIT) };
            let Some(limit) = limit else { continue };
            if let (Some(running), Some(worker)) = (&mut slot.running, &mut slot.worker)
                && running.since.elapsed() > limit
                && running.timed_out.is_none()
            {
                running.timed_out = Some(limit);
                worker.kill();
            }
        }
    }

    /// Takes over failures of earlier sweeps. Those whose cause may be gone are forgotten, and those of stages that were made since.
    fn remember_failures(&mut self) -> Result<(), SweepError> {
        for record in failures::read_all(self.store) {
            let Some(position) = self.graph.position(&record.key) else { continue };
            let stage = &self.graph.stages[position];
            if self.schedule.state(position) == State::Cached || record.is_retried(&self.circumstances) {
                clear_failure(self.store, &stage.node.key)?;
                continue;
            }
            self.schedule.failed(position);
            let failed = FailedStage {
                key: stage.node.key,
                what: describe(&stage.node.stage),
                label: self.graph.label(position).to_owned(),
                failure: record.failure,
            };
            (self.events)(SweepEvent::Remembered(failed.clone()));
            self.failed.push(failed);
        }
        Ok(())
    }

    fn totals(&self) -> Totals {
        let fraction = |position| {
            let running = self.slots.iter().filter_map(|slot| slot.running.as_ref()).find(|r| r.stage == position);
            running.map_or(0.0, |running| running.fraction)
        };
        let Counts { cached, made, failed, skipped, .. } = self.schedule.counts();
        Totals {
            stages: self.graph.stages.len(),
            cached,
            made,
            failed,
            skipped,
            eta_seconds: self.schedule.eta(&self.estimates, self.slots.len() - self.retired().len(), fraction),
        }
    }

    fn summary(&self) -> Summary {
        let skipped = self.graph.stages.iter().enumerate().filter_map(|(position, stage)| {
            let State::Skipped { cause } = self.schedule.state(position) else { return None };
            let cause = self.graph.stages[cause].node.key;
            Some(SkippedStage { key: stage.node.key, what: describe(&stage.node.stage), cause })
        });
        let gate = self.gate.clone().unwrap_or_default();
        // In the order of the graph: which worker was faster is of no interest.
        let mut failed = self.failed.clone();
        failed.sort_by_key(|failed| self.graph.position(&failed.key));
        Summary {
            totals: self.totals(),
            runs: self.graph.runs.len(),
            complete: self.schedule.complete_runs(),
            failed,
            skipped: skipped.collect(),
            gate_failed: !gate.iter().all(GateCheck::passes),
            gate,
            storage: self.storage.clone(),
            retired: self.retired(),
            logs: self.logs.clone(),
            ..Summary::default()
        }
    }
}

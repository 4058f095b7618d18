//! The loop that hands stages to workers until everything is settled.

mod arrivals;
mod local;
mod settle;
mod view;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fs,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use ressa_experiment::{StageKey, protocol::Request};
use ressa_runlog::{Circumstances, Log, LogEvent, LogPart, host, take_over};
use ressa_store::Store;

use crate::{
    CoordinatorLock, Devices, Estimates, FailedStage, GateCheck, Graph, Interruption, RetiredSlot, RetryPolicy,
    SkippedStage, Stop, Summary, SweepError, SweepEvent, Totals, WorkerCommand, describe, failures, gate,
    live::Live,
    meet::{Arrival, CoordinatorBeat, Down, Host, Invitation, LEASE, Meet},
    recruit::{ClassStanding, ClassWork, Classes, Need, Recruiter},
    schedule::{Schedule, State},
    slot::{Link, Running, Slot},
    take_inventory,
    worker::{Line, kernel_oom_kills},
};

use arrivals::Pilot;

/// How often the loop looks at interrupts and timeouts when no worker speaks.
const TICK: Duration = Duration::from_millis(50);

/// How often it does what need not be done at once: expected end, live view, its place as coordinator.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// Messages that are taken in before idle workers are looked at again.
const BATCH: usize = 256;

/// Machine settings of a sweep: nothing here can change what is asked, and on a CPU nothing here can change a result.
#[derive(Clone, Debug)]
pub struct Options {
    /// Results folder: lock and logs.
    pub results: PathBuf,
    /// The worker program.
    pub worker: WorkerCommand,
    /// Where workers run. Without any, only those of other machines work.
    pub devices: Devices,
    /// What times are comparable on, as [`Devices::machine_name`] says it.
    pub machine: String,
    /// Stop starting stages after this many failed in this sweep.
    pub max_failures: Option<usize>,
    /// Time limit of a stage.
    pub timeout: Option<Duration>,
    /// Time without a sign of life after which a worker of another machine counts as gone.
    pub lease: Duration,
    /// Time without work after which a pilot that a cluster's engine started is sent home.
    pub idle: Duration,
    /// Whether the same process coordinates a sweep of this folder right after this one: who works for it stays.
    pub is_followed: bool,
    /// The sweep in words, for who looks at it: files and overrides.
    pub title: String,
    /// Version and revision of the program.
    pub program: String,
    /// Which failed stages are tried again within the sweep.
    pub retries: RetryPolicy,
}

impl Options {
    /// One device argument per worker.
    pub fn workers(&self) -> Vec<String> {
        self.devices.workers(self.worker.threads)
    }

    /// What decides whether a stage that failed before may succeed now.
    pub fn circumstances(&self) -> Circumstances {
        Circumstances {
            timeout: self.timeout.map(|limit| limit.as_secs_f64()),
            slots: self.workers().len(),
            machine: self.machine.clone(),
            program: failures::identity(&self.worker.program),
        }
    }
}

/// What the coordinator's loop receives.
#[derive(Debug)]
enum Message {
    /// From a worker of this machine.
    Local { slot: usize, generation: u32, line: Line },
    /// From a pilot.
    Pilot { name: String, arrival: Arrival },
}

/// Makes every stage of a graph that the store does not have. Ends when all is settled: made, failed, or skipped for a failed input.
///
/// Workers of this machine are started as needed; those of other machines may join and leave at any time. `recruiter` has more of them
/// started where there is one.
///
/// # Errors
/// Only what keeps a sweep from running at all: another coordinator, a folder that cannot be written, a worker that cannot be started.
pub fn execute(
    graph: &Graph,
    store: &Store,
    options: &Options,
    stop: &Stop,
    recruiter: Option<&mut dyn Recruiter>,
    events: &mut dyn FnMut(SweepEvent),
) -> Result<Summary, SweepError> {
    let start = Instant::now();
    let _lock = CoordinatorLock::acquire(&options.results, options.lease)?;
    let logs = options.results.join("logs");
    fs::create_dir_all(&logs).map_err(|source| SweepError::Write { path: logs.clone(), source })?;

    let mut log = Log::begin(store, &options.program)?;
    take_over(store, &mut log)?;
    let (inventory, news) = take_inventory(graph, store, log.index())?;
    for damage in &inventory.damaged {
        events(SweepEvent::Damaged(damage.clone()));
    }
    for (position, record) in news.found {
        log.write(LogEvent::Found { key: graph.stages[position].node.key, record })?;
    }
    for (position, why) in news.gone {
        log.write(LogEvent::Gone { key: graph.stages[position].node.key, why })?;
    }
    // Where all workers are elsewhere, this machine's times say nothing.
    let is_elsewhere = options.workers().is_empty();
    let estimates = Estimates::of(log.index(), |device| is_elsewhere || device == options.machine);
    let classes = recruiter.as_ref().map_or_else(Classes::default, |recruiter| recruiter.classes());
    let schedule = Schedule::new(graph, &inventory, &estimates, &classes);
    let (sender, receiver) = mpsc::channel();
    let prefix = format!("{:06}", log.number());
    let slots = options.workers().into_iter().enumerate().map(|(index, device)| {
        let name = format!("worker-{index}");
        let log = format!("logs/{prefix}-{name}.log");
        Slot::new(name, host(), device, log, Link::Local { worker: None, generation: 0 })
    });
    let mut coordinator = Coordinator {
        graph,
        store,
        options,
        logs,
        events,
        schedule,
        estimates,
        slots: slots.collect(),
        free: BTreeSet::new(),
        running: 0,
        pilots: HashMap::new(),
        orphans: HashMap::new(),
        meet: Meet::host(&options.results)?,
        // Only a reference itself can come to live shorter, not one within an option.
        recruiter: recruiter.map(|recruiter| recruiter as &mut dyn Recruiter),
        classes,
        standing: Vec::new(),
        sender,
        circumstances: options.circumstances(),
        log,
        failed: Vec::new(),
        failed_now: 0,
        gate: None,
        storage: None,
        retried: HashMap::new(),
        resting: Vec::new(),
        granted: HashSet::new(),
        stopping: false,
        eta: 0.0,
        live: Live::new(&options.results),
        started: start,
        told: VecDeque::new(),
        quick: HashMap::new(),
        alone: HashMap::new(),
        refusals: HashMap::new(),
    };
    coordinator.free = (0..coordinator.slots.len()).collect();
    coordinator.remember_late()?;
    coordinator.gather_unpublished()?;
    coordinator.remember_failures()?;
    coordinator.grant_wishes();
    coordinator.expect_pilots();
    coordinator.eta = coordinator.expected();
    let totals = coordinator.totals();
    let runs = graph.runs.len();
    let planned =
        LogEvent::Planned { title: options.title.clone(), runs, stages: totals.stages, cached: totals.cached };
    coordinator.note(planned);
    (coordinator.events)(SweepEvent::Started { totals, slots: coordinator.slots.len(), runs });
    let outcome = {
        let _watch = stop.watch();
        coordinator.run(&receiver, stop)
    };
    let detached = coordinator.end(outcome.is_ok());
    outcome?;
    let mut summary = coordinator.summary();
    summary.damaged = inventory.damaged;
    summary.interrupted = stop.interruption();
    summary.detached = detached;
    summary.seconds = start.elapsed().as_secs_f64();
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
    /// Slots that can be given a stage.
    free: BTreeSet<usize>,
    /// Slots that have one.
    running: usize,
    pilots: HashMap<String, Pilot>,
    /// Attempts of an earlier coordinator at pilots that have not spoken yet: their stage, number, worker and the end of the wait.
    orphans: HashMap<StageKey, Orphan>,
    meet: Meet,
    recruiter: Option<&'a mut dyn Recruiter>,
    classes: Classes,
    /// How things stand with who was asked for.
    standing: Vec<ClassStanding>,
    sender: Sender<Message>,
    circumstances: Circumstances,
    log: Log,
    failed: Vec<FailedStage>,
    /// Stages that failed in this sweep.
    failed_now: usize,
    /// Outcome of the gate, once it is settled.
    gate: Option<Vec<GateCheck>>,
    storage: Option<String>,
    /// Failures of each stage in this sweep.
    retried: HashMap<usize, u32>,
    /// Stages that failed and are tried again, and when.
    resting: Vec<(Instant, usize)>,
    /// Wishes that were granted and cannot be taken away.
    granted: HashSet<PathBuf>,
    /// Whether no new stage may be started.
    stopping: bool,
    /// Expected seconds to the end, as of the last slow tick.
    eta: f64,
    live: Live,
    started: Instant,
    /// What people were told last.
    told: VecDeque<String>,
    /// Failures by machine, with the seconds after which each came: a machine that fails everything at once is not used again.
    quick: HashMap<String, Vec<f64>>,
    /// What came too late before anything else was published under its key.
    alone: HashMap<StageKey, Vec<settle::Late>>,
    /// Lines of each pilot that were refused, by reason.
    refusals: HashMap<(String, String), u64>,
}

/// An attempt that an earlier coordinator gave to a pilot.
#[derive(Clone, Debug)]
struct Orphan {
    stage: usize,
    attempt: u32,
    worker: String,
    until: Instant,
}

impl Coordinator<'_> {
    fn run(&mut self, receiver: &Receiver<Message>, stop: &Stop) -> Result<(), SweepError> {
        let options = self.options;
        let beat = CoordinatorBeat { segment: self.log.number(), host: host(), pid: std::process::id() };
        self.meet.invite(&Invitation {
            segment: self.log.number(),
            program: options.program.clone(),
            shipped: self.store.shipped().to_vec(),
            folder: options.worker.folder.clone(),
            environment: options.worker.environment.clone(),
            arguments: options.worker.arguments.clone(),
            deterministic: options.worker.deterministic,
            lease: options.lease,
        })?;
        let hand = |name, arrival| Message::Pilot { name, arrival };
        let _host = Host::listen(self.meet.clone(), beat, options.lease, self.sender.clone(), hand);
        let (mut looked, mut slow) = (Instant::now(), Instant::now());
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
            if self.is_settled() {
                return Ok(());
            }
            match receiver.recv_timeout(TICK) {
                Ok(message) => self.receive(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the coordinator holds a sender"),
            }
            for message in receiver.try_iter().take(BATCH).collect::<Vec<_>>() {
                self.receive(message)?;
            }
            // What asks every worker is done a few times a second, however many messages come.
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.end_overdue();
                self.wake();
            }
            if slow.elapsed() >= SLOW_TICK {
                slow = Instant::now();
                self.slow_tick()?;
            }
        }
    }

    /// Whether nothing more will happen: nobody has a stage, and none can be given out.
    fn is_settled(&self) -> bool {
        if self.stopping {
            // Pilots outlive this process: what they have is taken over by who comes next.
            let at_home = |slot: &Slot| matches!(slot.link, Link::Local { .. }) && slot.running.is_some();
            return !self.slots.iter().any(at_home);
        }
        self.running == 0
            && self.orphans.is_empty()
            && self.resting.is_empty()
            && !self.schedule.has_ready(self.gate.is_none())
    }

    /// Lets stages be tried again whose time has come.
    fn wake(&mut self) {
        let now = Instant::now();
        let (due, resting) = self.resting.iter().partition(|(at, _)| *at <= now);
        self.resting = resting;
        let due: Vec<(Instant, usize)> = due;
        due.into_iter().for_each(|(_, position)| self.schedule.put_back(position));
    }

    /// What need not be done at once.
    fn slow_tick(&mut self) -> Result<(), SweepError> {
        if !self.log.is_current() {
            self.kill_all();
            return Err(SweepError::Replaced { folder: self.options.results.clone() });
        }
        let now = Instant::now();
        let lost: Vec<StageKey> =
            self.orphans.iter().filter(|(_, orphan)| orphan.until < now).map(|(key, _)| *key).collect();
        for key in lost {
            if let Some(orphan) = self.orphans.remove(&key) {
                self.give_back(orphan.stage, orphan.attempt, "its worker did not come back");
            }
        }
        self.grant_wishes();
        self.eta = self.expected();
        if let Err(error) = self.log.settle() {
            self.storage.get_or_insert_with(|| error.to_string());
            self.stop("the log cannot be written any more; what is running may finish");
        }
        self.recruit()?;
        self.show_live(false);
        Ok(())
    }

    /// Has more workers started, or fewer kept, where somebody does that.
    fn recruit(&mut self) -> Result<(), SweepError> {
        let Some(recruiter) = &mut self.recruiter else { return Ok(()) };
        let need = Need {
            work: self.schedule.work(&self.estimates, self.gate.is_none()),
            jobs: self.pilots.values().filter(|pilot| !pilot.is_gone()).map(|pilot| pilot.job.clone()).collect(),
            quick_failures: self.quick.clone(),
            stopping: self.stopping,
        };
        let told = recruiter.tick(&need);
        self.standing = told.standing;
        told.lines.into_iter().for_each(|line| self.say(line));
        self.release_idle(&need.work);
        match self.given_up(&need.work, told.given_up) {
            Some(why) if !self.stopping => Err(SweepError::NobodyComes { why }),
            _ => Ok(()),
        }
    }

    /// Why nothing will happen any more, if so: nobody has a stage, and whatever could begin is for classes whose workers will not come.
    fn given_up(&self, work: &[ClassWork], reasons: HashMap<usize, String>) -> Option<String> {
        if self.running > 0 || !self.orphans.is_empty() || !self.resting.is_empty() {
            return None;
        }
        let class_of = |slot: &Slot| match &slot.link {
            Link::Local { .. } => None,
            Link::Remote { pilot, .. } => self.pilots.get(pilot).and_then(|pilot| pilot.class),
        };
        let present: Vec<_> = self.slots.iter().filter(|slot| slot.retired.is_none()).map(class_of).collect();
        let mut lacking = (0..work.len()).filter(|&class| work[class].active > 0).peekable();
        lacking.peek()?;
        let why = lacking.map(|class| {
            let is_there = present.iter().any(|there| there.is_none_or(|there| there == class));
            reasons.get(&class).filter(|_| !is_there)
        });
        // The first says enough; all have to have one.
        why.collect::<Option<Vec<_>>>()?.first().map(|why| (*why).clone())
    }

    /// Gives every idle worker a stage.
    fn assign(&mut self) -> Result<(), SweepError> {
        let gate_only = self.gate.is_none();
        if !self.schedule.has_ready(gate_only) {
            return Ok(());
        }
        for index in self.free.iter().copied().collect::<Vec<_>>() {
            if !self.schedule.has_ready(gate_only) {
                break;
            }
            let (class, time) = match &self.slots[index].link {
                Link::Local { .. } => (None, None),
                Link::Remote { pilot, .. } => match self.pilots.get(pilot) {
                    Some(pilot) if pilot.takes_work() => (pilot.class, pilot.time()),
                    _ => continue,
                },
            };
            let (graph, estimates) = (self.graph, &self.estimates);
            let fits = |stage: usize| {
                let stage = &graph.stages[stage];
                time.is_none_or(|time| time.suffices(&stage.node.stage, estimates.seconds(stage)))
            };
            let Some(stage) = self.schedule.next(&self.slots[index].resident, class, gate_only, fits) else { continue };
            match self.start_worker(index) {
                Ok(()) => {}
                Err(error @ SweepError::Spawn { .. }) => {
                    self.retire(index, error)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if self.schedule.reserve(stage) {
                self.give(index, stage);
            }
        }
        Ok(())
    }

    /// Gives a worker a stage that was taken from the schedule.
    fn give(&mut self, index: usize, stage: usize) {
        let node = self.graph.stages[stage].node.as_ref().clone();
        let attempt = self.log.index().get(&node.key).map_or(0, |record| record.attempts) + 1;
        let log_path = self.slots[index].log_path(&self.options.results);
        let log_offset = fs::metadata(&log_path).map_or(0, |data| data.len());
        let slot = &mut self.slots[index];
        let started = LogEvent::Started {
            key: node.key,
            what: describe(&node.stage),
            label: self.graph.label(stage).to_owned(),
            attempt,
            worker: slot.name.clone(),
            remote: matches!(slot.link, Link::Remote { .. }),
            log: Some(LogPart { file: slot.log.as_str().into(), from: log_offset, to: None }),
        };
        // What the kernel of another machine counts, its pilot looks at.
        let oom_kills = if matches!(slot.link, Link::Local { .. }) { kernel_oom_kills() } else { 0 };
        slot.running = Some(Running::new(stage, attempt, log_offset, oom_kills));
        self.free.remove(&index);
        self.running += 1;
        // Before the worker knows: whoever coordinates next must know of the attempt.
        self.note(started);
        let event = SweepEvent::StageStarted {
            slot: index,
            what: describe(&node.stage),
            label: self.graph.label(stage).to_owned(),
            seconds: self.estimates.seconds(&self.graph.stages[stage]),
            key: node.key,
        };
        let node = Box::new(node);
        match &mut self.slots[index].link {
            Link::Local { worker: Some(worker), .. } => worker.send(&Request::Execute { node, attempt }),
            Link::Local { worker: None, .. } => unreachable!("a worker was just started"),
            Link::Remote { pilot, place } => {
                let (pilot, place) = (pilot.clone(), *place);
                if !self.tell(&pilot, &Down::Execute { place, node, attempt }) {
                    return self.unreachable(&pilot);
                }
            }
        }
        (self.events)(event);
    }

    fn receive(&mut self, message: Message) -> Result<(), SweepError> {
        match message {
            Message::Local { slot, generation, line } => self.heard_worker(slot, generation, line),
            Message::Pilot { name, arrival } => {
                self.heard_pilot(&name, arrival);
                Ok(())
            }
        }
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
            let is_here = |slot: &&Slot| matches!(slot.link, Link::Local { .. }) && slot.running.is_some();
            let running = self.slots.iter().filter(is_here).count();
            (self.events)(SweepEvent::Stopping { why: why.to_owned(), running });
        }
    }

    /// Ends all workers at once, here and elsewhere.
    fn kill_all(&mut self) {
        for slot in &mut self.slots {
            if let Link::Local { worker, .. } = &mut slot.link
                && let Some(mut worker) = worker.take()
            {
                worker.kill();
            }
        }
        for name in self.pilots.keys().cloned().collect::<Vec<_>>() {
            self.tell(&name, &Down::Leave { why: "the sweep was stopped".to_owned() });
        }
        for index in 0..self.slots.len() {
            if let Some(running) = self.slots[index].running.take() {
                self.note(LogEvent::Returned {
                    key: self.graph.stages[running.stage].node.key,
                    attempt: running.attempt,
                    why: "the sweep was stopped".to_owned(),
                });
            }
        }
    }

    /// Tells people something that is no event of its own.
    fn say(&mut self, told: String) {
        self.told.push_back(told.clone());
        if self.told.len() > view::SHOWN {
            self.told.pop_front();
        }
        (self.events)(SweepEvent::Told(told));
    }

    /// Writes down what happened. A disk that does not take it ends the sweep after what is running.
    fn note(&mut self, event: LogEvent) {
        if let Err(error) = self.log.write(event) {
            self.storage.get_or_insert_with(|| error.to_string());
            self.stop("the log cannot be written any more; what is running may finish");
        }
    }

    /// Ends a sweep, well or not. Returns how many stages go on at pilots, for whoever coordinates next.
    fn end(&mut self, is_well: bool) -> usize {
        let detached = self.slots.iter().filter(|slot| slot.running.is_some()).count() + self.orphans.len();
        let totals = self.totals();
        let open = totals.stages - totals.cached - totals.made - totals.failed - totals.skipped;
        self.note(LogEvent::Ended { made: totals.made, failed: totals.failed, open });
        let stays = self.options.is_followed && is_well && detached == 0 && !self.stopping;
        if !stays {
            self.standing.clear();
        }
        self.show_live(!stays);
        let _ = self.log.close();
        if stays {
            return detached;
        }
        // Jobs that wait are not needed now; what runs may go on.
        let told = self.recruiter.as_mut().map(|recruiter| recruiter.end()).unwrap_or_default();
        told.into_iter().for_each(|line| self.say(line));
        if detached == 0 || !is_well {
            for name in self.pilots.keys().cloned().collect::<Vec<_>>() {
                self.tell(&name, &Down::Leave { why: "the sweep has ended".to_owned() });
            }
            let gone: Vec<String> =
                self.pilots.iter().filter(|(_, pilot)| pilot.is_gone()).map(|(name, _)| name.clone()).collect();
            gone.iter().for_each(|name| self.meet.forget(name));
            self.meet.clone().close();
        } else {
            let is_busy = |slot: &usize| self.slots[*slot].running.is_some() || self.slots[*slot].late.is_some();
            let idle = self.pilots.iter().filter(|(_, pilot)| !pilot.slots().iter().any(is_busy));
            for name in idle.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
                self.tell(&name, &Down::Leave { why: "the sweep was interrupted".to_owned() });
            }
        }
        detached
    }

    fn expected(&self) -> f64 {
        let workers = self.slots.iter().filter(|slot| slot.retired.is_none()).count();
        let fractions: HashMap<usize, f64> = self
            .slots
            .iter()
            .filter_map(|slot| slot.running.as_ref())
            .map(|running| (running.stage, running.fraction))
            .collect();
        self.schedule.eta(&self.estimates, workers, |stage| fractions.get(&stage).copied().unwrap_or(0.0))
    }

    fn totals(&self) -> Totals {
        let counts = self.schedule.counts();
        Totals {
            stages: self.graph.stages.len(),
            cached: counts.cached,
            made: counts.made,
            failed: counts.failed,
            skipped: counts.skipped,
            eta_seconds: self.eta,
        }
    }

    fn retired(&self) -> Vec<RetiredSlot> {
        let retired = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let reason = slot.retired.clone().filter(|_| matches!(slot.link, Link::Local { .. }))?;
            Some(RetiredSlot { slot: index, device: slot.device.clone(), reason })
        });
        retired.collect()
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

/// The lease that is used where nobody says another.
pub const DEFAULT_LEASE: Duration = LEASE;

/// The time without work after which a pilot is sent home, where nobody says another.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

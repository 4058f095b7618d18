//! A pilot: joins the sweep that runs on a results folder, starts workers on this machine, and relays what they are told and what they say.
//!
//! It holds no plan and decides nothing about stages. It ends when the sweep has ended, when it is told to, or when its time runs out: then it
//! takes no more work, has trainings saved, gives back what is not finished, and says so with its exit code.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use ressa_experiment::{
    StageKey,
    protocol::{Event, Failure, FailureKind, Request},
};
use ressa_runlog::{LogPart, host, nonce};
use ressa_store::Store;

use crate::{
    Stop, SweepError, WorkerCommand,
    meet::{
        Beat, Direction, Down, Hello, Holding, Invitation, Lost, Meet, Pace, Place, Pulse, SpoolReader, SpoolWriter,
        Taken, Up, is_name,
    },
    slot::death,
    worker::{Line, Worker, ending, kernel_oom_kills},
};

/// Time between two looks for a sweep to join.
const LOOK: Duration = Duration::from_millis(200);
/// Signs of life per lease.
const BEATS_PER_LEASE: u32 = 12;
/// How many leases a pilot without a coordinator waits for another one.
const PATIENCE: u32 = 10;
/// Workers in a row that may end before they are ready.
const FALSE_STARTS: u32 = 2;

/// Settings of a pilot.
#[derive(Clone, Debug)]
pub struct PilotOptions {
    /// Results folder of the sweep.
    pub results: PathBuf,
    /// The worker program; what the sweep says of workers is added.
    pub worker: WorkerCommand,
    /// One device argument per worker.
    pub devices: Vec<String>,
    /// Kind of device, as [`crate::Devices::machine_name`] says it.
    pub machine: String,
    /// Its name: a file name that no other pilot of the sweep has. None: made of the machine's, and random.
    pub name: Option<String>,
    /// Job of the cluster's engine; empty without one.
    pub job: String,
    /// Class of workers that it was started for: it is given the stages of that class, and without one every stage.
    pub class: Option<String>,
    /// Name of the machine where the cluster's engine has one for it.
    pub node: Option<String>,
    /// Seconds until this job ends, counted from now.
    pub time_limit: Option<Duration>,
    /// Time before the end at which no work is taken any more and what runs is saved.
    pub grace: Duration,
    /// How long to wait for a sweep where none runs yet.
    pub wait: Duration,
    /// Version and revision of the program.
    pub program: String,
}

/// How a pilot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PilotEnd {
    /// No sweep came to join.
    NoSweep,
    /// There is nothing more to do for it.
    Done(String),
    /// It was asked to end, or its time ran out: what it had is given back, and somebody else may go on.
    GaveBack(String),
}

/// Works for the sweep of a results folder until that ends or this is asked to. `say` is told what happens, in words.
///
/// # Errors
/// No sweep to join, or nothing that can be written or started.
pub fn pilot(options: &PilotOptions, stop: &Stop, say: &mut dyn FnMut(&str)) -> Result<PilotEnd, SweepError> {
    let start = Instant::now();
    let name = options.name.clone().unwrap_or_else(|| format!("{}-{}", host(), nonce()));
    if !is_name(&name) {
        return Err(SweepError::Name { name });
    }
    let Some((meet, invitation)) = join(options, stop, start, say)? else {
        return Ok(PilotEnd::NoSweep);
    };
    let path = meet.folder().join(Direction::Up.folder()).join(&name);
    let writer = SpoolWriter::open(meet.folder(), Direction::Up, &name, meet.token())
        .map_err(|source| SweepError::Write { path, source })?;
    let logs = options.results.join("logs");
    fs::create_dir_all(&logs).map_err(|source| SweepError::Write { path: logs.clone(), source })?;
    let store = Store::reading(options.results.join("store"), invitation.shipped.clone());
    let mut worker = options.worker.clone();
    worker.folder.clone_from(&invitation.folder);
    worker.environment.extend(invitation.environment.iter().cloned());
    worker.arguments.clone_from(&invitation.arguments);
    worker.deterministic = invitation.deterministic;
    say(&format!("joined the sweep in `{}` as `{name}`", options.results.display()));

    let (sender, receiver) = mpsc::channel();
    let places = options.devices.iter().enumerate().map(|(place, device)| Seat {
        place: Place { device: device.clone(), log: format!("logs/{name}-{place}.log") },
        worker: None,
        generation: 0,
        ready: false,
        false_starts: 0,
        given: None,
    });
    let mut pilot = Pilot {
        options,
        meet: meet.clone(),
        name: name.clone(),
        store,
        worker,
        seats: places.collect(),
        writer,
        sender,
        ends_at: options.time_limit.map(|limit| start + limit),
        leaving: None,
        gave_back: false,
        count: 0,
        pace: Pace::default(),
        beaten: None,
        lease: invitation.lease,
    };
    let reader = SpoolReader::new(meet.folder(), Direction::Down, &name, meet.token());
    let _watch = stop.watch();
    let end = pilot.run(reader, &receiver, stop, invitation, say);
    for seat in &mut pilot.seats {
        if let Some(mut worker) = seat.worker.take() {
            worker.kill();
        }
    }
    end
}

/// Waits for a sweep to join; `None` where none came in time.
fn join(
    options: &PilotOptions,
    stop: &Stop,
    start: Instant,
    say: &mut dyn FnMut(&str),
) -> Result<Option<(Meet, Invitation)>, SweepError> {
    let mut is_said = false;
    loop {
        let meet = Meet::join(&options.results)
            .map_err(|source| SweepError::Token { folder: options.results.clone(), source })?;
        if let Some(meet) = meet
            && let Some(invitation) = meet.invitation()
        {
            if invitation.program != options.program {
                return Err(SweepError::OtherProgram { sweep: invitation.program, own: options.program.clone() });
            }
            return Ok(Some((meet, invitation)));
        }
        if stop.requests() > 0 || start.elapsed() > options.wait {
            return Ok(None);
        }
        if !is_said {
            is_said = true;
            let (folder, wait) = (options.results.display(), options.wait.as_secs());
            say(&format!("no sweep runs in `{folder}` yet; waiting for one, {wait} s at most"));
        }
        std::thread::sleep(LOOK);
    }
}

/// A place for a worker.
#[derive(Debug)]
struct Seat {
    place: Place,
    worker: Option<Worker>,
    generation: u32,
    ready: bool,
    false_starts: u32,
    given: Option<Given>,
}

/// A stage that a worker was given.
#[derive(Debug)]
struct Given {
    key: StageKey,
    attempt: u32,
    fraction: f64,
    message: String,
    loss: Option<f64>,
    log_offset: u64,
    oom_kills: u64,
}

/// What a worker of this machine says.
struct Heard {
    seat: usize,
    generation: u32,
    line: Line,
}

struct Pilot<'o> {
    options: &'o PilotOptions,
    meet: Meet,
    name: String,
    store: Store,
    worker: WorkerCommand,
    seats: Vec<Seat>,
    writer: SpoolWriter,
    sender: Sender<Heard>,
    ends_at: Option<Instant>,
    /// Since when it takes no more work, and why.
    leaving: Option<(Instant, String)>,
    gave_back: bool,
    count: u64,
    pace: Pace,
    beaten: Option<Instant>,
    lease: Duration,
}

impl Pilot<'_> {
    fn run(
        &mut self,
        mut reader: SpoolReader,
        receiver: &Receiver<Heard>,
        stop: &Stop,
        invitation: Invitation,
        say: &mut dyn FnMut(&str),
    ) -> Result<PilotEnd, SweepError> {
        let mut segment = 0;
        let mut greeted = Some(invitation.segment);
        let mut pulse = Pulse::new();
        loop {
            let start = Instant::now();
            if let Some(now) = greeted.take().filter(|&now| now != segment) {
                segment = now;
                self.hello(segment)?;
            }
            self.beat();
            let mut downs = Vec::new();
            let read = reader.read(&mut |taken| downs.push(taken));
            if let Err(e) = read {
                say(&format!("messages cannot be read: {e}"));
            }
            for taken in downs {
                match taken {
                    Taken::Message(down) => {
                        if let Some(end) = self.told(down)? {
                            return Ok(end);
                        }
                    }
                    Taken::Refused(why) => say(&format!("refused: {why}")),
                }
            }
            match receiver.recv_timeout(self.pace.pause(start.elapsed())) {
                Ok(heard) => self.heard(heard)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the pilot holds a sender"),
            }
            for heard in receiver.try_iter().collect::<Vec<_>>() {
                self.heard(heard)?;
            }

            if self.leaving.is_none() {
                if stop.requests() > 0 {
                    self.leave("it was asked to end", say)?;
                } else if self.ends_at.is_some_and(|end| Instant::now() + self.options.grace >= end) {
                    self.leave("its time runs out", say)?;
                }
            }
            if let Some((since, why)) = self.leaving.clone() {
                let hurry = stop.requests() > 1 || since.elapsed() >= self.options.grace;
                if hurry {
                    self.give_everything_back()?;
                }
                if self.seats.iter().all(|seat| seat.given.is_none()) {
                    self.say(&Up::Bye { why: why.clone() })?;
                    return Ok(if self.gave_back { PilotEnd::GaveBack(why) } else { PilotEnd::Done(why) });
                }
            }

            let coordinator = self.meet.coordinator();
            if let Some((_, beat)) = &coordinator {
                greeted = Some(beat.segment);
            }
            pulse.look(coordinator.map(|(count, _)| count));
            if self.seats.iter().all(|seat| seat.given.is_none()) {
                if !self.meet.folder().join("token").exists() {
                    return Ok(PilotEnd::Done("the sweep has ended".to_owned()));
                }
                if pulse.still() > self.lease * PATIENCE {
                    return Ok(PilotEnd::GaveBack("no coordinator came back".to_owned()));
                }
            }
            if self.seats.iter().all(|seat| seat.false_starts >= FALSE_STARTS) {
                self.say(&Up::Bye { why: "no worker becomes ready here".to_owned() })?;
                let logs = self.options.results.join("logs");
                return Err(SweepError::NoWorkerHere { logs });
            }
        }
    }

    fn say(&mut self, up: &Up) -> Result<(), SweepError> {
        self.pace.message();
        let path = self.meet.folder().join(Direction::Up.folder()).join(&self.name);
        self.writer.send(up).map_err(|source| SweepError::Write { path, source })
    }

    fn hello(&mut self, segment: u32) -> Result<(), SweepError> {
        let up = Up::Hello(Hello {
            segment,
            host: self.options.node.clone().unwrap_or_else(host),
            job: self.options.job.clone(),
            class: self.options.class.clone(),
            program: self.options.program.clone(),
            machine: self.options.machine.clone(),
            places: self.seats.iter().map(|seat| seat.place.clone()).collect(),
            holding: self.holding(),
        });
        self.say(&up)
    }

    fn holding(&self) -> Vec<Option<Holding>> {
        let held = |given: &Given| Holding {
            key: given.key,
            attempt: given.attempt,
            fraction: given.fraction,
            message: given.message.clone(),
            loss: given.loss,
        };
        self.seats.iter().map(|seat| seat.given.as_ref().map(held)).collect()
    }

    /// Shows that it lives. A disk that fails for a moment must not end what works.
    fn beat(&mut self) {
        if self.beaten.is_some_and(|beaten| beaten.elapsed() < self.lease / BEATS_PER_LEASE) {
            return;
        }
        self.beaten = Some(Instant::now());
        self.count += 1;
        let left =
            self.ends_at.map(|end| end.saturating_duration_since(Instant::now()).saturating_sub(self.options.grace));
        let beat = Beat { seconds_left: left.map(|left| left.as_secs_f64()), holding: self.holding() };
        let _ = self.meet.pulse(&self.name, self.count, &beat);
    }

    /// Does what the coordinator says.
    fn told(&mut self, down: Down) -> Result<Option<PilotEnd>, SweepError> {
        match down {
            Down::Execute { place, node, attempt } => {
                if self.seats.get(place).is_none() || self.leaving.is_some() {
                    // It will be heard of when this pilot says good-bye.
                    return Ok(None);
                }
                self.execute(place, Request::Execute { node, attempt })?;
            }
            Down::End { place, attempt } => {
                if let Some(seat) = self.seats.get_mut(place)
                    && seat.given.as_ref().is_some_and(|given| given.attempt == attempt)
                    && let Some(worker) = &mut seat.worker
                {
                    worker.kill();
                }
            }
            Down::Leave { why } => {
                self.say(&Up::Bye { why: why.clone() })?;
                return Ok(Some(PilotEnd::Done(why)));
            }
        }
        Ok(None)
    }

    fn execute(&mut self, place: usize, request: Request) -> Result<(), SweepError> {
        let Request::Execute { node, attempt } = &request else { return Ok(()) };
        let (key, attempt) = (node.key, *attempt);
        let seat = &mut self.seats[place];
        let log = self.options.results.join(&seat.place.log);
        if seat.worker.is_none() {
            seat.generation += 1;
            seat.ready = false;
            let (sender, generation) = (self.sender.clone(), seat.generation);
            let hand = move |line| sender.send(Heard { seat: place, generation, line }).is_ok();
            match Worker::start(&self.worker, &self.store, &seat.place.device, &log, hand) {
                Ok(worker) => seat.worker = Some(worker),
                Err(error) => {
                    seat.false_starts += 1;
                    let failure = Failure { kind: FailureKind::Killed, message: error.to_string(), log: None };
                    let lost = Some(Lost { key, attempt, failure, log: None });
                    return self.say(&Up::Died { place, how: error.to_string(), ready: false, lost });
                }
            }
        }
        let Some(worker) = &mut seat.worker else { return Ok(()) };
        seat.given = Some(Given {
            key,
            attempt,
            fraction: 0.0,
            message: String::new(),
            loss: None,
            log_offset: worker.log_size(),
            oom_kills: kernel_oom_kills(),
        });
        worker.send(&request);
        Ok(())
    }

    fn heard(&mut self, heard: Heard) -> Result<(), SweepError> {
        let Heard { seat: place, generation, line } = heard;
        let seat = &mut self.seats[place];
        if seat.generation != generation || seat.worker.is_none() {
            return Ok(());
        }
        let part = |seat: &Seat| {
            let given = seat.given.as_ref()?;
            let to = seat.worker.as_ref().map(Worker::log_size);
            Some(LogPart { file: seat.place.log.as_str().into(), from: given.log_offset, to })
        };
        match line {
            Line::Closed => self.bury(place),
            Line::Event(Event::Progress { fraction, message, loss, .. }) => {
                if let Some(given) = &mut seat.given {
                    (given.fraction, given.message, given.loss) = (fraction, message, loss);
                }
                Ok(())
            }
            Line::Event(event) => {
                let mut log = None;
                match &event {
                    Event::Ready { .. } => {
                        seat.ready = true;
                        seat.false_starts = 0;
                    }
                    Event::Done { .. } | Event::Failed { .. } | Event::Returned { .. } => {
                        log = part(seat);
                        seat.given = None;
                        self.gave_back |= matches!(event, Event::Returned { .. });
                    }
                    Event::Progress { .. } | Event::Verified { .. } => {}
                }
                self.say(&Up::Said { place, event, log })
            }
        }
    }

    /// A worker's output has ended.
    fn bury(&mut self, place: usize) -> Result<(), SweepError> {
        let seat = &mut self.seats[place];
        let Some(mut worker) = seat.worker.take() else { return Ok(()) };
        let status = worker.wait().ok();
        let how = status.map_or_else(|| "unknown end".to_owned(), ending);
        let ready = seat.ready;
        if !ready {
            seat.false_starts += 1;
        }
        let given = seat.given.take();
        let lost = given.map(|given| {
            let text = worker.log_since(given.log_offset);
            let (from, to) = (given.log_offset, Some(worker.log_size()));
            Lost {
                key: given.key,
                attempt: given.attempt,
                failure: death(status, None, given.oom_kills, &text),
                log: Some(LogPart { file: seat.place.log.as_str().into(), from, to }),
            }
        });
        self.say(&Up::Died { place, how, ready, lost })
    }

    /// Takes no more work, and has what can be saved be saved.
    fn leave(&mut self, why: &str, say: &mut dyn FnMut(&str)) -> Result<(), SweepError> {
        self.leaving = Some((Instant::now(), why.to_owned()));
        say(&format!("{why}: no more work is taken, and what runs is saved"));
        for seat in self.seats.iter().filter(|seat| seat.given.is_some()) {
            if let Some(worker) = &seat.worker {
                worker.interrupt();
            }
        }
        self.say(&Up::Leaving { why: why.to_owned() })
    }

    /// Ends what did not end by itself; its stages go to others.
    fn give_everything_back(&mut self) -> Result<(), SweepError> {
        for place in 0..self.seats.len() {
            let seat = &mut self.seats[place];
            let Some(given) = seat.given.take() else { continue };
            if let Some(mut worker) = seat.worker.take() {
                worker.kill();
            }
            self.gave_back = true;
            let event = Event::Returned { key: given.key, attempt: given.attempt };
            self.say(&Up::Said { place, event, log: None })?;
        }
        Ok(())
    }
}

//! Pilots: workers of other machines that join, work, fall silent, come back and leave.

use std::time::{Duration, Instant};

use ressa_experiment::{Stage, StageKey, protocol::Event};
use ressa_runlog::{Circumstances, LogEvent, LogPart};

use super::{Coordinator, Orphan};
use crate::{
    SweepEvent,
    meet::{Arrival, Beat, Direction, Down, Hello, Holding, Lost, SpoolWriter, Up},
    recruit::ClassWork,
    schedule::Resident,
    slot::{Link, Running, Slot},
};

/// Time that is left to a pilot after which it is given nothing more: what it has must be saved.
const MARGIN: f64 = 30.0;
/// Looks without a stage that a pilot was given, after which it does not have it.
const MISSED: u32 = 3;
/// Seconds that are enough for a training to get somewhere before it is saved.
const WORTHWHILE: f64 = 600.0;

/// A pilot, as the coordinator knows it.
#[derive(Debug)]
pub(super) struct Pilot {
    writer: SpoolWriter,
    /// Its slots, by place.
    slots: Vec<usize>,
    /// Job of the cluster's engine.
    pub job: String,
    /// Kind of device: what times are comparable on.
    machine: String,
    /// The class that it works for; one without takes everything.
    pub class: Option<usize>,
    /// Seconds until its job ends, as of when that was said.
    left: Option<(f64, Instant)>,
    /// The most that these were.
    whole: f64,
    /// Since when it has nothing to do.
    idle: Option<Instant>,
    state: Presence,
}

/// Time that the job of a pilot has, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct JobTime {
    /// Left to work in.
    pub left: f64,
    /// Left to work in when it came.
    pub whole: f64,
}

impl JobTime {
    /// Whether a stage that is expected to take so many seconds is worth beginning.
    ///
    /// A training that is interrupted resumes elsewhere, but pays its start twice. Anything else would be lost: where it is too long even
    /// for a new job, it is tried at the beginning of one, for estimates may be wrong.
    pub fn suffices(self, stage: &Stage, seconds: f64) -> bool {
        let wanted = if stage.trains() { seconds.min(WORTHWHILE) } else { seconds };
        self.left > 0.0 && self.left >= wanted.min(0.9 * self.whole)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Working,
    /// It finishes what it has.
    Leaving,
    /// No sign of life.
    Silent,
    Gone,
}

impl Pilot {
    /// Whether it may be given a stage.
    pub fn takes_work(&self) -> bool {
        self.state == Presence::Working
    }

    /// Its slots, by place.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        self.state == Presence::Gone
    }

    /// Time that a stage may take there; `None` where nothing ends its job.
    pub fn time(&self) -> Option<JobTime> {
        let usable = |left: f64| left - MARGIN;
        self.left.map(|(left, since)| JobTime {
            left: usable(left - since.elapsed().as_secs_f64()),
            whole: usable(self.whole),
        })
    }
}

impl Coordinator<'_> {
    /// Attempts at pilots that an earlier coordinator gave: they are waited for as long as a sign of life may take.
    pub(super) fn expect_pilots(&mut self) {
        let wait = self.options.lease + Duration::from_secs(5);
        let mut orphans = Vec::new();
        for (position, stage) in self.graph.stages.iter().enumerate() {
            let key = stage.node.key;
            let Some(record) = self.log.index().get(&key) else { continue };
            for (&attempt, open) in &record.open {
                // Others were superseded, or were children of a coordinator that is dead.
                orphans.push((key, position, attempt, open.clone(), attempt == record.attempts));
            }
        }
        for (key, stage, attempt, open, is_last) in orphans {
            if open.remote && is_last && self.schedule.reserve(stage) {
                let until = Instant::now() + wait;
                self.orphans.insert(key, Orphan { stage, attempt, worker: open.worker, until });
            } else if !open.remote {
                self.note(LogEvent::Returned { key, attempt, why: "its coordinator died".to_owned() });
            }
        }
    }

    pub(super) fn heard_pilot(&mut self, name: &str, arrival: Arrival) {
        match arrival {
            Arrival::Said(Up::Hello(hello)) => {
                if hello.segment == self.log.number() {
                    self.joined(name, hello);
                }
            }
            Arrival::Said(Up::Said { place, event, log }) => self.relayed(name, place, event, log),
            Arrival::Said(Up::Died { place, how, ready, lost }) => self.died(name, place, how, ready, lost),
            Arrival::Said(Up::Leaving { .. }) => {
                if let Some(pilot) = self.pilots.get_mut(name).filter(|pilot| pilot.state != Presence::Gone) {
                    pilot.state = Presence::Leaving;
                }
            }
            Arrival::Said(Up::Bye { why }) => self.lost(name, Presence::Gone, &why),
            Arrival::Beat(beat) => self.beat(name, beat),
            Arrival::Silent => {
                let why = format!("no sign of life for {} s", self.options.lease.as_secs_f64());
                self.lost(name, Presence::Silent, &why);
            }
            Arrival::Refused(why) => {
                // Somebody who says it again and again is heard the first, the tenth, the hundredth time.
                let times = self.refusals.entry((name.to_owned(), why.clone())).or_default();
                *times += 1;
                let times = *times;
                if 10_u64.pow(times.ilog10()) == times {
                    let again = if times == 1 { String::new() } else { format!(" ({times} times by now)") };
                    self.note(LogEvent::Refused { worker: name.to_owned(), why: format!("{why}{again}") });
                    self.say(format!("refused from `{name}`: {why}{again}"));
                }
            }
        }
    }

    /// Says something to a pilot. Whether it was written.
    pub(super) fn tell(&mut self, name: &str, down: &Down) -> bool {
        let pilot = self.pilots.get_mut(name).filter(|pilot| pilot.state != Presence::Gone);
        pilot.is_some_and(|pilot| pilot.writer.send(down).is_ok())
    }

    /// What decides whether a stage that failed at a pilot may succeed elsewhere, or later.
    pub(super) fn circumstances_at(&self, pilot: &str) -> Circumstances {
        let mut circumstances = self.circumstances.clone();
        if let Some(pilot) = self.pilots.get(pilot) {
            circumstances.machine.clone_from(&pilot.machine);
            circumstances.slots = pilot.slots.len();
        }
        circumstances
    }

    fn joined(&mut self, name: &str, hello: Hello) {
        let Hello { segment: _, host, job, class, program, machine, places, holding } = hello;
        if self.pilots.contains_key(name) {
            return;
        }
        let writer = match SpoolWriter::open(self.meet.folder(), Direction::Down, name, self.meet.token()) {
            Ok(writer) => writer,
            Err(error) => return self.say(format!("`{name}` cannot be answered: {error}")),
        };
        let (class, unwanted) = self.class_of(class.as_deref());
        let unwanted = match program == self.options.program {
            true => unwanted,
            false => Some(format!("it runs {program}, this sweep {}", self.options.program)),
        };
        let first = self.slots.len();
        let places = if unwanted.is_none() { places } else { Vec::new() };
        let slots: Vec<usize> = (first..first + places.len()).collect();
        let state = if unwanted.is_none() { Presence::Working } else { Presence::Leaving };
        let pilot = Pilot { writer, slots, job, machine, class, left: None, whole: 0.0, idle: None, state };
        self.pilots.insert(name.to_owned(), pilot);
        if let Some(why) = unwanted {
            self.say(format!("`{name}` was sent away: {why}"));
            self.tell(name, &Down::Leave { why });
            return;
        }
        for (place, info) in places.into_iter().enumerate() {
            let link = Link::Remote { pilot: name.to_owned(), place };
            let worker = format!("{name}/{place}");
            self.slots.push(Slot::new(worker, host.clone(), info.device, info.log, link));
            let index = first + place;
            match holding.get(place).cloned().flatten() {
                Some(held) => self.adopt(index, &held),
                None => drop(self.free.insert(index)),
            }
        }
    }

    /// The class of a pilot that names one, and why there is no use for it. Without a profile every worker takes everything.
    fn class_of(&self, name: Option<&str>) -> (Option<usize>, Option<String>) {
        let Some(name) = name.filter(|_| self.recruiter.is_some()) else { return (None, None) };
        let class = self.classes.position(name);
        let known = || format!("this sweep has no class `{name}`, only {}", self.classes.names().join(", "));
        (class, if class.is_none() { Some(known()) } else { None })
    }

    /// A pilot of an earlier coordinator has a stage: it goes on if nobody else has it.
    fn adopt(&mut self, index: usize, held: &Holding) {
        let orphan = self.orphans.remove(&held.key).filter(|orphan| orphan.attempt == held.attempt);
        let Some(orphan) = orphan else {
            self.slots[index].late = Some((held.key, held.attempt));
            return;
        };
        let slot = &mut self.slots[index];
        slot.ready = true;
        slot.running = Some(Running::new(orphan.stage, held.attempt, 0, 0));
        self.running += 1;
    }

    /// The slot of a pilot's place.
    fn slot_of(&self, name: &str, place: usize) -> Option<usize> {
        self.pilots.get(name)?.slots.get(place).copied()
    }

    fn relayed(&mut self, name: &str, place: usize, event: Event, log: Option<LogPart>) {
        let ended = match &event {
            Event::Done { key, attempt, .. }
            | Event::Failed { key, attempt, .. }
            | Event::Returned { key, attempt } => Some((*key, *attempt)),
            Event::Ready { .. } | Event::Progress { .. } | Event::Verified { .. } => None,
        };
        let Some((key, attempt)) = ended else {
            if let Some(index) = self.slot_of(name, place) {
                self.said(index, event, log);
            }
            return;
        };
        if let Some(index) = self.slot_of(name, place) {
            let own = self.slots[index]
                .running
                .as_ref()
                .is_some_and(|running| running.attempt == attempt && self.graph.stages[running.stage].node.key == key);
            if own {
                return self.said(index, event, log);
            }
            self.no_longer_late(index, key, attempt);
        }
        // Said to a coordinator that died before it heard it.
        if self.orphans.get(&key).is_some_and(|orphan| orphan.attempt == attempt) {
            let Some(orphan) = self.orphans.remove(&key) else { return };
            return match event {
                Event::Done { seconds, .. } => self.finish(None, orphan.stage, attempt, seconds, log),
                Event::Failed { failure, .. } => {
                    let text = self.text_of(log.as_ref());
                    self.fail(None, orphan.stage, attempt, failure, &text, f64::INFINITY);
                }
                _ => self.give_back(orphan.stage, attempt, &format!("{} gave it back", orphan.worker)),
            };
        }
        // What was heard before has no output any more.
        if matches!(event, Event::Done { .. }) && self.store.finished(&key.hex(), attempt).is_ok() {
            self.too_late(&key, attempt, name);
        }
    }

    /// A worker that was at an attempt of somebody else's is free again.
    fn no_longer_late(&mut self, index: usize, key: StageKey, attempt: u32) {
        let slot = &mut self.slots[index];
        if slot.late == Some((key, attempt)) {
            slot.late = None;
            if slot.is_free() {
                self.free.insert(index);
            }
        }
    }

    fn died(&mut self, name: &str, place: usize, how: String, ready: bool, lost: Option<Lost>) {
        let Some(index) = self.slot_of(name, place) else { return };
        let worker = self.slots[index].name.clone();
        self.note(LogEvent::WorkerDown { worker, why: how.clone() });
        (self.events)(SweepEvent::WorkerDied { slot: index, message: format!("{how} ({name})") });
        if !ready {
            self.slots[index].false_starts += 1;
        }
        if let Some(Lost { key, attempt, failure, log }) = lost {
            if let Some(running) = self.ended(index, &key, attempt) {
                if ready {
                    let text = self.text_of(log.as_ref());
                    let took = running.since.elapsed().as_secs_f64();
                    self.fail(Some(index), running.stage, attempt, failure, &text, took);
                } else {
                    self.give_back(running.stage, attempt, &format!("its worker ended before it was ready ({how})"));
                }
            }
            self.no_longer_late(index, key, attempt);
        }
        let slot = &mut self.slots[index];
        if slot.false_starts >= 2 {
            slot.retired = Some(format!("no worker becomes ready there ({how})"));
            self.free.remove(&index);
        }
    }

    fn beat(&mut self, name: &str, beat: Beat) {
        let Some(pilot) = self.pilots.get_mut(name) else { return };
        pilot.left = beat.seconds_left.map(|left| (left, Instant::now()));
        pilot.whole = beat.seconds_left.map_or(0.0, |left| left.max(pilot.whole));
        let slots = pilot.slots.clone();
        let came_back = pilot.state == Presence::Silent;
        if came_back {
            pilot.state = Presence::Working;
            self.say(format!("`{name}` is back"));
        }
        for (place, held) in beat.holding.into_iter().enumerate() {
            let Some(&index) = slots.get(place) else { continue };
            if came_back {
                let slot = &mut self.slots[index];
                slot.retired = None;
                slot.late = held.as_ref().map(|held| (held.key, held.attempt));
                if slot.is_free() {
                    self.free.insert(index);
                }
            }
            self.look_for_lost(index, held.as_ref());
            if let Some(held) = held {
                self.progressed(index, &held.key, held.fraction, held.message, held.loss);
            }
        }
    }

    /// Sends pilots home that were started for this sweep and have had nothing to do for a while: all of a class without work, or whose work
    /// is too long for the time that they have left, and all but one of a class whose work waits for others.
    pub(super) fn release_idle(&mut self, work: &[ClassWork]) {
        let gate_only = self.gate.is_none();
        let limit = self.options.idle;
        let mut staying = vec![0; work.len()];
        let mut idle: Vec<(String, usize)> = Vec::new();
        for (name, pilot) in &mut self.pilots {
            let Some(class) = pilot.class.filter(|_| pilot.takes_work() && !pilot.job.is_empty()) else { continue };
            staying[class] += 1;
            let is_idle = |slot: &Slot| slot.running.is_none() && slot.late.is_none();
            if pilot.slots.iter().all(|&slot| is_idle(&self.slots[slot])) {
                if pilot.idle.get_or_insert_with(Instant::now).elapsed() >= limit {
                    idle.push((name.clone(), class));
                }
            } else {
                pilot.idle = None;
            }
        }
        for (name, class) in idle {
            // What could begin and does not was not given to it: it takes too long for the time that its job has left.
            let could_begin = self.schedule.next(&Resident::default(), Some(class), gate_only, |_| true).is_some();
            let least = usize::from(!could_begin && work[class].active + work[class].waiting > 0);
            if staying[class] > least {
                staying[class] -= 1;
                self.tell(&name, &Down::Leave { why: "there is nothing to do for it now".to_owned() });
                if let Some(pilot) = self.pilots.get_mut(&name) {
                    pilot.state = Presence::Leaving;
                }
            }
        }
    }

    /// A stage that a pilot was given and does not have, look after look, was never heard of there.
    fn look_for_lost(&mut self, index: usize, held: Option<&Holding>) {
        let (graph, lease) = (self.graph, self.options.lease);
        let Some(running) = &mut self.slots[index].running else { return };
        let key = graph.stages[running.stage].node.key;
        if held.is_some_and(|held| held.key == key && held.attempt == running.attempt) {
            running.missed = 0;
            return;
        }
        running.missed += 1;
        if running.missed >= MISSED && running.since.elapsed() >= lease {
            let attempt = running.attempt;
            if let Some(running) = self.ended(index, &key, attempt) {
                self.give_back(running.stage, attempt, "its worker never heard of it");
            }
        }
    }

    /// A pilot cannot be given orders: until it shows that it lives it counts as gone, so that it is not tried again at once.
    pub(super) fn unreachable(&mut self, name: &str) {
        self.lost(name, Presence::Silent, "what it should be told cannot be written");
    }

    /// A pilot is gone, for now or for good: what it had is given to others.
    fn lost(&mut self, name: &str, state: Presence, why: &str) {
        let Some(pilot) = self.pilots.get_mut(name) else { return };
        let before = std::mem::replace(&mut pilot.state, state);
        if before == Presence::Gone || before == state {
            return;
        }
        for index in pilot.slots.clone() {
            let slot = &mut self.slots[index];
            self.free.remove(&index);
            slot.late = None;
            slot.retired = Some(why.to_owned());
            let (worker, running) = (slot.name.clone(), slot.running.take());
            self.note(LogEvent::WorkerDown { worker, why: why.to_owned() });
            if let Some(running) = running {
                self.running -= 1;
                self.give_back(running.stage, running.attempt, &format!("its worker is gone: {why}"));
            }
        }
        self.say(format!("`{name}` is gone: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use ressa_experiment::{chain::stages, model::ModelConfig};

    use super::*;

    #[test]
    fn a_stage_is_begun_where_its_time_suffices() {
        let run = ressa_experiment::RunConfig::of(ModelConfig::default());
        let evaluate = stages(&run).into_iter().find(|node| node.stage.kind() == "evaluate").unwrap().stage;
        let training = Stage::Dense { preset: None, checkpoint: None, data: Default::default(), seed: 0, steps: None };
        let new = |whole: f64| JobTime { left: whole, whole };
        let old = |left: f64| JobTime { left, whole: 14_000.0 };
        assert!(new(14_000.0).suffices(&evaluate, 13_000.0) && !old(5_000.0).suffices(&evaluate, 13_000.0));
        // Too long for any job: a new one tries.
        assert!(new(14_000.0).suffices(&evaluate, 1e6) && !old(5_000.0).suffices(&evaluate, 1e6));
        // A training resumes elsewhere.
        assert!(old(5_000.0).suffices(&training, 1e6) && !old(500.0).suffices(&training, 1e6));
        assert!(old(500.0).suffices(&training, 400.0) && !old(-1.0).suffices(&training, 0.0));
    }
}

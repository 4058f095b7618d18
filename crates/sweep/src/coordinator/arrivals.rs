//! Pilots: workers of other machines that join, work, fall silent, come back and leave.

use std::time::{Duration, Instant};

use ressa_experiment::{Stage, StageKey, protocol::Event};
use ressa_runlog::{LogEvent, LogPart};

use super::{Coordinator, Orphan};
use crate::{
    SweepEvent,
    meet::{Arrival, Beat, Direction, Down, Hello, Holding, Lost, SpoolWriter, Up},
    recruit::ClassWork,
    slot::{Link, Running, Slot},
};

/// Time that is left to a pilot after which it is given nothing more: what it has must be saved.
const MARGIN: f64 = 30.0;
/// Seconds that are enough for a training to get somewhere before it is saved.
const WORTHWHILE: f64 = 600.0;
/// Time without work after which the job of a pilot is given back to the cluster.
const IDLE: Duration = Duration::from_secs(60);

/// A pilot, as the coordinator knows it.
#[derive(Debug)]
pub(super) struct Pilot {
    writer: Option<SpoolWriter>,
    /// Its slots, by place.
    slots: Vec<usize>,
    /// Job of the cluster's engine.
    pub job: String,
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
    /// A training that is interrupted goes on elsewhere, but pays its start twice. Anything else would be lost: where it is too long even
    /// for a new job, it is tried at the beginning of one, for estimates may be wrong.
    pub fn suffices(self, stage: &Stage, seconds: f64) -> bool {
        let wanted = match stage {
            Stage::Adapt { .. } | Stage::Dense { .. } => seconds.min(WORTHWHILE),
            _ => seconds,
        };
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
                self.note(LogEvent::Refused { worker: name.to_owned(), why: why.clone() });
                self.say(format!("refused from `{name}`: {why}"));
            }
        }
    }

    /// Says something to a pilot. One that cannot be reached falls silent by itself.
    pub(super) fn tell(&mut self, name: &str, down: &Down) {
        let Some(pilot) = self.pilots.get_mut(name).filter(|pilot| pilot.state != Presence::Gone) else { return };
        if let Some(writer) = &mut pilot.writer {
            let _ = writer.send(down);
        }
    }

    fn joined(&mut self, name: &str, hello: Hello) {
        let Hello { segment: _, host, job, class, program, machine: _, places, holding } = hello;
        if self.pilots.contains_key(name) {
            return;
        }
        if program != self.options.program {
            let told = format!("`{name}` runs {program}, this sweep {}; it was sent away", self.options.program);
            self.say(told);
        }
        let writer = SpoolWriter::open(self.meet.folder(), Direction::Down, name, self.meet.token()).ok();
        let first = self.slots.len();
        let slots: Vec<usize> = (first..first + places.len()).collect();
        let state = Presence::Working;
        let class = class.and_then(|class| self.classes.position(&class));
        let pilot = Pilot { writer, slots, job, class, left: None, whole: 0.0, idle: None, state };
        self.pilots.insert(name.to_owned(), pilot);
        if program != self.options.program {
            return self.tell(name, &Down::Leave { why: "it is of another version of the program".to_owned() });
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
            if let Some(held) = held {
                self.progressed(index, &held.key, held.fraction, held.message, held.loss);
            }
        }
    }

    /// Sends pilots home that were started for this sweep and have had nothing to do for a while: all of a class without work, all but one of
    /// a class whose work waits for others.
    pub(super) fn release_idle(&mut self, work: &[ClassWork]) {
        let mut staying = vec![0; work.len()];
        let mut idle: Vec<(String, usize)> = Vec::new();
        for (name, pilot) in &mut self.pilots {
            let Some(class) = pilot.class.filter(|_| pilot.takes_work() && !pilot.job.is_empty()) else { continue };
            staying[class] += 1;
            if pilot.slots.iter().all(|&slot| self.slots[slot].is_free()) {
                if pilot.idle.get_or_insert_with(Instant::now).elapsed() >= IDLE {
                    idle.push((name.clone(), class));
                }
            } else {
                pilot.idle = None;
            }
        }
        for (name, class) in idle {
            let least = usize::from(work[class].active + work[class].waiting > 0);
            if staying[class] > least {
                staying[class] -= 1;
                self.tell(&name, &Down::Leave { why: "there is nothing to do for it now".to_owned() });
                if let Some(pilot) = self.pilots.get_mut(&name) {
                    pilot.state = Presence::Leaving;
                }
            }
        }
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

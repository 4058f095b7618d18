//! Workers of this machine: children of the coordinator.

use std::time::{Duration, Instant};

use ressa_experiment::protocol::Event;
use ressa_runlog::{LogEvent, LogPart};

use super::{Coordinator, Message};
use crate::{
    RetiredSlot, SweepError, SweepEvent,
    meet::Down,
    slot::{Link, death, timeout},
    worker::{Line, Worker, ending, last_lines},
};

/// Workers in a row that may end before they are ready.
const FALSE_STARTS: u32 = 2;

/// Maximum time from the start of a worker until it is ready: libraries may come from a slow disk, but a device that hangs must not hold up
/// a sweep for ever.
const START_LIMIT: Duration = Duration::from_secs(600);

impl Coordinator<'_> {
    /// Sees that a place of this machine has a worker.
    pub(super) fn start_worker(&mut self, index: usize) -> Result<(), SweepError> {
        let results = &self.options.results;
        let slot = &mut self.slots[index];
        let log = slot.log_path(results);
        let Link::Local { worker, generation } = &mut slot.link else { return Ok(()) };
        if worker.is_some() {
            return Ok(());
        }
        *generation += 1;
        slot.ready = false;
        slot.resident = Default::default();
        let (sender, number) = (self.sender.clone(), *generation);
        let hand = move |line| sender.send(Message::Local { slot: index, generation: number, line }).is_ok();
        *worker = Some(Worker::start(&self.options.worker, self.store, &slot.device, &log, hand)?);
        Ok(())
    }

    /// Gives a place up: no worker becomes ready there. The others go on; without any other, that ends the sweep.
    pub(super) fn retire(&mut self, index: usize, error: SweepError) -> Result<(), SweepError> {
        self.slots[index].retired = Some(error.to_string());
        self.free.remove(&index);
        let retired = self.retired();
        let nobody = self.slots.iter().all(|slot| slot.retired.is_some()) && self.recruiter.is_none();
        if nobody {
            let same = retired.iter().all(|slot| slot.reason == retired[0].reason);
            return Err(if same { error } else { SweepError::NoWorkers { retired } });
        }
        let told: Option<RetiredSlot> = retired.into_iter().find(|slot| slot.slot == index);
        if let Some(slot) = told {
            (self.events)(SweepEvent::SlotRetired(slot));
        }
        Ok(())
    }

    pub(super) fn heard_worker(&mut self, index: usize, generation: u32, line: Line) -> Result<(), SweepError> {
        match &self.slots[index].link {
            Link::Local { worker: Some(_), generation: now } if *now == generation => {}
            _ => return Ok(()),
        }
        match line {
            Line::Closed => self.bury(index),
            Line::Event(event) => {
                let log = self.slots[index].running.as_ref().map(|running| running.log_offset);
                let log = log.map(|from| self.log_part(index, from));
                self.said(index, event, log);
                Ok(())
            }
        }
    }

    /// What a worker of this machine has logged since `from`.
    fn log_part(&mut self, index: usize, from: u64) -> LogPart {
        let slot = &mut self.slots[index];
        let to = slot.worker().map(|worker| worker.log_size());
        LogPart { file: slot.log.as_str().into(), from, to }
    }

    /// What a worker, here or elsewhere, says of its stage.
    pub(super) fn said(&mut self, index: usize, event: Event, log: Option<LogPart>) {
        match event {
            Event::Ready { device, .. } => {
                let slot = &mut self.slots[index];
                slot.ready = true;
                slot.false_starts = 0;
                // The limit of a stage is not about loading libraries.
                if let Some(running) = &mut slot.running {
                    running.since = Instant::now();
                }
                slot.device.clone_from(&device);
                let up = LogEvent::WorkerUp {
                    worker: slot.name.clone(),
                    host: slot.host.clone(),
                    device: device.clone(),
                    job: match &slot.link {
                        Link::Local { .. } => String::new(),
                        Link::Remote { pilot, .. } => {
                            self.pilots.get(pilot).map_or_else(String::new, |p| p.job.clone())
                        }
                    },
                };
                self.note(up);
                let slot = &self.slots[index];
                let device = match slot.link {
                    Link::Local { .. } => device,
                    Link::Remote { .. } => format!("{device} of {}", slot.host),
                };
                (self.events)(SweepEvent::WorkerReady { slot: index, device });
            }
            Event::Progress { key, fraction, message, loss } => {
                self.progressed(index, &key, fraction, message, loss);
            }
            Event::Done { key, attempt, seconds } => {
                if let Some(running) = self.ended(index, &key, attempt) {
                    self.finish(Some(index), running.stage, attempt, seconds, log);
                }
            }
            Event::Returned { key, attempt } => {
                if let Some(running) = self.ended(index, &key, attempt) {
                    self.give_back(running.stage, attempt, "its worker was asked to give it back");
                }
            }
            Event::Failed { key, attempt, failure } => {
                if let Some(running) = self.ended(index, &key, attempt) {
                    let text = self.text_of(log.as_ref());
                    let took = running.since.elapsed().as_secs_f64();
                    self.fail(Some(index), running.stage, attempt, failure, &text, took);
                }
            }
            Event::Verified { .. } => {}
        }
    }

    /// A worker's output has ended: records what that means.
    fn bury(&mut self, index: usize) -> Result<(), SweepError> {
        let slot = &mut self.slots[index];
        let Link::Local { worker, .. } = &mut slot.link else { return Ok(()) };
        let Some(mut worker) = worker.take() else { return Ok(()) };
        let status = worker.wait().ok();
        let how = status.map_or_else(|| "unknown end".to_owned(), ending);
        let running = slot.running.take();
        if running.is_some() {
            self.running -= 1;
        }
        if slot.retired.is_none() {
            self.free.insert(index);
        }
        let timed_out = running.as_ref().and_then(|running| running.timed_out);
        let began = running.as_ref().map_or(0, |running| running.log_offset);
        let log = worker.log_since(began);
        let name = slot.name.clone();
        if !slot.ready {
            let how = timed_out.map_or(how, |limit| format!("not ready after {} s", limit.as_secs()));
            slot.false_starts += 1;
            let is_given_up = slot.false_starts >= FALSE_STARTS;
            let device = slot.device.clone();
            if let Some(running) = running {
                self.give_back(
                    running.stage,
                    running.attempt,
                    &format!("its worker ended before it was ready ({how})"),
                );
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
        self.note(LogEvent::WorkerDown { worker: name, why: message.clone() });
        (self.events)(SweepEvent::WorkerDied { slot: index, message });
        if let Some(running) = running {
            let took = running.since.elapsed().as_secs_f64();
            let key = self.graph.stages[running.stage].node.key;
            // The output may be finished although the worker's last word did not come through.
            if self.store.finished(&key.to_string(), running.attempt).is_ok() {
                self.finish(Some(index), running.stage, running.attempt, took, None);
                return Ok(());
            }
            let failure = death(status, running.timed_out, running.oom_kills, &log);
            self.fail(Some(index), running.stage, running.attempt, failure, &log, took);
        }
        Ok(())
    }

    /// Ends workers whose stage, or whose start, takes longer than allowed; the end of a child is then received like any other.
    pub(super) fn end_overdue(&mut self) {
        let mut overdue = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let limit = if slot.ready { self.options.timeout } else { Some(START_LIMIT) };
            let (Some(limit), Some(running)) = (limit, &mut slot.running) else { continue };
            if running.since.elapsed() <= limit || running.timed_out.is_some() {
                continue;
            }
            running.timed_out = Some(limit);
            match &mut slot.link {
                Link::Local { worker: Some(worker), .. } => worker.kill(),
                Link::Local { worker: None, .. } => {}
                Link::Remote { .. } => overdue.push((index, limit)),
            }
        }
        for (index, limit) in overdue {
            let Some(running) = self.slots[index].running.take() else { continue };
            self.running -= 1;
            let Link::Remote { pilot, place } = &self.slots[index].link else { continue };
            let (pilot, place, attempt) = (pilot.clone(), *place, running.attempt);
            self.tell(&pilot, &Down::End { place, attempt });
            // Its worker has to end before the place can be used again.
            self.slots[index].late = Some((self.graph.stages[running.stage].node.key, attempt));
            let took = running.since.elapsed().as_secs_f64();
            self.fail(Some(index), running.stage, attempt, timeout(limit), "", took);
        }
    }
}

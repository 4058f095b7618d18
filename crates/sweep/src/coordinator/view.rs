//! What the coordinator shows of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use ressa_runlog::host;

use super::Coordinator;
use crate::{
    describe,
    live::{FailureStatus, StageStatus, Status, WorkerStatus},
    slot::{Link, Slot},
};

/// Failures and remarks that the view holds.
pub(super) const SHOWN: usize = 50;
/// Workers that the view holds.
const WORKERS: usize = 100;

impl Coordinator<'_> {
    /// Writes the live view.
    pub(super) fn show_live(&mut self, ended: bool) {
        let totals = self.totals();
        // Busy ones first, then idle ones.
        let mut slots: Vec<&Slot> = self.slots.iter().filter(|slot| !self.has_left(slot)).collect();
        slots.sort_by_key(|slot| (slot.running.is_none(), !slot.is_free()));
        let workers = slots.iter().take(WORKERS).map(|slot| self.worker_status(slot)).collect();
        let failures = self.failed.iter().rev().take(SHOWN).rev().map(|failed| FailureStatus {
            key: failed.key,
            what: failed.what.clone(),
            label: failed.label.clone(),
            kind: failed.failure.kind.name().to_owned(),
            message: failed.failure.message.clone(),
        });
        let status = Status {
            title: self.options.title.clone(),
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64),
            ended,
            host: host(),
            pid: std::process::id(),
            runs: self.graph.runs.len(),
            complete: self.schedule.complete_runs(),
            stages: totals.stages,
            cached: totals.cached,
            made: totals.made,
            failed: totals.failed,
            skipped: totals.skipped,
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            eta_seconds: totals.eta_seconds,
            cluster: self.standing.clone(),
            failures: failures.collect(),
            workers,
            other_workers: slots.len().saturating_sub(WORKERS),
            told: self.told.iter().cloned().collect(),
        };
        self.live.show(&status);
    }

    /// Whether a slot is one of a pilot that ended.
    fn has_left(&self, slot: &Slot) -> bool {
        match &slot.link {
            Link::Local { .. } => false,
            Link::Remote { pilot, .. } => self.pilots.get(pilot).is_none_or(super::arrivals::Pilot::is_gone),
        }
    }

    fn worker_status(&self, slot: &Slot) -> WorkerStatus {
        let stage = slot.running.as_ref().map(|running| {
            let stage = &self.graph.stages[running.stage];
            StageStatus {
                key: stage.node.key,
                what: describe(&stage.node.stage),
                label: self.graph.label(running.stage).to_owned(),
                attempt: running.attempt,
                fraction: running.fraction,
                message: running.message.clone(),
                losses: running.losses.points(),
                seconds: running.since.elapsed().as_secs_f64(),
                awaited_by: stage.dependents.len(),
            }
        });
        let state = match (&slot.retired, &slot.late, &stage, slot.ready) {
            (Some(why), ..) => why.clone(),
            (None, Some(_), ..) => "finishing what was given to another".to_owned(),
            (None, None, Some(_), true) => "busy".to_owned(),
            (None, None, Some(_), false) => "starting".to_owned(),
            (None, None, None, _) => "idle".to_owned(),
        };
        WorkerStatus { name: slot.name.clone(), host: slot.host.clone(), device: slot.device.clone(), state, stage }
    }
}

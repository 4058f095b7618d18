//! Plain lines: at most one per event, and no more of the unimportant ones than a log can bear.

use std::time::{Duration, Instant};

use ressa_sweep::SweepEvent;

use super::{opening, pace::Pace, trouble};
use crate::text::{duration, note};

/// Minimum time between two lines about finished stages.
const FINISHED: Duration = Duration::from_secs(1);

/// Minimum time between two lines about one long stage.
const RUNNING: Duration = Duration::from_secs(20);

/// The lines of a sweep.
pub struct Plain {
    verbose: bool,
    finished: Option<Instant>,
    /// Per worker: what it does.
    running: Vec<Running>,
}

/// The stage of a worker.
#[derive(Clone)]
struct Running {
    what: String,
    pace: Pace,
    /// When something was last said about it.
    told: Instant,
}

impl Plain {
    /// With `verbose`, every start and finish is told.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, finished: None, running: Vec::new() }
    }

    /// Writes the line of an event, where it has one.
    pub fn show(&mut self, event: &SweepEvent) {
        if let Some(line) = opening(event).or_else(|| trouble(event)) {
            note(line);
            return;
        }
        match event {
            SweepEvent::StageStarted { slot, what, label, .. } => {
                let now = Instant::now();
                let running = Running { what: what.clone(), pace: Pace::default(), told: now };
                if self.running.len() <= *slot {
                    self.running.resize(slot + 1, running.clone());
                }
                self.running[*slot] = running;
                if self.verbose {
                    note(format_args!("worker {slot}: {what}, {label}"));
                }
            }
            SweepEvent::Progress { slot, fraction, message } => {
                let Some(running) = self.running.get_mut(*slot) else { return };
                let now = Instant::now();
                let left = running.pace.left(*fraction, now);
                if now.duration_since(running.told) >= RUNNING {
                    running.told = now;
                    let percent = fraction * 100.0;
                    let left = left.map(|seconds| format!("; {} left", duration(seconds))).unwrap_or_default();
                    note(format_args!("worker {slot}: {}, {percent:.0} %, {message}{left}", running.what));
                }
            }
            SweepEvent::StageFinished { what, label, seconds, totals, .. } => {
                let (settled, to_do) = totals.progress();
                let due = self.finished.is_none_or(|last| last.elapsed() >= FINISHED);
                if self.verbose || due || settled == to_do {
                    self.finished = Some(Instant::now());
                    let rest = duration(totals.eta_seconds);
                    note(format_args!("[{settled}/{to_do}] {what}, {label}: {}; {rest} left", duration(*seconds)));
                }
            }
            SweepEvent::WorkerReady { slot, device } if self.verbose => {
                note(format_args!("worker {slot} is ready on {device}"));
            }
            _ => {}
        }
    }
}

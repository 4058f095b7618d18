//! Bars: one line per worker, as far as they fit on a screen, and one for the whole.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ressa_sweep::{SweepEvent, Totals};

use super::{opening, pace::Pace, trouble};
use crate::text::duration;

/// Workers that have a line.
const SHOWN: usize = 16;

/// The bars of a sweep.
pub struct Terminal {
    screen: MultiProgress,
    total: ProgressBar,
    workers: Vec<Line>,
}

/// A worker's line.
struct Line {
    bar: ProgressBar,
    slot: usize,
    /// What the worker does; none while it has nothing to do, so that another one may have the line.
    what: Option<String>,
    pace: Pace,
}

impl Terminal {
    /// Nothing is drawn before the first stage starts: a sweep with everything cached shows no bar.
    pub fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { screen, total: ProgressBar::hidden(), workers: Vec::new() }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &SweepEvent) {
        if let Some(line) = opening(event).or_else(|| trouble(event)) {
            let _ = self.screen.println(line);
        }
        match event {
            SweepEvent::Started { totals, .. } if totals.progress().0 < totals.progress().1 => {
                self.total = self.screen.add(ProgressBar::new(totals.progress().1 as u64));
                self.total.set_style(style("{bar:30} {pos}/{len} stages  {elapsed} elapsed, {msg}"));
                self.total.enable_steady_tick(Duration::from_millis(500));
                self.count(totals);
            }
            SweepEvent::StageStarted { slot, what, label, seconds, .. } => {
                let Some(line) = self.line_for(*slot) else { return };
                let what = format!("{what}  {label}");
                line.bar.reset();
                line.bar.set_message(format!("{what}  (about {})", duration(*seconds)));
                line.what = Some(what);
                line.pace = Pace::default();
            }
            SweepEvent::Progress { slot, fraction, message } => {
                let Some(line) = self.workers.iter_mut().find(|line| line.slot == *slot) else { return };
                let Some(what) = &line.what else { return };
                let left = line.pace.left(*fraction, Instant::now());
                let left = left.map(|seconds| format!("  {} left", duration(seconds))).unwrap_or_default();
                line.bar.set_position((fraction * 1000.0) as u64);
                line.bar.set_message(format!("{what}  {message}{left}"));
            }
            SweepEvent::StageFinished { slot, totals, .. } | SweepEvent::StageFailed { slot, totals, .. } => {
                self.count(totals);
                if let Some(line) = self.workers.iter_mut().find(|line| line.slot == *slot) {
                    line.what = None;
                    line.bar.set_position(0);
                    line.bar.set_message("idle");
                }
            }
            _ => {}
        }
    }

    /// The line of a worker that begins something: its own, a new one, or one of a worker that has nothing to do.
    fn line_for(&mut self, slot: usize) -> Option<&mut Line> {
        let own = self.workers.iter().position(|line| line.slot == slot);
        let at = match own {
            Some(at) => at,
            None if self.workers.len() < SHOWN => {
                let bar = self.screen.insert_before(&self.total, ProgressBar::new(1000));
                bar.set_style(style("{prefix:>2} {bar:20} {elapsed:>4}  {wide_msg}"));
                bar.enable_steady_tick(Duration::from_millis(500));
                self.workers.push(Line { bar, slot, what: None, pace: Pace::default() });
                self.workers.len() - 1
            }
            None => self.workers.iter().position(|line| line.what.is_none())?,
        };
        let line = &mut self.workers[at];
        line.slot = slot;
        line.bar.set_prefix(slot.to_string());
        Some(line)
    }

    /// Takes the bars off the screen; what was printed above them stays.
    pub fn finish(&mut self) {
        for line in &self.workers {
            line.bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }

    fn count(&self, totals: &Totals) {
        let (settled, to_do) = totals.progress();
        self.total.set_length(to_do as u64);
        self.total.set_position(settled as u64);
        let failed = if totals.failed > 0 { format!(", {} failed", totals.failed) } else { String::new() };
        self.total.set_message(format!("{} left{failed}", duration(totals.eta_seconds)));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

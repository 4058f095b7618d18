//! Shows a sweep while it runs: bars on a terminal, bounded plain lines elsewhere. Always on standard error.

mod pace;
mod plain;
mod terminal;

use std::{collections::HashSet, io::IsTerminal};

use ressa_sweep::SweepEvent;

use crate::{
    arguments::Global,
    text::{count, duration},
};

/// How a sweep is shown.
pub struct Display {
    style: Style,
    /// What was said of failures so far, so that one broken file is not explained once per run.
    told: HashSet<String>,
}

enum Style {
    /// Failures only.
    Quiet(plain::Plain),
    /// One line per worker and a total.
    Terminal(terminal::Terminal),
    /// Lines.
    Plain(plain::Plain),
}

impl Display {
    /// What suits standard error and the options.
    pub fn new(global: &Global) -> Self {
        let style = if global.quiet {
            Style::Quiet(plain::Plain::new(false))
        } else if std::io::stderr().is_terminal() && !global.json {
            Style::Terminal(terminal::Terminal::new())
        } else {
            Style::Plain(plain::Plain::new(global.verbose))
        };
        Self { style, told: HashSet::new() }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &SweepEvent) {
        let shortened = self.shortened(event);
        let event = shortened.as_ref().unwrap_or(event);
        match &mut self.style {
            Style::Quiet(plain) if is_trouble(event) => plain.show(event),
            Style::Quiet(_) => {}
            Style::Terminal(terminal) => terminal.show(event),
            Style::Plain(plain) => plain.show(event),
        }
    }

    /// A failure whose message was said before, without it.
    fn shortened(&mut self, event: &SweepEvent) -> Option<SweepEvent> {
        let mut event = event.clone();
        let (SweepEvent::StageFailed { failed, .. } | SweepEvent::Remembered(failed)) = &mut event else { return None };
        if self.told.insert(failed.failure.message.clone()) {
            return None;
        }
        failed.failure.message = "for the same reason".to_owned();
        Some(event)
    }

    /// Takes bars off the screen.
    pub fn finish(&mut self) {
        if let Style::Terminal(terminal) = &mut self.style {
            terminal.finish();
        }
    }
}

fn is_trouble(event: &SweepEvent) -> bool {
    matches!(
        event,
        SweepEvent::Damaged(_)
            | SweepEvent::Remembered(_)
            | SweepEvent::WorkerDied { .. }
            | SweepEvent::SlotRetired(_)
            | SweepEvent::StageFailed { .. }
            | SweepEvent::Stopping { .. }
    )
}

/// The line of an event that people must see, however the rest is shown.
fn trouble(event: &SweepEvent) -> Option<String> {
    match event {
        SweepEvent::Damaged(damage) => Some(match &damage.aside {
            Some(aside) => {
                format!("damaged: {}: {}; moved to `{}` and made again", damage.stage, damage.what, aside.display())
            }
            None => format!("damaged (shipped): {}: {}; made again in the results folder", damage.stage, damage.what),
        }),
        SweepEvent::Remembered(failed) => Some(format!(
            "failed earlier, not tried again: {} [{}]: {} (`ressa retry` clears it)",
            failed.what,
            failed.key.short(),
            failed.failure.message
        )),
        SweepEvent::WorkerDied { slot, message } => Some(format!("worker {slot} ended: {message}")),
        SweepEvent::SlotRetired(slot) => {
            Some(format!("worker {} ({}) is given up, the others go on: {}", slot.slot, slot.device, slot.reason))
        }
        SweepEvent::StageFailed { failed, .. } => {
            Some(format!("failed: {}, {}: {}", failed.what, failed.label, failed.failure.message))
        }
        SweepEvent::Gate(checks) if checks.iter().all(|check| check.passes()) => {
            Some(format!("dense gate passed: {}", count(checks.len(), "score")))
        }
        SweepEvent::Told(line) => Some(line.clone()),
        SweepEvent::Stopping { why, running: 0 } => Some(format!("stopping: {why}")),
        SweepEvent::Stopping { why, running } => {
            Some(format!("stopping: {why} ({} may finish)", count(*running, "running stage")))
        }
        _ => None,
    }
}

/// The first line: what there is and what is to do.
fn opening(event: &SweepEvent) -> Option<String> {
    let SweepEvent::Started { totals, slots, runs } = event else { return None };
    let to_do = totals.stages - totals.cached - totals.failed - totals.skipped;
    let runs = count(*runs, "run");
    if to_do == 0 {
        return Some(format!("{runs}: {} of {} cached, nothing to do", totals.cached, count(totals.stages, "stage")));
    }
    let failed = if totals.failed > 0 { format!(", {} failed earlier", totals.failed) } else { String::new() };
    Some(format!(
        "{runs}: {} of {} cached, {to_do} to do{failed}; {}",
        totals.cached,
        count(totals.stages, "stage"),
        match slots {
            0 => "workers of other machines may join".to_owned(),
            slots => format!("{}, about {}", count(*slots, "worker"), duration(totals.eta_seconds)),
        }
    ))
}

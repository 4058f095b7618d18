//! The live view in words: what a sweep is doing now.

use std::{
    io::IsTerminal,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ressa_sweep::{Status, live_status, running_coordinator};

use crate::{
    exit::{Exit, Failure, Outcome},
    signals,
    text::{columns, count, duration, say, say_json_line},
    workspace::Workspace,
};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A view that has stayed the same for so long is of a coordinator that died.
const STALE: Duration = Duration::from_secs(15);
/// Maximum length of a line of losses.
const SPARKS: usize = 16;
/// Workers and failures that are shown.
const SHOWN: usize = 20;

/// Shows the sweep of a results folder until it ends.
pub fn watch(workspace: &Workspace, json: bool) -> Outcome {
    let stop = signals::stop();
    let _watch = stop.watch();
    let clears = std::io::stdout().is_terminal() && !json;
    let mut last = None;
    let mut heard = Instant::now();
    loop {
        let Some(status) = live_status(&workspace.results) else {
            let message = format!("no sweep has run in `{}`", workspace.show(&workspace.results));
            return Err(Failure::new(Exit::NothingSelected, message));
        };
        if last != Some(status.at) {
            (last, heard) = (Some(status.at), Instant::now());
            if json {
                say_json_line(&serde_json::json!(status));
            } else {
                // Home, and away with what stood there.
                let clear = if clears { "\x1b[H\x1b[2J" } else { "" };
                say(format_args!("{clear}{}", render(&status).trim_end()));
            }
        }
        if status.ended {
            return Ok(Exit::Done);
        }
        // The clock of another machine may be minutes off, and this one's may jump: only what changes is a sign of life. On one machine the lock
        // says at once that nobody is there.
        let is_gone = || status.host == ressa_runlog::host() && running_coordinator(&workspace.results).is_none();
        if heard.elapsed() > STALE || is_stale(&status) && is_gone() {
            say("its coordinator has not been heard of for a while; the same sweep command goes on from here");
            return Ok(Exit::Done);
        }
        let mut waited = Duration::ZERO;
        while waited < LOOK {
            if stop.requests() > 0 {
                return Ok(Exit::Done);
            }
            std::thread::sleep(LOOK / 20);
            waited += LOOK / 20;
        }
    }
}

/// Whether a view is of a sweep that ended without a word.
pub fn is_stale(status: &Status) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
    !status.ended && now.saturating_sub(status.at) > STALE.as_millis() as u64
}

/// A view in words.
pub fn render(status: &Status) -> String {
    let settled = status.made + status.failed + status.skipped;
    let to_do = status.stages - status.cached;
    let bar_width = 30;
    let filled = (bar_width * settled).checked_div(to_do).unwrap_or(bar_width);
    let bar: String = (0..bar_width).map(|at| if at < filled { '#' } else { '.' }).collect();
    let mut text = format!("{}\n[{bar}] {settled} of {} made", status.title, count(to_do, "stage"));
    if status.cached > 0 {
        text += &format!(", {} cached", status.cached);
    }
    if status.failed > 0 {
        text += &format!(", {} failed, {} skipped", status.failed, status.skipped);
    }
    let runs = format!("{} of {} complete", status.complete, count(status.runs, "run"));
    let time = if status.ended {
        format!("ended after {}", duration(status.elapsed_seconds))
    } else {
        format!("{} so far, about {} to go", duration(status.elapsed_seconds), duration(status.eta_seconds))
    };
    text += &format!("\n{runs}; {time} ({}, process {})\n\n", status.host, status.pid);

    let mut rows = vec![["worker", "machine", "device", "stage", "run", "done", "for", ""].map(str::to_owned).to_vec()];
    for worker in status.workers.iter().take(SHOWN) {
        let mut row = vec![worker.name.clone(), worker.host.clone(), worker.device.clone()];
        match &worker.stage {
            Some(stage) => row.extend([
                format!("{} [{}]", stage.what, stage.key.short()),
                stage.label.clone(),
                format!("{:.0} %", 100.0 * stage.fraction),
                duration(stage.seconds),
                match (&*worker.state, stage.message.as_str()) {
                    ("busy", message) => format!("{message}  {}", sparkline(&stage.losses)).trim_end().to_owned(),
                    (state, _) => state.to_owned(),
                },
            ]),
            None => row.extend([String::new(), String::new(), String::new(), String::new(), worker.state.clone()]),
        }
        rows.push(row);
    }
    for class in &status.cluster {
        text += &format!("jobs of class {class}\n");
    }
    text += &columns(&rows);
    let others = status.workers.len().saturating_sub(SHOWN) + status.other_workers;
    if others > 0 {
        text += &format!("and {}\n", count(others, "other worker"));
    }
    if !status.failures.is_empty() {
        text += &format!("\n{} failed; `ressa logs KEY` shows why:\n", count(status.failures.len(), "stage"));
        for failure in status.failures.iter().rev().take(SHOWN) {
            text += &format!(
                "  {}  {}  {}\n    {}: {}\n",
                failure.key.short(),
                failure.what,
                failure.label,
                failure.kind,
                failure.message
            );
        }
    }
    if !status.told.is_empty() {
        text += "\n";
        for told in status.told.iter().rev().take(5).rev() {
            text += &format!("{told}\n");
        }
    }
    text
}

/// Losses as a line of blocks as high as they are, evenly over what is done; nothing for fewer than two.
fn sparkline(losses: &[(f64, f64)]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if losses.len() < 2 {
        return String::new();
    }
    let per_block = losses.len().div_ceil(SPARKS);
    let means: Vec<f64> = losses
        .chunks(per_block)
        .map(|part| part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64)
        .collect();
    let (low, high) = means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &m| (a.min(m), b.max(m)));
    let height = |mean: &f64| if high > low { (mean - low) / (high - low) } else { 0.0 };
    means.iter().map(|mean| BLOCKS[((height(mean) * 8.0) as usize).min(7)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_a_short_line() {
        let falling = |n: u32| (0..n).map(|at| (f64::from(at), f64::from(n - at))).collect::<Vec<_>>();
        assert_eq!(sparkline(&falling(8)), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&falling(64)).chars().count(), SPARKS);
        assert_eq!(sparkline(&[(0.1, 2.0), (0.2, 2.0)]), "▁▁");
        assert_eq!(sparkline(&falling(1)), "");
    }
}

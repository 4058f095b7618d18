//! `ressa sweep`: make what is missing, then render.

use ressa_sweep::{Graph, Stop, Summary, execute, glance, record_sweep};
use serde_json::json;

use crate::{
    arguments::{Global, SweepOptions},
    commands::report,
    exit::{Exit, Failure, Outcome},
    missing::missing,
    progress::Display,
    reuse::{Reuse, mixture, only_alike},
    study::Study,
    text::{apart, columns, count, duration, note, say, say_json},
    workspace::Workspace,
};

/// Runs the selected experiments.
pub fn run(global: &Global, options: &SweepOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let study = Study::load(&workspace, &options.selection)?;
    if !options.no_report {
        study.check_reports(&workspace)?;
    }
    let store = workspace.store()?;
    let graph = study.graph(!options.no_gate);
    if graph.runs.is_empty() {
        return Err(Failure::new(Exit::NothingSelected, "the selected experiments have no runs"));
    }
    let mut inventory = glance(&graph, &store);
    if options.reuse == Reuse::Alike {
        let moved = only_alike(&workspace, &options.machine, &graph, &inventory, &store)?;
        if moved > 0 && !global.quiet {
            note(format_args!("{} made elsewhere moved to the trash", count(moved, "stage")));
            inventory = glance(&graph, &store);
        }
    }
    let lacking = missing(&graph, &inventory, &workspace.root);
    if let Some(first) = lacking.first() {
        let (how, exit) = match first.unusable {
            false => ("is missing", Exit::MissingInput),
            true => ("cannot be used", Exit::Unusable),
        };
        let message = format!(
            "`{}` {how} ({}){}; `ressa plan` lists what a sweep needs",
            first.path,
            first.what.join("; "),
            if lacking.len() > 1 { format!(", and {} more", count(lacking.len() - 1, "file")) } else { String::new() }
        );
        return Err(Failure::new(exit, message));
    }

    let files: Vec<String> = study.experiments.iter().map(|experiment| workspace.show(&experiment.path)).collect();
    record_sweep(&store, &files, &study.overrides, &graph)?;
    study.findings.remember();

    let stop = Stop::on_signals().map_err(|e| Failure::new(Exit::Other, format!("cannot listen to signals: {e}")))?;
    let limits = workspace.limited(&options.machine, options.max_failures, options.timeout);
    let mut display = Display::new(global);
    let summary = execute(&graph, &store, &limits, &stop, &mut |event| display.show(&event))?;
    display.finish();

    let exit = Exit::of(&summary);
    if !global.json {
        // Before rendering: what the sweep did must be seen even when the report cannot be written.
        print(&summary, &graph, global.quiet);
    }
    if !global.json
        && !global.quiet
        && let Some(line) = mixture(&graph, &glance(&graph, &store), &store)
    {
        say(line);
    }
    let rendered = match exit {
        _ if options.no_report => None,
        Exit::Done => Some(report::render(&workspace, &study, &store, false)?),
        // That stages failed matters more than that their report cannot be written; both are said.
        Exit::SomeFailed => report::render(&workspace, &study, &store, false)
            .map_err(|failure| say(format_args!("no report: {}", failure.message())))
            .ok(),
        _ => None,
    };
    if global.json {
        let index = rendered.as_ref().map(|rendered| rendered.index.display().to_string());
        let notes = rendered.as_ref().map(|rendered| &rendered.notes);
        say_json(&json!({ "exit": exit as u8, "summary": summary, "report": index, "notes": notes }));
    } else if let Some(rendered) = rendered.filter(|_| !global.quiet) {
        rendered.notes.iter().for_each(|note| say(format_args!("note: {note}")));
        say(format_args!("report: {}", workspace.show(&rendered.index)));
    }
    Ok(exit)
}

/// Prints how a sweep ended, failures last.
pub fn print(summary: &Summary, graph: &Graph, quiet: bool) {
    let totals = &summary.totals;
    if !quiet {
        say(format_args!(
            "{} of {} complete: {} cached, {} made in {}",
            summary.complete,
            count(summary.runs, "run"),
            count(totals.cached, "stage"),
            totals.made,
            duration(summary.seconds)
        ));
    }
    if summary.gate_failed {
        print_gate(summary);
    }
    for damage in &summary.damaged {
        say(format_args!("damaged: {} ({}): {}", damage.stage, damage.key.short(), damage.what));
    }
    if let Some(message) = &summary.storage {
        say(format_args!("cannot write: {message}"));
    }
    if summary.interrupted.is_some() {
        let open = totals.stages - totals.cached - totals.made - totals.failed - totals.skipped;
        say(format_args!("interrupted with {} to do; the same command goes on from here", count(open, "stage")));
    }
    if summary.failed.is_empty() {
        return;
    }
    say(format_args!("\n{} failed, {} skipped because of them:", count(summary.failed.len(), "stage"), totals.skipped));
    for failed in &summary.failed {
        let kind = serde_json::to_value(failed.failure.kind).ok();
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("failed");
        let runs = graph.position(&failed.key).map_or(0, |position| graph.stages[position].runs);
        say(format_args!("  {}  {}  [{}]", failed.what, failed.label, failed.key.short()));
        say(format_args!("    {kind}: {} ({} affected)", failed.failure.message, count(runs as usize, "run")));
        if let Some(log) = &failed.failure.log {
            say(format_args!("    log: {}", log.display()));
        }
    }
    say("`ressa retry` clears recorded failures, so that the next sweep tries those stages again");
}

fn print_gate(summary: &Summary) {
    if summary.gate.iter().all(|check| check.found.is_none() || check.passes()) {
        say("\na dense model could not be measured, so nothing was spent on pruning it; why is said below");
        return;
    }
    say("\na dense model does not reach its gate, so nothing was spent on pruning it:");
    let mut rows = vec![["model", "score", "at least", "found", ""].map(str::to_owned).to_vec()];
    for check in &summary.gate {
        let (floor, found) = match check.found {
            Some(found) => apart(check.floor, found),
            None => (format!("{:.1}", check.floor), "not measured".to_owned()),
        };
        let verdict = if check.passes() { "" } else { "too low" }.to_owned();
        rows.push(vec![check.model.clone(), check.name.clone(), floor, found, verdict]);
    }
    say(columns(&rows).trim_end());
    say(
        "train it again (`ressa pretrain`), correct `dense.gate` in the experiment, or go on regardless with --no-gate",
    );
}

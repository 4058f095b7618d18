//! `ressa sweep`: make what is missing, then render.

use std::time::Duration;

use ressa_experiment::protocol::FailureKind;
use ressa_predict::Host;
use ressa_sweep::{Estimates, FailedStage, Graph, Recruiter, Summary, execute, glance, record_sweep, work_of};
use serde_json::json;

use crate::{
    arguments::{Global, SweepOptions},
    cluster::Cluster,
    commands::{
        force::{Forced, Remake},
        forecast::workers_on,
        report,
    },
    exit::{Exit, Failure, Outcome},
    memory,
    missing::missing,
    outlines::remember,
    preflight::{Preflight, refusal},
    progress::Display,
    reuse::{Reuse, mixture, others},
    signals,
    study::Study,
    text::{apart, columns, count, duration, note, say, say_json},
    workspace::{Workspace, program},
};

/// Runs the selected experiments.
pub fn run(global: &Global, options: &SweepOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let cluster = options.profile.as_ref().map(|name| Cluster::find(&workspace, global, name)).transpose()?;
    let mut study = Study::load(&workspace, &options.selection)?;
    // Of single stages there is nothing to report.
    let has_report = !options.no_report && !study.is_of_stages();
    if has_report {
        let left_out = study.check_reports(&workspace)?;
        left_out.iter().filter(|_| !global.quiet).for_each(note);
    }
    let store = workspace.store()?;
    let graph = study.graph(!options.no_gate);
    if graph.runs.is_empty() {
        return Err(Failure::new(Exit::NothingSelected, "the selected experiments have no runs"));
    }
    let mut inventory = glance(&graph, &store);
    let elsewhere = match options.reuse {
        Reuse::Any => Vec::new(),
        Reuse::Alike => others(&workspace, &options.machine, &graph, &inventory, &store)?,
    };
    let forced = Forced::of(options, &elsewhere, &study, &graph, &mut inventory, &store)?;
    let lacking = missing(&graph, &inventory, &store, &workspace.root);
    let mut preflight = Preflight::of(&graph, &inventory, &store, &workspace.root);
    preflight.note_steps(&study.experiments);
    if let Some((exit, message)) = refusal(&lacking, &preflight) {
        return Err(Failure::new(exit, message));
    }
    if cluster.is_none() {
        preflight.note_arithmetic(&graph, &inventory, &workspace.limited(options).workers());
    }
    if !global.quiet {
        preflight.notes.iter().for_each(|told| note(format_args!("{}: {}", told.setting, told.what)));
    }
    if let Some(cluster) = cluster.as_ref().filter(|_| options.dry_run) {
        let estimates = Estimates::of(&ressa_runlog::read(&store)?.index, |_| true);
        cluster.print(&work_of(&graph, &inventory, &estimates, &cluster.classes()), global.json);
        return Ok(Exit::Done);
    }

    // Nothing keeps the sweep from running any more.
    if !elsewhere.is_empty() && !global.quiet {
        let were = if elsewhere.len() == 1 { "was" } else { "were" };
        note(format_args!("{} {were} made elsewhere", count(elsewhere.len(), "stage")));
    }
    let files: Vec<String> = study.experiments.iter().map(|experiment| workspace.show(&experiment.path)).collect();
    record_sweep(&store, &files, &study.words(), &graph)?;
    study.findings.remember();
    // Who looks at the sweep need not plan it.
    match options.no_gate {
        true => drop(remember(&workspace, &options.selection, &study, &study.graph(true))),
        false => drop(remember(&workspace, &options.selection, &study, &graph)),
    }

    let stop = signals::stop();
    let title = files.iter().chain(&study.overrides).map(String::as_str).collect::<Vec<_>>().join(" ");
    let mut limits = workspace.limited(options);
    if cluster.is_some() {
        limits.devices.slots.get_or_insert(0);
    }
    let (device, host) = (limits.machine.clone(), Host { cores: limits.worker.threads, tf32: options.machine.tf32 });
    let on_gpu = || workers_on(&device, &workspace, &graph, &inventory, (&store, host));
    if let Some(slots) = memory::bound(&mut limits, &graph, &workspace.root, on_gpu).filter(|_| !global.quiet) {
        note(format_args!("memory holds the models of {}; --slots N asks for more", count(slots, "worker")));
    }
    limits.title = title;
    limits.lease = Duration::from_secs(options.lease);
    limits.program = program();
    let mut display = Display::new(global);
    let mut recruiter = cluster.as_ref().map(Cluster::recruit).transpose()?;
    let mut remade = None;
    if let Some(forced) = &forced {
        if !global.quiet {
            note(forced.notice());
        }
        let (workspace, study, graph, store) = (&workspace, &study, &graph, &store);
        let (limits, stop, display) = (&limits, &stop, &mut display);
        let recruiter = recruiter.as_deref_mut().map(|recruiter| recruiter as &mut dyn Recruiter);
        let gated = !options.no_gate;
        let made =
            forced.remake(&mut Remake { workspace, study, graph, store, limits, recruiter, stop, display, gated });
        remade = Some(made.inspect_err(|_| forced.lost(graph, store).iter().for_each(note))?);
    }
    let recruiter = recruiter.as_deref_mut().map(|recruiter| recruiter as &mut dyn Recruiter);
    let summary = execute(&graph, &store, &limits, &stop, recruiter, &mut |event| display.show(&event))
        .inspect_err(|_| forced.iter().filter_map(|forced| forced.lost(&graph, &store)).for_each(note))?;
    display.finish();
    let remade = forced.as_ref().zip(remade).map(|(forced, outcome)| forced.settled(outcome, &graph, &store));

    let exit = Exit::of(&summary);
    if !global.json {
        // Before rendering: what the sweep did must be seen even when the report cannot be written.
        print(&summary, &graph, global.quiet);
        remade.iter().filter(|_| !global.quiet).for_each(|outcome| say(outcome.text()));
    }
    if !global.json
        && !global.quiet
        && let Some(line) = mixture(&graph, &glance(&graph, &store), &store, &ressa_runlog::read(&store)?.index)
    {
        say(line);
    }
    let mut not_rendered = None;
    let rendered = match exit {
        _ if !has_report => None,
        Exit::Done => Some(report::render(&workspace, &study, &store, false)?),
        // That stages failed matters more than that their report cannot be written; both are said.
        Exit::SomeFailed => report::render(&workspace, &study, &store, false)
            .map_err(|failure| {
                say(format_args!("no report: {}", failure.message()));
                not_rendered = Some(failure.message());
            })
            .ok(),
        _ => None,
    };
    if global.json {
        let index = rendered.as_ref().map(|rendered| rendered.index.display().to_string());
        let notes = rendered.as_ref().map(|rendered| &rendered.notes);
        let (exit, report) = (exit as u8, index);
        say_json(&json!({
            "exit": exit, "summary": summary, "forced": remade, "report": report, "notes": notes, "no-report": not_rendered,
        }));
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
    for slot in &summary.retired {
        say(format_args!("worker {} ({}) was given up: {}", slot.slot, slot.device, slot.reason));
    }
    if let Some(message) = &summary.storage {
        // It says itself what cannot be written.
        say(format_args!("stopped: {message}"));
    }
    if summary.detached > 0 {
        let what = count(summary.detached, "stage");
        let go = if summary.detached == 1 { "goes" } else { "go" };
        let when = "the same command takes over; without it they are given back after some minutes";
        say(format_args!("{what} {go} on at workers of other machines; {when}"));
    }
    if summary.interrupted.is_some() {
        let open = totals.stages - totals.cached - totals.made - totals.failed - totals.skipped;
        say(format_args!("interrupted with {} to do; the same command goes on from here", count(open, "stage")));
    }
    if summary.failed.is_empty() {
        return;
    }
    say(format_args!("\n{} failed, {} skipped because of them:", count(summary.failed.len(), "stage"), totals.skipped));
    // One broken file fails many stages: what is wrong is said once, with all that it stopped.
    let mut groups: Vec<(FailureKind, &str, Vec<&FailedStage>)> = Vec::new();
    for failed in &summary.failed {
        let (kind, message) = (failed.failure.kind, failed.failure.message.as_str());
        match groups.iter_mut().find(|group| group.0 == kind && group.1 == message) {
            Some(group) => group.2.push(failed),
            None => groups.push((kind, message, vec![failed])),
        }
    }
    for (kind, message, stages) in groups {
        let kind = serde_json::to_value(kind).ok();
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("failed");
        say(format_args!("  {kind}: {message}"));
        for failed in stages {
            let runs = graph.position(&failed.key).map_or(0, |position| graph.stages[position].runs);
            let affected = count(runs as usize, "run");
            say(format_args!("    {}  {}  [{}]  ({affected} affected)", failed.what, failed.label, failed.key.short()));
            if let Some(log) = &failed.failure.log {
                say(format_args!("      log: {}", log.display()));
            }
        }
    }
    let is_retried = |failed: &FailedStage| {
        matches!(failed.failure.kind, FailureKind::Killed | FailureKind::Storage | FailureKind::Data)
    };
    let retried = summary.failed.iter().filter(|failed| is_retried(failed)).count();
    if retried > 0 {
        say(format_args!("the next sweep tries {} again by itself", count(retried, "stage")));
    }
    if retried < summary.failed.len() {
        say("`ressa retry` clears recorded failures, so that the next sweep tries those stages again");
    }
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

//! `ressa status`: how far experiments are.

use std::collections::HashSet;

use ressa_experiment::StageKey;
use ressa_runlog::{FailureRecord, States};
use ressa_store::Store;
use ressa_sweep::{
    Outline, Progress, SweepTitle, failures, is_retried, live_status, progress, recorded_sweeps, recorded_titles,
    running_coordinator,
};
use serde_json::json;

use crate::{
    arguments::{Global, MachineOptions, Selection, StatusOptions},
    chosen::recorded,
    commands::watch::{self, is_stale, render},
    exit::{Exit, Failure, Outcome},
    outlines::outline,
    text::{columns, count, note, say, say_json},
    workspace::Workspace,
};

/// Prints what runs, one line per experiment, then what failed.
pub fn run(global: &Global, options: &StatusOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    if options.watch {
        if !options.selection.filters.filter.is_empty() || options.selection.partition.is_some() {
            let message = "--watch shows a whole sweep; leave out -E and --partition, or --watch";
            return Err(Failure::new(Exit::Usage, message));
        }
        return watch::watch(&workspace, global.json);
    }
    let store = workspace.reading();
    let running = running_coordinator(&workspace.results);
    let live = live_status(&workspace.results).filter(|live| !live.ended && !is_stale(live));
    // On one machine the lock knows better.
    let live = live.filter(|live| running.is_some() || live.host != ressa_runlog::host());
    let selection = &options.selection;
    let is_whole = selection.what.is_empty() && selection.filters.filter.is_empty() && selection.partition.is_none();
    if let Some(live) = live.as_ref().filter(|_| is_whole && !global.json) {
        // What the coordinator counts need not be counted again.
        say(render(live).trim_end());
        return Ok(Exit::Done);
    }
    let subjects = if is_whole { swept(&workspace, &store)? } else { vec![Subject::of(&workspace, selection)?] };
    let states = ressa_runlog::states(&store)?;
    let (entries, outlines) = entries(subjects, &store, &states);
    let now = workspace.sweep_options(&MachineOptions::default()).circumstances();
    let (failed, others) = split(failures(states.failures(), &store), &outlines);

    if global.json {
        let list: Vec<_> = entries.iter().map(Entry::json).collect();
        say_json(&json!({ "running": running, "live": live, "experiments": list, "failures": failed }));
        return Ok(Exit::Done);
    }
    match (running, &live) {
        (Some(pid), _) => say(format_args!("a sweep is running (process {pid})\n")),
        // The lock of another machine's coordinator is not always seen here.
        (None, Some(live)) => say(format_args!("a sweep is running (process {} on {})\n", live.pid, live.host)),
        (None, None) => say("no sweep is running\n"),
    }
    let mut rows = vec![["experiment", "runs", "complete", "stages", "made"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(Entry::row));
    say(columns(&rows).trim_end());
    for (entry, why) in entries.iter().filter_map(|entry| Some((entry, entry.unplanned.as_ref()?))) {
        note(format_args!("{}: its runs are not known, because it cannot be planned any more: {why}", entry.title()));
    }
    if !failed.is_empty() {
        say(format_args!("\n{} failed:", count(failed.len(), "stage")));
        for record in failed {
            let again = if is_retried(record, &now) { "; the next sweep tries again" } else { "" };
            say(format_args!("  {}  {}  {}{again}", record.key.short(), record.what, record.failure.message));
        }
    }
    if !others.is_empty() {
        let others = count(others.len(), "stage");
        say(format_args!("\n{others} of other experiments failed; `ressa logs` lists all that failed"));
    }
    Ok(Exit::Done)
}

/// Experiments that were asked for together.
struct Subject {
    outline: Outline,
    /// Overrides and options of the sweep; none where the command line says them.
    words: Vec<String>,
    /// Why a recorded sweep cannot be planned as its files are now.
    unplanned: Option<String>,
}

impl Subject {
    fn of(workspace: &Workspace, selection: &Selection) -> Result<Self, Failure> {
        Ok(Self { outline: outline(workspace, selection)?, words: Vec::new(), unplanned: None })
    }
}

/// What was swept in this results folder, the latest first: each experiment as its file is now, once for each way in which it was asked for.
/// Where nothing was, the default study.
fn swept(workspace: &Workspace, store: &Store) -> Result<Vec<Subject>, Failure> {
    let titles: Vec<SweepTitle> = recorded_titles(store)?.into_iter().filter(|sweep| !sweep.forgotten).collect();
    let mut seen: HashSet<(Vec<String>, Vec<String>)> = HashSet::new();
    let mut subjects = Vec::new();
    for sweep in titles {
        if !seen.insert((sweep.files.clone(), sweep.overrides.clone())) {
            continue;
        }
        let files = sweep.files.iter().map(|file| workspace.root.join(file).display().to_string());
        let (outline, unplanned) = match outline(workspace, &recorded(files, &sweep.overrides)) {
            Ok(outline) => (outline, None),
            // Its file may be gone, or say something else by now; its stages are still there.
            Err(failure) => {
                let record = recorded_sweeps(store)?.into_iter().find(|record| record.id == sweep.id);
                (record.as_ref().map(Outline::of_record).unwrap_or_default(), Some(failure.message()))
            }
        };
        subjects.push(Subject { outline, words: sweep.overrides, unplanned });
    }
    if subjects.is_empty() {
        subjects.push(Subject::of(workspace, &Selection::default())?);
    }
    Ok(subjects)
}

/// A line of the table.
struct Entry {
    progress: Progress,
    words: Vec<String>,
    unplanned: Option<String>,
}

impl Entry {
    fn title(&self) -> String {
        let words = self.words.iter().map(String::as_str);
        std::iter::once(self.progress.experiment.as_str()).chain(words).collect::<Vec<_>>().join(" ")
    }

    fn row(&self) -> Vec<String> {
        let Progress { runs, complete, stages, made, .. } = &self.progress;
        let known = |number: &usize| if self.unplanned.is_some() { String::new() } else { number.to_string() };
        vec![self.title(), known(runs), known(complete), stages.to_string(), made.to_string()]
    }

    fn json(&self) -> serde_json::Value {
        let mut value = json!(self.progress);
        if !self.words.is_empty() {
            value["overrides"] = json!(self.words);
        }
        if let Some(why) = &self.unplanned {
            (value["runs"], value["complete"]) = (json!(null), json!(null));
            value["unplanned"] = json!(why);
        }
        value
    }
}

/// How far they are, an entry for each experiment and each way in which it was asked for; and their outlines.
fn entries(subjects: Vec<Subject>, store: &Store, states: &States) -> (Vec<Entry>, Vec<Outline>) {
    let mut outlines = Vec::new();
    let mut rest = Vec::new();
    for Subject { outline, words, unplanned } in subjects {
        outlines.push(outline);
        rest.push((words, unplanned));
    }
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for (experiments, (words, unplanned)) in progress(&outlines, store, states).into_iter().zip(rest) {
        for progress in experiments {
            if seen.insert((progress.file.clone(), words.clone())) {
                entries.push(Entry { progress, words: words.clone(), unplanned: unplanned.clone() });
            }
        }
    }
    (entries, outlines)
}

/// Failures of what is spoken of, and those of other experiments.
fn split<'f>(
    failures: Vec<&'f FailureRecord>,
    outlines: &[Outline],
) -> (Vec<&'f FailureRecord>, Vec<&'f FailureRecord>) {
    let mut open: HashSet<&StageKey> = failures.iter().map(|record| &record.key).collect();
    if !open.is_empty() {
        for key in outlines.iter().flat_map(Outline::keys) {
            open.remove(key);
        }
    }
    let others: HashSet<StageKey> = open.into_iter().copied().collect();
    failures.into_iter().partition(|record| !others.contains(&record.key))
}

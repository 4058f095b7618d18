//! `ressa logs`: what stages logged, and which of them failed.

mod told;

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

use ressa_experiment::StageKey;
use ressa_runlog::{Index, LogPart, Reading, Record, State, read};
use ressa_store::Store;
use ressa_sweep::{failures, recorded_titles};
use serde_json::json;

use told::Told;

use crate::{
    arguments::{Global, LogsOptions},
    chosen::recorded,
    exit::{Exit, Failure, Outcome},
    outlines::named_outline,
    signals,
    study::{Match, find_among, is_digits},
    text::{say, say_json},
    workspace::Workspace,
};

/// Time between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(300);
/// Bytes of a log that are shown at once.
const SHOWN: u64 = 1 << 20;

/// Lists failures, or prints a log.
pub fn run(global: &Global, options: &LogsOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let reading = read(&store)?;
    let Some(word) = &options.which else {
        return list(global, &workspace, &reading.index, &store);
    };
    let keys = stages(&workspace, &store, &reading.index, word)?;
    if options.follow {
        let [key] = keys[..] else {
            let message = format!("`{word}` has {} stages; -f follows one, named by its key", keys.len());
            return Err(Failure::new(Exit::Usage, message));
        };
        return follow(&workspace, &store, reading, key);
    }
    let texts: Vec<String> = keys
        .iter()
        .map(|key| {
            let part = reading.index.get(key).and_then(part);
            part.map(|part| text(&workspace.results, &part, part.from)).unwrap_or_default()
        })
        .collect();
    // Where its worker printed nothing, there is still what the sweep wrote down of it.
    let silent = keys.iter().zip(&texts).filter(|(_, text)| global.json || text.trim().is_empty()).map(|(key, _)| *key);
    let events = Told::of(&store, silent.collect())?;
    let mut answers = Vec::new();
    for (key, text) in keys.into_iter().zip(texts) {
        let Some(record) = reading.index.get(&key) else { continue };
        let failure = reading.index.failure(&key);
        if global.json {
            let events = events.of_stage(&key);
            answers
                .push(json!({ "key": key, "state": state(record), "record": failure, "log": text, "events": events }));
            continue;
        }
        say(format_args!("{}  {}", key.short(), state(record)));
        if let Some(failure) = failure {
            say(format_args!("{}  {}\n{}\n", failure.what, failure.label, failure.failure.message));
        }
        if text.trim().is_empty() {
            say("its worker printed nothing; the sweep wrote down:");
            events.lines(&key).iter().for_each(say);
        } else {
            say(text.trim_end());
        }
    }
    if global.json {
        match answers.len() {
            1 => say_json(&answers.remove(0)),
            _ => say_json(&json!(answers)),
        }
    }
    Ok(Exit::Done)
}

fn list(global: &Global, workspace: &Workspace, index: &Index, store: &Store) -> Outcome {
    let records = failures(index.failures(), store);
    if global.json {
        say_json(&json!(records));
    } else if records.is_empty() {
        let logs = workspace.show(&workspace.results.join("logs"));
        say(format_args!("no stage has failed; workers log to {logs}"));
    }
    for record in records.iter().filter(|_| !global.json) {
        say(format_args!("{}  {}  {}", record.key.short(), record.what, record.label));
        say(format_args!("    {}", record.failure.message));
    }
    Ok(Exit::Done)
}

/// The stages that a word means: by key, as the log knows them, or those of a run of what was swept here, the latest sweep first.
fn stages(workspace: &Workspace, store: &Store, index: &Index, word: &str) -> Result<Vec<StageKey>, Failure> {
    if is_digits(word) {
        let mut keys: Vec<StageKey> =
            index.iter().map(|(key, _)| *key).filter(|key| key.hex().starts_with(word)).collect();
        keys.sort_unstable();
        match keys.len() {
            0 => {}
            1 => return Ok(keys),
            many => {
                let message = format!("`{word}` begins {many} keys; give more digits");
                return Err(Failure::new(Exit::NothingSelected, message));
            }
        }
    }
    let unknown = || {
        let message = format!(
            "the log knows no stage whose key begins with `{word}`, and no such run; `ressa status --watch` and `ressa plan -v` show their names"
        );
        Failure::new(Exit::NothingSelected, message)
    };
    for sweep in recorded_titles(store)? {
        let files = sweep.files.iter().map(|file| workspace.root.join(file).display().to_string());
        // Its file may be gone, or say something else by now.
        let Ok((outline, names)) = named_outline(workspace, &recorded(files, &sweep.overrides)) else { continue };
        let runs = names.iter().map(|(id, label)| (id.as_str(), label.as_str()));
        let Some(Match::Run(run)) = find_among(runs, Vec::new(), word)? else { continue };
        let known: Vec<StageKey> = outline.run(run).filter(|key| index.get(key).is_some()).copied().collect();
        if !known.is_empty() {
            return Ok(known);
        }
    }
    Err(unknown())
}

fn state(record: &Record) -> &'static str {
    match (&record.state, record.open.is_empty()) {
        (_, false) => "running",
        (State::Published(_), _) => "made",
        (State::Failed(_), _) => "failed",
        (State::Open, _) => "not made",
    }
}

/// The part of a log that is about a stage: of its running attempt, else of its failure, else of the last one.
fn part(record: &Record) -> Option<LogPart> {
    if let Some(attempt) = record.open.values().next_back() {
        return attempt.log.clone();
    }
    if let State::Failed(failure) = &record.state
        && let Some(file) = failure.failure.log.as_ref().and_then(|path| path.to_str())
    {
        return Some(LogPart { file: file.into(), from: 0, to: None });
    }
    record.log.clone()
}

/// What a log says from a place on.
fn text(results: &Path, part: &LogPart, from: u64) -> String {
    String::from_utf8_lossy(&bytes(results, part, from)).into_owned()
}

fn bytes(results: &Path, part: &LogPart, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = part.to.map_or(SHOWN, |to| to.saturating_sub(from).min(SHOWN));
    let _ = File::open(results.join(&*part.file)).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(length).read_to_end(&mut bytes)
    });
    bytes
}

/// Prints what a stage logs until it ends.
fn follow(workspace: &Workspace, store: &Store, mut reading: Reading, key: StageKey) -> Outcome {
    let stop = signals::stop();
    let _watch = stop.watch();
    let mut shown: Option<(LogPart, u64)> = None;
    loop {
        let record = reading.index.get(&key);
        let is_over = record.is_none_or(|record| record.open.is_empty());
        let part = record.and_then(part);
        if let Some(part) = part {
            let from = match &shown {
                Some((before, at)) if before.file == part.file && before.from == part.from => *at,
                _ => part.from,
            };
            let mut new = bytes(&workspace.results, &part, from);
            // A line that is not finished is shown when it is; the last one of a stage that has ended is all there will be.
            if !is_over {
                new.truncate(new.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
            }
            if !new.is_empty() {
                say(String::from_utf8_lossy(&new).trim_end_matches('\n'));
            }
            shown = Some((part, from + new.len() as u64));
        }
        if is_over || stop.requests() > 0 {
            if shown.is_none_or(|(part, to)| to == part.from) {
                Told::of(store, [key].into())?.lines(&key).iter().for_each(say);
            }
            return Ok(Exit::Done);
        }
        std::thread::sleep(LOOK);
        reading.update(store, &mut |_| {})?;
    }
}

//! `ressa fetch`: bring a checkpoint from the hub into the cache that its other clients use.
//!
//! The transfer runs on a thread of its own, so that Ctrl-C is answered while the network is waited for; what has arrived stays.

use std::{
    io::IsTerminal,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ressa_hub::{Event, HubError, Snapshot, WantedFile};
use serde_json::json;

use crate::{
    arguments::{FetchOptions, Global},
    exit::{Exit, Failure, Outcome},
    hub, signals,
    text::{columns, count, duration, note, say, say_json, size},
};

/// How often a signal is looked for.
const GLANCE: Duration = Duration::from_millis(100);

/// Shortest time between two plain lines about one file.
const RUNNING: Duration = Duration::from_secs(20);

/// What the thread found.
enum Answer {
    Fetched(Snapshot),
    Listed(Vec<WantedFile>),
}

/// Fetches, or lists what would be fetched.
pub fn run(global: &Global, options: &FetchOptions) -> Outcome {
    let settings = hub::settings()?;
    let stop = signals::stop();
    let _watch = stop.watch();
    let (sender, events) = channel();
    let FetchOptions { repo, revision, dry_run } = options.clone();
    let transfer = thread::spawn(move || {
        let revision = revision.as_deref();
        // Nobody listens after an interruption; the process is about to end then.
        let mut on = |event| drop(sender.send(event));
        if dry_run {
            ressa_hub::wanted(&repo, revision, &settings, &mut on).map(Answer::Listed)
        } else {
            ressa_hub::fetch(&repo, revision, &settings, &mut on).map(Answer::Fetched)
        }
    });
    let mut display = Display::new(global);
    loop {
        match events.recv_timeout(GLANCE) {
            Ok(event) => display.show(&event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(by) = stop.interruption() {
            display.finish();
            note("interrupted; what has arrived is kept, and the same command goes on from there");
            if global.json {
                say_json(&json!({ "exit": Exit::interrupted(by) as u8, "interrupted": by }));
            }
            return Ok(Exit::interrupted(by));
        }
    }
    display.finish();
    let answer = transfer.join().map_err(|_| Failure::new(Exit::Other, "the transfer ended unexpectedly"))??;
    match answer {
        Answer::Fetched(snapshot) => print(global, &snapshot),
        Answer::Listed(files) => print_list(global, &files),
    }
    Ok(Exit::Done)
}

fn print(global: &Global, snapshot: &Snapshot) {
    if global.json {
        let files: Vec<_> = snapshot
            .files
            .iter()
            .map(|file| json!({ "name": file.name, "size": file.size, "was-cached": file.was_cached }))
            .collect();
        say_json(&json!({ "folder": snapshot.folder, "files": files }));
        return;
    }
    if !global.quiet {
        let new: Vec<_> = snapshot.files.iter().filter(|file| !file.was_cached).collect();
        let bytes = new.iter().map(|file| file.size).sum();
        match new.len() {
            0 => note("everything was in the cache"),
            many => note(format_args!("{} fetched, {}", count(many, "file"), size(bytes))),
        }
    }
    say(snapshot.folder.display());
}

fn print_list(global: &Global, files: &[WantedFile]) {
    if global.json {
        let files: Vec<_> = files
            .iter()
            .map(|file| json!({ "name": file.name, "size": file.size, "is-cached": file.is_cached }))
            .collect();
        say_json(&json!({ "files": files }));
        return;
    }
    let mut rows = vec![["file", "size", ""].map(str::to_owned).to_vec()];
    for file in files {
        let bytes = file.size.map_or("unknown".to_owned(), size);
        rows.push(vec![file.name.clone(), bytes, if file.is_cached { "cached" } else { "" }.to_owned()]);
    }
    say(columns(&rows).trim_end());
    let left = files.iter().filter(|file| !file.is_cached).filter_map(|file| file.size).sum();
    say(format_args!("{} to fetch", size(left)));
}

/// How far it is: one bar on a terminal, bounded lines elsewhere.
struct Display {
    bar: ProgressBar,
    quiet: bool,
    /// Bytes of the files that are complete, and those of the current one.
    done: u64,
    at: u64,
    told: Instant,
}

impl Display {
    fn new(global: &Global) -> Self {
        let bar = if global.quiet || global.json || !std::io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10))
        };
        let template =
            "{bar:30} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}, {eta} left  {wide_msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        Self { bar, quiet: global.quiet, done: 0, at: 0, told: Instant::now() }
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Listed { files, bytes } => {
                self.bar.set_length(*bytes);
                self.line(format!("{}, {} to fetch", count(*files, "file"), size(*bytes)));
            }
            Event::Reached { name, at, size: whole } => {
                self.at = *at;
                self.bar.set_position(self.done + at);
                self.bar.set_message(name.clone());
                if self.bar.is_hidden() && self.told.elapsed() >= RUNNING {
                    self.line(format!("{name}: {} of {}", size(*at), size(*whole)));
                }
            }
            Event::Checking { name } => self.bar.set_message(format!("{name}: checking")),
            Event::Finished { name, was_cached } => {
                if !was_cached {
                    self.line(format!("{name}: {}", size(self.at)));
                }
                self.done += self.at;
                self.at = 0;
            }
            Event::Retrying { name, reason, pause } => {
                self.line(format!("{name}: {reason}; trying again in {}", duration(pause.as_secs_f64())));
            }
        }
    }

    fn line(&mut self, line: String) {
        self.told = Instant::now();
        if self.quiet {
        } else if self.bar.is_hidden() {
            note(line);
        } else {
            self.bar.println(line);
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        let exit = match &error {
            HubError::Name { .. } => Exit::Usage,
            HubError::Busy { .. } => Exit::Busy,
            error if error.is_storage() => Exit::CannotWrite,
            error if error.is_missing() => Exit::MissingInput,
            _ => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    }
}

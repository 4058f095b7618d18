//! The arrays of a sweep: submitted with the intent written down before, looked up by name after a missing answer, followed in the queue.
//!
//! The sweep's own records come first: a pilot that is there runs, whatever the queue says. The queue comes second, asked rarely and for all
//! arrays at once; that it does not list a job counts only when it does so twice. Accounting is never asked.

mod follow;
mod task;

use std::{collections::BTreeSet, fs, io, path::PathBuf, time::Duration};

use crate::{
    journal::{Entry, Journal},
    pilot::{Pilot, salt, token},
    profile::Class,
    script::sbatch_script,
    size::Array,
    slurm::{Call, CallError, Commands, Refusal, RefusalKind, refusal, submitted_job},
};

pub(crate) use follow::Poll;
pub(crate) use task::Task;

/// What is known of a submission.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SubmissionState {
    /// The engine has it under a number.
    Accepted(u64),
    /// There was no answer; the queue was looked at so many times since.
    Unanswered { since: Duration, looks: u32 },
    /// There was no answer, and the queue does not have it. It may still appear.
    Lost { since: Duration },
    /// Nothing of it is left.
    Over,
}

/// An array of pilots.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub token: String,
    pub class: String,
    pub at_once: Option<u32>,
    pub state: SubmissionState,
    pub tasks: Vec<Task>,
}

impl Submission {
    fn new(token: String, class: String, jobs: u32, at_once: Option<u32>, state: SubmissionState) -> Self {
        Self { token, class, at_once, state, tasks: vec![Task::default(); jobs as usize] }
    }

    /// Number of the array.
    pub fn job(&self) -> Option<u64> {
        match self.state {
            SubmissionState::Accepted(job) => Some(job),
            _ => None,
        }
    }

    /// Whether jobs of it may still do something.
    pub fn is_living(&self) -> bool {
        matches!(self.state, SubmissionState::Accepted(_) | SubmissionState::Unanswered { .. })
    }

    /// Jobs that may still do something.
    pub fn living(&self) -> usize {
        if self.is_living() { self.tasks.iter().filter(|task| task.is_living()).count() } else { 0 }
    }

    /// Jobs in the queue.
    pub fn waiting(&self) -> usize {
        if self.is_living() { self.tasks.iter().filter(|task| task.is_waiting()).count() } else { 0 }
    }
}

/// How a submission went.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// It was taken under this number.
    Accepted(u64),
    /// It was not taken, for a reason that the engine gave.
    Refused { refusal: Refusal, message: String },
    /// Whether it was taken is not known; the queue will show it.
    Unanswered { why: String },
}

/// All arrays of a results folder that may still live.
#[derive(Debug)]
pub(crate) struct Submissions {
    journal: Journal,
    pilot: Pilot,
    pub list: Vec<Submission>,
    /// Nodes that an earlier coordinator excluded.
    pub excluded_before: Vec<(String, String)>,
}

impl Submissions {
    /// Opens the journal of a results folder. What an earlier coordinator submitted is still followed.
    pub fn open(pilot: Pilot) -> io::Result<Self> {
        let (journal, entries) = Journal::open(&pilot.logs)?;
        let mut list: Vec<Submission> = Vec::new();
        let mut excluded_before = Vec::new();
        for entry in entries {
            let mut set = |token: &str, state: SubmissionState| {
                list.iter_mut().filter(|one| one.token == token).for_each(|one| one.state = state);
            };
            match entry {
                Entry::Intent { token, class, jobs, at_once } => {
                    let state = SubmissionState::Unanswered { since: Duration::ZERO, looks: 0 };
                    list.push(Submission::new(token, class, jobs.min(1_000_000), at_once, state));
                }
                Entry::Accepted { token, job } => set(&token, SubmissionState::Accepted(job)),
                Entry::Lost { token } => set(&token, SubmissionState::Lost { since: Duration::ZERO }),
                Entry::Refused { token, .. } | Entry::Over { token } => set(&token, SubmissionState::Over),
                Entry::Excluded { node, reason } => excluded_before.push((node, reason)),
            }
        }
        list.retain(|one| one.state != SubmissionState::Over);
        Ok(Self { journal, pilot, list, excluded_before })
    }

    /// Submits an array of pilots of a class: intent, script, command.
    pub fn submit(
        &mut self,
        class: &Class,
        array: Array,
        excluded: &[String],
        commands: &dyn Commands,
        now: Duration,
    ) -> io::Result<Submitted> {
        let token = token(&class.name, salt());
        let script = self.pilot.logs.join(format!("{token}.sh"));
        fs::write(&script, sbatch_script(&self.pilot, class, array, &token, excluded))?;
        self.journal.write(&Entry::Intent {
            token: token.clone(),
            class: class.name.clone(),
            jobs: array.jobs,
            at_once: array.at_once,
        })?;
        let call = Call::new("sbatch", ["--parsable".to_owned(), script.display().to_string()]);
        let submitted = match commands.call(&call) {
            Ok(answer) if answer.is_success() => match submitted_job(&answer.output) {
                Some(job) => Submitted::Accepted(job),
                None => Submitted::Unanswered { why: "`sbatch` answered without a job number".to_owned() },
            },
            Ok(answer) => {
                // The kind goes by all of the message, people get its end.
                let (told, message) = (refusal(&answer.errors), answer.message());
                match told.kind {
                    // An error that is no decision, such as a time-out: such submissions are often alive.
                    RefusalKind::Later => Submitted::Unanswered { why: format!("`sbatch`: {message}") },
                    _ => Submitted::Refused { refusal: told, message },
                }
            }
            Err(error @ CallError::Missing { .. }) => Submitted::Refused {
                refusal: Refusal {
                    kind: RefusalKind::Never,
                    advice: Some("run the sweep where Slurm's commands are, such as a login node"),
                },
                message: error.to_string(),
            },
            Err(error) => Submitted::Unanswered { why: error.to_string() },
        };
        let state = match &submitted {
            Submitted::Accepted(job) => {
                self.journal.write(&Entry::Accepted { token: token.clone(), job: *job })?;
                SubmissionState::Accepted(*job)
            }
            Submitted::Unanswered { .. } => SubmissionState::Unanswered { since: now, looks: 0 },
            Submitted::Refused { message, .. } => {
                self.journal.write(&Entry::Refused { token, message: message.clone() })?;
                let _ = fs::remove_file(&script);
                return Ok(submitted);
            }
        };
        self.list.push(Submission::new(token, class.name.clone(), array.jobs, array.at_once, state));
        Ok(submitted)
    }

    /// Takes note of the pilots that are there, by their jobs `ARRAY_INDEX`. Returns whether one of before is gone.
    pub fn observe(&mut self, jobs: &BTreeSet<String>) -> bool {
        let mut left = false;
        for submission in &mut self.list {
            let Some(job) = submission.job() else { continue };
            for (index, task) in submission.tasks.iter_mut().enumerate() {
                let is_there = jobs.contains(&format!("{job}_{index}"));
                left |= task.is_there && !is_there;
                task.is_there = is_there;
                task.was_there |= is_there;
            }
        }
        left
    }

    /// Nodes that jobs run on.
    pub fn nodes(&self) -> BTreeSet<String> {
        let tasks = self.list.iter().filter(|one| one.is_living()).flat_map(|one| &one.tasks);
        tasks.filter(|task| task.is_living()).filter_map(|task| task.node.clone()).collect()
    }

    /// Cancels at most `most` waiting jobs of a class, the last ones first. Returns how many were named to the engine, and what went wrong.
    pub fn cancel_waiting(&mut self, class: &str, most: usize, commands: &dyn Commands) -> (usize, Option<String>) {
        let (mut left, mut trouble) = (most, None);
        for submission in self.list.iter_mut().rev().filter(|one| one.class == class) {
            let Some(job) = submission.job() else { continue };
            let waiting = submission.tasks.iter().enumerate().rev().filter(|(_, task)| task.is_waiting());
            let mut chosen: Vec<usize> = waiting.map(|(index, _)| index).collect();
            let call = if chosen.len() <= left {
                // Also those that went back into the queue since it was looked at; those that began since are left alone.
                Call::new("scancel", ["--state=PENDING".to_owned(), format!("--name={}", submission.token)])
            } else {
                chosen.truncate(left);
                let list = chosen.iter().rev().map(usize::to_string).collect::<Vec<_>>().join(",");
                // Slurm takes no `--state` beside indices: 22.05 cancels all that wait. One that began since gives its work back.
                Call::new("scancel", [format!("{job}_[{list}]")])
            };
            if chosen.is_empty() {
                continue;
            }
            match commands.call(&call) {
                Ok(answer) if answer.is_success() => {
                    left -= chosen.len();
                    chosen.into_iter().for_each(|index| submission.tasks[index].cancel());
                }
                Ok(answer) => trouble = Some(format!("`scancel`: {}", answer.message())),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        (most - left, trouble)
    }

    /// Cancels everything of every array that waits, also of arrays whose submission got no answer.
    pub fn cancel_all_waiting(&mut self, commands: &dyn Commands) -> Result<usize, String> {
        let mut jobs = 0;
        for submission in self.list.iter_mut().filter(|one| one.is_living()) {
            let call = Call::new("scancel", ["--state=PENDING".to_owned(), format!("--name={}", submission.token)]);
            let answer = commands.call(&call).map_err(|error| error.to_string())?;
            if !answer.is_success() {
                return Err(format!("`scancel`: {}", answer.message()));
            }
            for task in submission.tasks.iter_mut().filter(|task| task.is_waiting()) {
                jobs += 1;
                task.cancel();
            }
        }
        Ok(jobs)
    }

    /// Tells waiting arrays which nodes they may not use. An engine that does not take it is not told again: those of the next submission count.
    pub fn exclude(&mut self, node: &str, reason: &str, all: &[String], commands: &dyn Commands) -> io::Result<()> {
        self.journal.write(&Entry::Excluded { node: node.to_owned(), reason: reason.to_owned() })?;
        for submission in self.list.iter().filter(|one| one.waiting() > 0) {
            let Some(job) = submission.job() else { continue };
            let words = ["update".to_owned(), format!("JobId={job}"), format!("ExcNodeList={}", all.join(","))];
            let _ = commands.call(&Call::new("scontrol", words));
        }
        Ok(())
    }

    /// The log of the first job of an array.
    pub fn log(&self, token: &str) -> PathBuf {
        self.pilot.logs.join(format!("{token}-0.log"))
    }
}

//! Following arrays in the queue.

use std::{collections::BTreeMap, io, time::Duration};

use super::{Submission, SubmissionState, Submissions};
use crate::{
    event::FleetEvent,
    journal::Entry,
    slurm::{Call, Commands, End, ListedTask, TASK_FIELDS, TaskState, listed_tasks},
};

/// Time after a missing answer before the queue's silence means something, and how often it must be silent.
const SETTLED: Duration = Duration::from_secs(10);
const LOOKS: u32 = 2;
/// How long an array is still looked for that got no answer and did not appear.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What a look at the queue showed.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    pub events: Vec<FleetEvent>,
    /// Arrays that are over.
    pub over: Vec<Over>,
    /// Whether anything is other than at the last look.
    pub changed: bool,
}

/// An array of which nothing is left.
#[derive(Debug)]
pub(crate) struct Over {
    pub class: String,
    pub token: String,
    /// Whether a pilot of it joined the sweep.
    pub joined: bool,
    /// Whether it was cancelled before it began.
    pub cancelled: bool,
}

impl Submissions {
    /// Whether the queue can have something to tell.
    pub fn is_followed(&self) -> bool {
        !self.list.is_empty()
    }

    /// Looks at the queue once, for all arrays.
    ///
    /// # Errors
    /// What the engine said instead of a queue; nothing is concluded from it.
    pub fn poll(&mut self, commands: &dyn Commands, now: Duration) -> Result<Poll, String> {
        let names: Vec<&str> = self.list.iter().map(|one| one.token.as_str()).collect();
        let format = format!("--format={TASK_FIELDS}");
        let words = ["--noheader", "--array", "--states=all", &format, &format!("--name={}", names.join(","))];
        let answer = commands.call(&Call::new("squeue", words)).map_err(|error| error.to_string())?;
        if !answer.is_success() {
            return Err(format!("`squeue`: {}", answer.message()));
        }
        let Some(listed) = listed_tasks(&answer.output) else {
            let start: String = answer.output.trim().chars().take(60).collect();
            return Err(format!("`squeue` answered something else than a queue: `{}`", start.escape_debug()));
        };
        let mut poll = Poll::default();
        for submission in &mut self.list {
            let own: Vec<&ListedTask> = listed.iter().filter(|task| task.name == submission.token).collect();
            let entry = submission.follow(&own, now, &mut poll);
            if let Some(entry) = entry {
                self.journal.write(&entry).map_err(|error| unwritten(&self.journal, &error))?;
            }
        }
        for doubled in doubles(&self.list, &listed) {
            if let FleetEvent::Doubled { job, .. } = &doubled {
                let _ = commands.call(&Call::new("scancel", [job.to_string()]));
            }
            poll.events.push(doubled);
        }
        self.bury(&mut poll).map_err(|error| unwritten(&self.journal, &error))?;
        Ok(poll)
    }

    /// Forgets arrays of which nothing is left.
    fn bury(&mut self, poll: &mut Poll) -> io::Result<()> {
        for submission in self.list.iter_mut().filter(|one| one.job().is_some() && one.living() == 0) {
            submission.state = SubmissionState::Over;
            self.journal.write(&Entry::Over { token: submission.token.clone() })?;
            poll.over.push(Over {
                class: submission.class.clone(),
                token: submission.token.clone(),
                joined: submission.tasks.iter().any(|task| task.was_there),
                cancelled: submission.tasks.iter().all(|task| task.was_cancelled()),
            });
        }
        self.list.retain(|one| one.state != SubmissionState::Over);
        Ok(())
    }
}

fn unwritten(journal: &crate::journal::Journal, error: &io::Error) -> String {
    format!("cannot write `{}`: {error}", journal.path().display())
}

/// Arrays of a name that is already another array's. The first number is the one that counts.
fn doubles(list: &[Submission], listed: &[ListedTask]) -> Vec<FleetEvent> {
    let mut found = BTreeMap::new();
    for task in listed.iter().filter(|task| task.state.is_living()) {
        let owner = list.iter().find(|one| one.token == task.name && one.job().is_some_and(|job| job != task.job));
        if let Some(owner) = owner {
            found.insert(task.job, owner.class.clone());
        }
    }
    found.into_iter().map(|(job, class)| FleetEvent::Doubled { class, job }).collect()
}

impl Submission {
    /// Takes over what the queue lists under the array's name. Returns what is to be written down.
    fn follow(&mut self, listed: &[&ListedTask], now: Duration, poll: &mut Poll) -> Option<Entry> {
        let mut entry = None;
        if let (None, Some(job)) = (self.job(), listed.iter().map(|task| task.job).min()) {
            self.state = SubmissionState::Accepted(job);
            poll.changed = true;
            poll.events.push(FleetEvent::Found { class: self.class.clone(), job });
            entry = Some(Entry::Accepted { token: self.token.clone(), job });
        }
        match self.state {
            SubmissionState::Accepted(job) => self.compare(job, listed, poll),
            SubmissionState::Unanswered { since, looks } if now.saturating_sub(since) >= SETTLED => {
                if looks + 1 < LOOKS {
                    self.state = SubmissionState::Unanswered { since, looks: looks + 1 };
                } else {
                    self.state = SubmissionState::Lost { since: now };
                    poll.changed = true;
                    poll.events.push(FleetEvent::Lost { class: self.class.clone() });
                    entry = Some(Entry::Lost { token: self.token.clone() });
                }
            }
            SubmissionState::Lost { since } if now.saturating_sub(since) >= FORGOTTEN => {
                self.state = SubmissionState::Over;
                entry = Some(Entry::Over { token: self.token.clone() });
            }
            _ => {}
        }
        entry
    }

    fn compare(&mut self, job: u64, listed: &[&ListedTask], poll: &mut Poll) {
        // Jobs that were cancelled in the queue leave it at once; what is left of the array says so.
        let is_cancelled = |one: &&&ListedTask| one.index.is_none() && one.state == TaskState::Ended(End::Cancelled);
        let rest_cancelled = listed.iter().filter(|one| one.job == job).any(|one| is_cancelled(&one));
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let before = (task.is_living(), task.is_waiting());
            // One job may stand there twice, before and after a requeue: the one that lives counts.
            let own = listed.iter().filter(|one| one.job == job && one.index.is_some_and(|own| own as usize == index));
            match own.max_by_key(|one| one.state.is_living()) {
                None if rest_cancelled && task.is_waiting() => task.cancel(),
                None => task.miss(),
                Some(one) => {
                    let end = task.list(one).filter(|end| match end {
                        // The exit code of a pilot that gave work back says nothing new; that of one that never came does.
                        End::Completed | End::Failed => !task.was_there,
                        End::Cancelled => task.node.is_some(),
                        _ => true,
                    });
                    if let Some(end) = end {
                        let (class, job) = (self.class.clone(), format!("{job}_{index}"));
                        poll.events.push(FleetEvent::JobEnded { class, job, node: task.node.clone(), end });
                    }
                }
            }
            poll.changed |= before != (task.is_living(), task.is_waiting());
        }
    }
}

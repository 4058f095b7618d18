//! When jobs are submitted, and when they are cancelled.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::Duration,
};

use super::{ClassStatus, FleetStatus, Need};
use crate::{
    backoff::Backoff,
    event::FleetEvent,
    exclusion::Exclusions,
    pilot::Pilot,
    profile::{Class, Profile},
    size::{Array, Work, wanted},
    slurm::{Call, Commands, RefusalKind, Settings},
    submissions::{Poll, SubmissionState, Submissions, Submitted},
};

/// Time between two looks at the queue: at first, and at most while nothing changes.
const FIRST_LOOK: Duration = Duration::from_secs(40);
const LONGEST_LOOK: Duration = Duration::from_secs(180);
/// The same where something is to be found out: a submission without an answer, a pilot that is gone.
const URGENT_LOOK: Duration = Duration::from_secs(10);
/// Time between two submissions of a class.
const SETTLING: Duration = Duration::from_secs(30);
/// How long jobs must be too many before they are cancelled, while the class has work: places in a queue are hard to come by.
const SURPLUS: Duration = Duration::from_secs(60);
/// Slurm's own limit where it does not say one.
const MAX_ARRAY_SIZE: u32 = 1001;
/// Submissions in a row that do not get anywhere before a class is given up.
const FRUITLESS: u32 = 3;
const REFUSED: u32 = 8;

/// What is known of a class beside its arrays.
#[derive(Debug, Default)]
struct Standing {
    backoff: Backoff,
    /// Arrays in a row of which no pilot joined.
    fruitless: u32,
    last: Option<Duration>,
    /// Jobs of the next array at most, after one was refused for its size.
    most: Option<u32>,
    surplus_since: Option<Duration>,
    reason: Option<String>,
    gave_up: Option<String>,
}

/// Everything that a fleet's thread has.
#[derive(Debug)]
pub(crate) struct Crew {
    profile: Profile,
    commands: Box<dyn Commands>,
    submissions: Submissions,
    exclusions: Exclusions,
    standings: HashMap<String, Standing>,
    work: BTreeMap<String, Work>,
    /// Largest array of this engine, once it said so.
    max_array_size: Option<u32>,
    /// Trouble with the queue, and when it is looked at next.
    trouble: Backoff,
    next_look: Duration,
    last_look: Option<Duration>,
    interval: Duration,
    /// Whether arrays of an earlier coordinator were looked up.
    is_caught_up: bool,
}

impl Crew {
    pub fn new(profile: Profile, pilot: Pilot, commands: Box<dyn Commands>) -> io::Result<Self> {
        let submissions = Submissions::open(pilot)?;
        let mut exclusions = Exclusions::default();
        submissions.excluded_before.iter().for_each(|(node, reason)| exclusions.remember(node.clone(), reason.clone()));
        Ok(Self {
            profile,
            commands,
            is_caught_up: !submissions.is_followed(),
            submissions,
            exclusions,
            standings: HashMap::new(),
            work: BTreeMap::new(),
            max_array_size: None,
            trouble: Backoff::default(),
            next_look: Duration::ZERO,
            last_look: None,
            interval: FIRST_LOOK,
        })
    }

    /// One round at `now`, counted from the fleet's start.
    pub fn step(&mut self, need: &Need, now: Duration) -> Vec<FleetEvent> {
        let mut events = Vec::new();
        self.work.clone_from(&need.work);
        if self.submissions.observe(&need.jobs) {
            self.look_soon();
        }
        self.look(now, &mut events);
        self.exclude(need, &mut events);
        let classes = self.profile.classes.clone();
        // Arrays of a class that the profile no longer has serve nobody.
        let foreign =
            self.submissions.list.iter().map(|one| one.class.clone()).filter(|name| self.profile.class(name).is_none());
        for name in foreign.collect::<std::collections::BTreeSet<_>>() {
            self.cancel(&name, usize::MAX, now, &mut events);
        }
        for class in &classes {
            if need.stopping {
                self.cancel(&class.name, usize::MAX, now, &mut events);
            } else {
                self.settle(class, need.work.get(&class.name).copied().unwrap_or_default(), now, &mut events);
            }
        }
        events
    }

    /// The last round: what waits is cancelled, whatever went wrong before.
    pub fn finish(&mut self) -> Vec<FleetEvent> {
        let class = self.profile.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ");
        match self.submissions.cancel_all_waiting(&*self.commands) {
            Ok(0) => Vec::new(),
            Ok(jobs) => vec![FleetEvent::Cancelled { class, jobs }],
            Err(what) => vec![FleetEvent::Uncancelled { what }],
        }
    }

    /// The jobs now.
    pub fn status(&self) -> FleetStatus {
        let status = |class: &Class| {
            let own = || self.submissions.list.iter().filter(|one| one.class == class.name);
            let standing = self.standings.get(&class.name);
            let (living, waiting) =
                (own().map(|one| one.living()).sum::<usize>(), own().map(|one| one.waiting()).sum());
            ClassStatus {
                class: class.name.clone(),
                wanted: self.work.get(&class.name).map_or(0, |&work| wanted(work, &class.resources)),
                waiting,
                reason: standing.and_then(|standing| standing.reason.clone()).filter(|_| waiting > 0),
                running: living - waiting,
                joined: own().flat_map(|one| &one.tasks).filter(|task| task.is_there).count(),
                gave_up: standing.and_then(|standing| standing.gave_up.clone()),
            }
        };
        FleetStatus {
            classes: self.profile.classes.iter().map(status).collect(),
            excluded: self.exclusions.reasons().clone(),
        }
    }

    /// Looks at the queue sooner than it would be.
    fn look_soon(&mut self) {
        let soonest = self.last_look.map_or(Duration::ZERO, |last| last + URGENT_LOOK);
        self.next_look = self.next_look.min(soonest);
    }

    fn look(&mut self, now: Duration, events: &mut Vec<FleetEvent>) {
        if !self.submissions.is_followed() || now < self.next_look || !self.trouble.is_over(now) {
            return;
        }
        self.last_look = Some(now);
        match self.submissions.poll(&*self.commands, now) {
            Err(what) => {
                let again = self.trouble.fail(now).as_secs();
                events.push(FleetEvent::Trouble { what, again });
            }
            Ok(poll) => {
                self.trouble.reset();
                self.is_caught_up = true;
                self.interval = if poll.changed { FIRST_LOOK } else { self.interval.mul_f64(1.5).min(LONGEST_LOOK) };
                let unanswered =
                    self.submissions.list.iter().any(|one| matches!(one.state, SubmissionState::Unanswered { .. }));
                self.next_look = now + if unanswered { URGENT_LOOK } else { self.interval };
                self.judge(poll, now, events);
            }
        }
    }

    /// Draws the conclusions of a look at the queue.
    fn judge(&mut self, poll: Poll, now: Duration, events: &mut Vec<FleetEvent>) {
        events.extend(poll.events);
        for over in poll.over {
            let log = self.submissions.log(&over.token);
            let standing = self.standings.entry(over.class.clone()).or_default();
            if over.joined {
                standing.fruitless = 0;
            } else if !over.cancelled {
                standing.fruitless += 1;
                standing.backoff.fail(now);
                if standing.fruitless >= FRUITLESS {
                    let reason = format!(
                        "{FRUITLESS} arrays in a row ended without one pilot that joined the sweep; `{}` may say why",
                        log.display()
                    );
                    give_up(standing, over.class, reason, events);
                }
            }
        }
        for class in &self.profile.classes {
            let waiting = self.submissions.list.iter().filter(|one| one.class == class.name);
            let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
            for task in waiting.flat_map(|one| &one.tasks).filter(|task| task.is_waiting()) {
                task.reason.iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
            }
            let most = reasons.into_iter().max_by_key(|(_, jobs)| *jobs);
            let standing = self.standings.entry(class.name.clone()).or_default();
            let Some((reason, jobs)) = most else {
                standing.reason = None;
                continue;
            };
            if standing.reason.as_deref() != Some(reason) {
                standing.reason = Some(reason.to_owned());
                events.push(FleetEvent::Waiting { class: class.name.clone(), jobs, reason: reason.to_owned() });
            }
        }
    }

    fn exclude(&mut self, need: &Need, events: &mut Vec<FleetEvent>) {
        if need.failures.is_empty() {
            return;
        }
        let found = self.exclusions.look(&need.failures, &self.submissions.nodes(), self.profile.bad_node);
        let all = self.exclusions.nodes();
        for event in found {
            if let FleetEvent::Excluded { node, reason } = &event
                && let Err(error) = self.submissions.exclude(node, reason, &all, &*self.commands)
            {
                events.push(unwritten(&error));
            }
            events.push(event);
        }
    }

    /// Cancels waiting jobs of a class.
    fn cancel(&mut self, class: &str, most: usize, now: Duration, events: &mut Vec<FleetEvent>) {
        let waiting: usize =
            self.submissions.list.iter().filter(|one| one.class == class).map(|one| one.waiting()).sum();
        if waiting == 0 || !self.trouble.is_over(now) {
            return;
        }
        if most < waiting && self.last_look != Some(now) {
            // Which ones still wait must be known of this moment.
            self.next_look = now;
            return;
        }
        let (jobs, trouble) = self.submissions.cancel_waiting(class, most.min(waiting), &*self.commands);
        if jobs > 0 {
            events.push(FleetEvent::Cancelled { class: class.to_owned(), jobs });
            self.look_soon();
        }
        if let Some(what) = trouble {
            let again = self.trouble.fail(now).as_secs();
            events.push(FleetEvent::Trouble { what, again });
        }
    }

    /// Submits jobs of a class where they are too few, and cancels waiting ones where they are too many.
    fn settle(&mut self, class: &Class, work: Work, now: Duration, events: &mut Vec<FleetEvent>) {
        let own = || self.submissions.list.iter().filter(|one| one.class == class.name);
        let living: usize = own().map(|one| one.living()).sum();
        let running_at_once: u32 = own()
            .filter(|one| one.living() > 0)
            .map(|one| one.at_once.unwrap_or(u32::MAX).min(u32::try_from(one.living()).unwrap_or(u32::MAX)))
            .fold(0, u32::saturating_add);
        let unanswered = own().any(|one| matches!(one.state, SubmissionState::Unanswered { .. }));
        let target = wanted(work, &class.resources);
        let standing = self.standings.entry(class.name.clone()).or_default();
        if living > target as usize {
            let since = *standing.surplus_since.get_or_insert(now);
            if work.open == 0 || now.saturating_sub(since) >= SURPLUS {
                self.cancel(&class.name, living - target as usize, now, events);
            }
            return;
        }
        standing.surplus_since = None;
        let settled = standing.last.is_none_or(|last| now.saturating_sub(last) >= SETTLING);
        let lacking = target - u32::try_from(living).unwrap_or(target);
        let ready = settled && !unanswered && self.is_caught_up && standing.backoff.is_over(now);
        if lacking == 0 || standing.gave_up.is_some() || !ready {
            return;
        }
        // Arrays beside each other would each run as many at once as the profile allows.
        let at_once = class.resources.array_limit.map(|limit| limit.saturating_sub(running_at_once));
        if at_once == Some(0) {
            return;
        }
        let limit = self.max_array_size(now, events);
        let standing = self.standings.entry(class.name.clone()).or_default();
        let array = Array::of(lacking.min(standing.most.unwrap_or(u32::MAX)), at_once, limit);
        standing.last = Some(now);
        self.submit(class, array, now, events);
    }

    fn submit(&mut self, class: &Class, array: Array, now: Duration, events: &mut Vec<FleetEvent>) {
        let submitted = self.submissions.submit(class, array, &self.exclusions.nodes(), &*self.commands, now);
        let standing = self.standings.entry(class.name.clone()).or_default();
        let name = class.name.clone();
        match submitted {
            Ok(Submitted::Accepted(job)) => {
                standing.most = None;
                if standing.fruitless == 0 {
                    standing.backoff.reset();
                }
                self.interval = FIRST_LOOK;
                self.next_look = now + FIRST_LOOK;
                events.push(FleetEvent::Submitted { class: name, jobs: array.jobs, job });
            }
            Ok(Submitted::Unanswered { why }) => {
                let again = standing.backoff.fail(now).as_secs();
                self.next_look = now + URGENT_LOOK;
                events.push(FleetEvent::Trouble {
                    what: format!("{why}; the queue will show whether {name} was submitted"),
                    again,
                });
            }
            Ok(Submitted::Refused { refusal, message }) => {
                let advice = refusal.advice.map_or(String::new(), |advice| format!("; {advice}"));
                let reason = format!("`sbatch`: {message}{advice}");
                let pause = standing.backoff.fail(now);
                let smaller = matches!(refusal.kind, RefusalKind::TooLarge | RefusalKind::Full);
                if smaller {
                    standing.most = Some((array.jobs / 2).max(1));
                    // It may have been changed.
                    self.max_array_size = None;
                }
                let hopeless =
                    refusal.kind == RefusalKind::Never || refusal.kind == RefusalKind::TooLarge && array.jobs == 1;
                if hopeless || standing.backoff.failures() > REFUSED && refusal.kind != RefusalKind::Full {
                    give_up(standing, name, reason, events);
                } else {
                    events.push(FleetEvent::Trouble { what: reason, again: pause.as_secs() });
                }
            }
            Err(error) => {
                standing.backoff.fail(now);
                events.push(unwritten(&error));
            }
        }
    }

    /// The largest array, asked once; while the engine does not say, its own default.
    fn max_array_size(&mut self, now: Duration, events: &mut Vec<FleetEvent>) -> u32 {
        if let Some(size) = self.max_array_size {
            return size;
        }
        let answer = self.commands.call(&Call::new("scontrol", ["show", "config"]));
        let size = match answer {
            Ok(answer) if answer.is_success() => Settings::read(&answer.output).number("MaxArraySize"),
            Ok(_) => None,
            Err(error) => {
                let again = self.trouble.fail(now).as_secs();
                events.push(FleetEvent::Trouble { what: error.to_string(), again });
                None
            }
        };
        self.max_array_size = size.and_then(|size| u32::try_from(size).ok()).filter(|&size| size > 0);
        self.max_array_size.unwrap_or(MAX_ARRAY_SIZE)
    }
}

fn give_up(standing: &mut Standing, class: String, reason: String, events: &mut Vec<FleetEvent>) {
    standing.gave_up = Some(reason.clone());
    events.push(FleetEvent::GaveUp { class, reason });
}

fn unwritten(error: &io::Error) -> FleetEvent {
    FleetEvent::Trouble { what: format!("the journal of submissions cannot be written: {error}"), again: 10 }
}

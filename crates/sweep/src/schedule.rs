//! Which stage comes next: a state per stage, and what is kept up to date when one changes, so that a change costs the same in a sweep of a
//! dozen stages and in one of a million.

mod behind;
mod complete;
mod costs;
mod order;
mod ready;
mod remaining;

use std::collections::BTreeSet;

use crate::{
    Estimates, Graph, Inventory,
    recruit::{ClassWork, Classes},
};
use behind::Behind;
use complete::Complete;
use costs::Costs;
use ready::Ready;
use remaining::Remaining;

/// State of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Was in the store.
    Cached,
    /// Waits for an input.
    Waiting,
    /// Can be started.
    Ready,
    /// A worker has it.
    Running,
    /// Made by this sweep.
    Made,
    /// Failed, now or in an earlier sweep.
    Failed,
    /// Depends on a failed stage, which is named.
    Skipped { cause: usize },
}

impl State {
    fn is_present(self) -> bool {
        matches!(self, State::Cached | State::Made)
    }

    /// Whether the sweep has still something to do about it.
    fn is_open(self) -> bool {
        self.is_active() || self == State::Waiting
    }

    /// Whether a worker has it, or could have it.
    fn is_active(self) -> bool {
        matches!(self, State::Ready | State::Running)
    }
}

/// How many stages are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub cached: usize,
    pub waiting: usize,
    pub ready: usize,
    pub running: usize,
    pub made: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Counts {
    fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::Cached => &mut self.cached,
            State::Waiting => &mut self.waiting,
            State::Ready => &mut self.ready,
            State::Running => &mut self.running,
            State::Made => &mut self.made,
            State::Failed => &mut self.failed,
            State::Skipped { .. } => &mut self.skipped,
        }
    }
}

/// What a worker holds in memory, as far as the order of stages cares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resident {
    /// The dense model it used last.
    pub dense: Option<usize>,
    /// The stage it made last.
    pub last: Option<usize>,
}

/// The states of a graph's stages.
#[derive(Debug)]
pub(crate) struct Schedule<'g> {
    graph: &'g Graph,
    state: Vec<State>,
    /// By stage, how much of what it opens is not there.
    missing_inputs: Vec<u32>,
    behind: Behind,
    /// The class of workers that takes each stage.
    class: Vec<u8>,
    /// By class, stages that are ready or run, and stages that wait.
    work: Vec<(usize, usize)>,
    /// By class, stages that the gate waits for and that are ready or run.
    gate_work: Vec<usize>,
    ready: Ready,
    remaining: Remaining,
    complete: Complete,
    counts: Counts,
    /// Stages that the gate waits for.
    open_gate: usize,
}

impl<'g> Schedule<'g> {
    /// The schedule of what `inventory` says is absent, for workers of some classes.
    pub fn new(graph: &'g Graph, inventory: &Inventory, estimates: &Estimates, classes: &Classes) -> Self {
        let present = &inventory.present;
        let costs = Costs::new(graph);
        let behind = Behind::new(graph, present);
        let missing = |position: usize| {
            let inputs = graph.stages[position].inputs.iter().filter(|&&input| !present[input]);
            u32::try_from(inputs.count() + behind.opened(position).len()).unwrap_or(u32::MAX)
        };
        let missing_inputs: Vec<u32> = (0..graph.stages.len()).map(missing).collect();
        let state: Vec<State> = (0..graph.stages.len())
            .map(|position| match (present[position], missing_inputs[position]) {
                (true, _) => State::Cached,
                (false, 0) => State::Ready,
                (false, _) => State::Waiting,
            })
            .collect();
        let class: Vec<u8> = graph.stages.iter().map(|stage| classes.of(stage) as u8).collect();
        let places = order::places(graph, present, &costs, &costs.seconds(graph, estimates));
        let mut ready = Ready::new(places, classes.names().len());
        let mut work = vec![(0, 0); classes.names().len()];
        let mut gate_work = vec![0; work.len()];
        let mut counts = Counts::default();
        let mut open_gate = 0;
        for (position, state) in state.iter().enumerate() {
            *counts.of(*state) += 1;
            open_gate += usize::from(graph.stages[position].gate && state.is_open());
            let class = usize::from(class[position]);
            work[class].0 += usize::from(state.is_active());
            gate_work[class] += usize::from(state.is_active() && graph.stages[position].gate);
            work[class].1 += usize::from(*state == State::Waiting);
            if *state == State::Ready {
                ready.insert(graph, position, class);
            }
        }
        let remaining = Remaining::new(graph, present, costs);
        let complete = Complete::new(graph, |stage| state[stage].is_present());
        Self {
            graph,
            state,
            missing_inputs,
            behind,
            class,
            work,
            gate_work,
            ready,
            remaining,
            complete,
            counts,
            open_gate,
        }
    }

    /// State of a stage.
    pub fn state(&self, position: usize) -> State {
        self.state[position]
    }

    /// How many stages are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether no stage that the gate waits for can still change.
    pub fn gate_is_settled(&self) -> bool {
        self.open_gate == 0
    }

    /// The next stage for a worker of a class (of none: for one that takes everything) of those that `fits` says it can take; with
    /// `gate_only`, nothing but what the gate waits for.
    pub fn next(
        &self,
        resident: &Resident,
        class: Option<usize>,
        gate_only: bool,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let position = self.ready.best(self.graph, resident, class, fits)?;
        // What the gate waits for comes before everything else.
        (!gate_only || self.graph.stages[position].gate).then_some(position)
    }

    /// Whether a stage could be taken; with `gate_only`, one that the gate waits for.
    pub fn has_ready(&self, gate_only: bool) -> bool {
        self.next(&Resident::default(), None, gate_only, |_| true).is_some()
    }

    /// Takes a stage for a worker, or one that a worker has already. Whether it was there to be taken.
    pub fn reserve(&mut self, position: usize) -> bool {
        let is_ready = self.state[position] == State::Ready;
        if is_ready {
            self.set(position, State::Running);
        }
        is_ready
    }

    /// What each class of workers has to do; with `gate_only`, what the gate does not wait for waits.
    pub fn work(&self, estimates: &Estimates, gate_only: bool) -> Vec<ClassWork> {
        let class = |position: usize| usize::from(self.class[position]);
        let seconds = self.remaining.work(self.graph, estimates, class, self.work.len());
        let work = self.work.iter().zip(&self.gate_work).zip(seconds);
        let of_class = |((&(active, waiting), &of_gate), seconds)| {
            let held_up = if gate_only { active - of_gate } else { 0 };
            ClassWork { active: active - held_up, waiting: waiting + held_up, seconds }
        };
        work.map(of_class).collect()
    }

    /// Puts a stage back whose worker never began it.
    pub fn put_back(&mut self, position: usize) {
        self.set(position, State::Ready);
    }

    /// Marks a stage as made.
    pub fn made(&mut self, position: usize) {
        self.set(position, State::Made);
        let graph = self.graph;
        self.complete.made(graph, position, |stage| self.state[stage].is_present());
        for dependent in self.waiting_for(position) {
            self.missing_inputs[dependent] -= 1;
            if self.missing_inputs[dependent] == 0 && self.state[dependent] == State::Waiting {
                self.set(dependent, State::Ready);
            }
        }
    }

    /// Marks a stage as failed and everything that depends on it as skipped.
    pub fn failed(&mut self, position: usize) {
        self.set(position, State::Failed);
        let mut open = vec![position];
        while let Some(failed) = open.pop() {
            for dependent in self.waiting_for(failed) {
                if matches!(self.state[dependent], State::Waiting | State::Ready) {
                    self.set(dependent, State::Skipped { cause: position });
                    open.push(dependent);
                }
            }
        }
    }

    /// Lets a failed stage be tried again, and what was skipped for it wait again. Whether it had failed.
    pub fn try_again(&mut self, position: usize) -> bool {
        if self.state[position] != State::Failed {
            return false;
        }
        let state = self.unblocked(position);
        self.set(position, state);
        // Inputs come before what reads them, so each is settled before it is asked.
        let mut open = BTreeSet::from_iter(self.waiting_for(position));
        while let Some(dependent) = open.pop_first() {
            if !matches!(self.state[dependent], State::Skipped { .. }) {
                continue;
            }
            let state = self.unblocked(dependent);
            self.set(dependent, state);
            open.extend(self.waiting_for(dependent));
        }
        true
    }

    /// What a stage is that neither has been made nor has failed: skipped for what failed in front of it, else ready or waiting.
    fn unblocked(&self, position: usize) -> State {
        let opened = self.graph.stages[position].inputs.iter().chain(self.behind.opened(position));
        let cause = opened.copied().find_map(|input| match self.state[input] {
            State::Failed => Some(input),
            State::Skipped { cause } => Some(cause),
            _ => None,
        });
        match cause {
            Some(cause) => State::Skipped { cause },
            None if self.missing_inputs[position] == 0 => State::Ready,
            None => State::Waiting,
        }
    }

    /// Stages that open a stage, directly or behind others.
    fn waiting_for(&self, position: usize) -> Vec<usize> {
        self.graph.stages[position].dependents.iter().chain(self.behind.opened_by(position)).copied().collect()
    }

    /// Runs whose every stage is published.
    pub fn complete_runs(&self) -> usize {
        self.complete.runs
    }

    /// Expected seconds until everything is settled, with `slots` workers: the larger of total work and longest chain. `fraction` is how
    /// far a running stage is.
    pub fn eta(&self, estimates: &Estimates, slots: usize, fraction: impl Fn(usize) -> f64) -> f64 {
        self.remaining.seconds(self.graph, estimates, slots, fraction)
    }

    /// The one place where a state changes, so that everything that is counted follows.
    fn set(&mut self, position: usize, new: State) {
        let old = std::mem::replace(&mut self.state[position], new);
        *self.counts.of(old) -= 1;
        *self.counts.of(new) += 1;
        if self.graph.stages[position].gate {
            self.open_gate = self.open_gate + usize::from(new.is_open()) - usize::from(old.is_open());
        }
        let class = usize::from(self.class[position]);
        if self.graph.stages[position].gate {
            let of_gate = &mut self.gate_work[class];
            *of_gate = *of_gate + usize::from(new.is_active()) - usize::from(old.is_active());
        }
        let work = &mut self.work[class];
        work.0 = work.0 + usize::from(new.is_active()) - usize::from(old.is_active());
        work.1 = work.1 + usize::from(new == State::Waiting) - usize::from(old == State::Waiting);
        if old == State::Ready {
            self.ready.remove(self.graph, position, class);
        }
        if new == State::Ready {
            self.ready.insert(self.graph, position, class);
        }
        self.remaining.changed(position, old, new);
    }
}

/// What each class of workers has to do where a sweep over what an inventory lacks begins.
pub fn work_of(graph: &Graph, inventory: &Inventory, estimates: &Estimates, classes: &Classes) -> Vec<ClassWork> {
    let schedule = Schedule::new(graph, inventory, estimates, classes);
    schedule.work(estimates, !schedule.gate_is_settled())
}

/// Expected seconds of a sweep over what an inventory lacks, with `slots` workers.
pub fn expected_seconds(graph: &Graph, inventory: &Inventory, estimates: &Estimates, slots: usize) -> f64 {
    Remaining::new(graph, &inventory.present, Costs::new(graph)).seconds(graph, estimates, slots, |_| 0.0)
}

/// The dense model a stage works on; a dense stage is its own.
pub(crate) fn dense_of(graph: &Graph, position: usize) -> Option<usize> {
    match &graph.stages[position].node.inputs.dense {
        Some(key) => graph.position(key),
        None => Some(position),
    }
}

#[cfg(test)]
mod tests;

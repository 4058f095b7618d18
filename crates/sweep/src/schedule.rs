//! Which stage comes next: a state per stage, and an order of preference.
//!
//! The gate first. Then canaries: of each distinct code path the run with the least to do, so that a defect common to many runs shows in
//! minutes. Then stages of the dense model the worker holds, whose inputs it has just made; then the longest chain; evaluations last,
//! because they are short, nothing waits for them, and they fill the gaps at the end.

use std::collections::HashMap;

use crate::{Estimates, Graph, Inventory, graph::GraphStage};

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
    missing_inputs: Vec<usize>,
    ready: Vec<usize>,
    canary: Vec<usize>,
    /// Seconds of the longest chain that begins with each stage.
    chain: Vec<f64>,
}

impl<'g> Schedule<'g> {
    /// The schedule of what `inventory` says is absent.
    pub fn new(graph: &'g Graph, inventory: &Inventory, estimates: &Estimates) -> Self {
        let present = &inventory.present;
        let seconds: Vec<f64> = graph.stages.iter().map(|stage| estimates.seconds(stage)).collect();
        let mut chain = seconds.clone();
        for position in (0..graph.stages.len()).rev() {
            let below = graph.stages[position].dependents.iter().map(|&d| chain[d]).fold(0.0, f64::max);
            chain[position] += below;
        }
        let missing_inputs: Vec<usize> =
            graph.stages.iter().map(|stage| stage.inputs.iter().filter(|&&input| !present[input]).count()).collect();
        let state: Vec<State> = (0..graph.stages.len())
            .map(|position| match (present[position], missing_inputs[position]) {
                (true, _) => State::Cached,
                (false, 0) => State::Ready,
                (false, _) => State::Waiting,
            })
            .collect();
        let ready = (0..state.len()).filter(|&position| state[position] == State::Ready).collect();
        let canary = canaries(graph, present, &seconds);
        Self { graph, state, missing_inputs, ready, canary, chain }
    }

    /// State of a stage.
    pub fn state(&self, position: usize) -> State {
        self.state[position]
    }

    /// Whether no stage that the gate waits for can still change.
    pub fn gate_is_settled(&self) -> bool {
        self.graph
            .stages
            .iter()
            .zip(&self.state)
            .all(|(stage, state)| !stage.gate || !matches!(state, State::Waiting | State::Ready | State::Running))
    }

    /// Takes the next stage for a worker; with `gate_only`, nothing but what the gate waits for.
    pub fn take(&mut self, resident: &Resident, gate_only: bool) -> Option<usize> {
        let (slot, _) = self
            .ready
            .iter()
            .enumerate()
            .filter(|(_, position)| !gate_only || self.graph.stages[**position].gate)
            .min_by(|(_, a), (_, b)| self.compare(**a, **b, resident))?;
        let position = self.ready.swap_remove(slot);
        self.state[position] = State::Running;
        Some(position)
    }

    /// Puts a stage back whose worker never began it.
    pub fn put_back(&mut self, position: usize) {
        self.state[position] = State::Ready;
        self.ready.push(position);
    }

    /// Marks a stage as made.
    pub fn made(&mut self, position: usize) {
        self.state[position] = State::Made;
        for &dependent in &self.graph.stages[position].dependents {
            self.missing_inputs[dependent] -= 1;
            if self.missing_inputs[dependent] == 0 && self.state[dependent] == State::Waiting {
                self.state[dependent] = State::Ready;
                self.ready.push(dependent);
            }
        }
    }

    /// Marks a stage as failed and everything that depends on it as skipped.
    pub fn failed(&mut self, position: usize) {
        self.state[position] = State::Failed;
        self.ready.retain(|&ready| ready != position);
        let mut open = vec![position];
        while let Some(failed) = open.pop() {
            for &dependent in &self.graph.stages[failed].dependents {
                if matches!(self.state[dependent], State::Waiting | State::Ready) {
                    self.state[dependent] = State::Skipped { cause: position };
                    open.push(dependent);
                }
            }
        }
    }

    /// How many stages are in a state that satisfies `test`.
    pub fn count(&self, test: impl Fn(State) -> bool) -> usize {
        self.state.iter().filter(|&&state| test(state)).count()
    }

    /// Runs whose every stage is published.
    pub fn complete_runs(&self) -> usize {
        let is_complete = |stages: &[usize]| stages.iter().all(|&stage| self.state[stage].is_present());
        self.graph.runs.iter().filter(|run| is_complete(&run.stages)).count()
    }

    /// Expected seconds until everything is settled, with `slots` workers: the larger of total work and longest chain.
    pub fn eta(&self, estimates: &Estimates, slots: usize, fraction: impl Fn(usize) -> f64) -> f64 {
        let mut work = 0.0;
        let mut longest = 0.0_f64;
        // Longest chain from each stage on, by what is known now.
        let mut chain = vec![0.0_f64; self.state.len()];
        for (position, stage) in self.graph.stages.iter().enumerate().rev() {
            let done = match self.state[position] {
                State::Waiting | State::Ready => 0.0,
                State::Running => fraction(position).clamp(0.0, 1.0),
                _ => continue,
            };
            let seconds = estimates.seconds(stage) * (1.0 - done);
            let below = stage.dependents.iter().map(|&dependent| chain[dependent]).fold(0.0, f64::max);
            chain[position] = seconds + below;
            work += seconds;
            longest = longest.max(chain[position]);
        }
        (work / slots.max(1) as f64).max(longest)
    }

    fn compare(&self, a: usize, b: usize, resident: &Resident) -> std::cmp::Ordering {
        let preference = |position: usize| {
            let stage: &GraphStage = &self.graph.stages[position];
            let other_model = resident.dense.is_some() && dense_of(self.graph, position) != resident.dense;
            let just_made = resident.last.is_some_and(|last| stage.inputs.contains(&last));
            (!stage.gate, self.canary[position], other_model, stage.dependents.is_empty(), !just_made)
        };
        preference(a).cmp(&preference(b)).then(self.chain[b].total_cmp(&self.chain[a])).then(a.cmp(&b))
    }
}

/// Expected seconds of a sweep over what an inventory lacks, with `slots` workers.
pub fn expected_seconds(graph: &Graph, inventory: &Inventory, estimates: &Estimates, slots: usize) -> f64 {
    Schedule::new(graph, inventory, estimates).eta(estimates, slots, |_| 0.0)
}

/// The dense model a stage works on; a dense stage is its own.
pub(crate) fn dense_of(graph: &Graph, position: usize) -> Option<usize> {
    match &graph.stages[position].node.inputs.dense {
        Some(key) => graph.position(key),
        None => Some(position),
    }
}

/// Rank per stage: stages of the cheapest run of each code path, cheapest path first; all others behind.
fn canaries(graph: &Graph, present: &[bool], seconds: &[f64]) -> Vec<usize> {
    let mut cheapest: HashMap<&str, (f64, usize)> = HashMap::new();
    for (index, run) in graph.runs.iter().enumerate() {
        let cost: f64 = run.stages.iter().filter(|&&stage| !present[stage]).map(|&stage| seconds[stage]).sum();
        cheapest
            .entry(&run.path)
            .and_modify(|known| {
                if cost < known.0 {
                    *known = (cost, index);
                }
            })
            .or_insert((cost, index));
    }
    let mut order: Vec<(f64, usize)> = cheapest.into_values().collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut ranks = vec![usize::MAX; graph.stages.len()];
    for (rank, (_, run)) in order.into_iter().enumerate() {
        for &stage in &graph.runs[run].stages {
            ranks[stage] = ranks[stage].min(rank);
        }
    }
    ranks
}

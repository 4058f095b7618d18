//! Plans: the distinct stages of an experiment, in an order in which they can be executed.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use crate::{Experiment, Stage, StageKey, StageNode, Task, gate::Gate};

/// The distinct stages of an experiment.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Stages, upstream before downstream; those of the gates among them.
    pub nodes: Vec<PlanNode>,
    /// Gates of the dense models.
    pub gates: Vec<Gate>,
    /// Distinct runs.
    pub runs: usize,
    index: HashMap<Digits, u32, BuildHasherDefault<KeyHasher>>,
}

/// A stage and how much hangs on it.
#[derive(Clone, Debug)]
pub struct PlanNode {
    /// The stage.
    pub node: Arc<StageNode>,
    /// Distinct runs that need it; 0 for a stage that only a gate asks for.
    pub users: u32,
}

/// How many stages of one kind there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindCount {
    /// Such as `dense`, `prune` or `evaluate`.
    pub kind: &'static str,
    /// Distinct stages.
    pub total: usize,
    /// Of these, already done.
    pub done: usize,
}

impl Plan {
    /// The plan of an experiment.
    pub fn new(experiment: &Experiment) -> Self {
        Plan::of([experiment])
    }

    /// The common plan of several experiments; what they share is there once.
    pub fn of<'a>(experiments: impl IntoIterator<Item = &'a Experiment>) -> Self {
        let mut plan = Plan::default();
        let mut runs = HashSet::<Digits, BuildHasherDefault<KeyHasher>>::default();
        for experiment in experiments {
            // Most runs of a large grid bring evaluations and little else of their own.
            let expected = experiment.counts.runs * Task::ALL.len();
            plan.nodes.reserve(expected);
            plan.index.reserve(expected);
            for cell in &experiment.cells {
                if runs.insert(digits(&cell.run_id)) {
                    for node in &cell.stages {
                        plan.add(node, 1);
                    }
                }
            }
            // A gate's dense model is in the plan already: a gate belongs to a run.
            for gate in &experiment.gates {
                for node in &gate.evaluate {
                    plan.add(node, 0);
                }
                if !plan.gates.contains(gate) {
                    plan.gates.push(gate.clone());
                }
            }
        }
        plan.runs = runs.len();
        plan
    }

    fn add(&mut self, node: &Arc<StageNode>, users: u32) {
        match self.index.entry(digits(&node.key.0)) {
            Entry::Occupied(known) => self.nodes[*known.get() as usize].users += users,
            Entry::Vacant(new) => {
                new.insert(self.nodes.len() as u32);
                self.nodes.push(PlanNode { node: Arc::clone(node), users });
            }
        }
    }

    /// The stage with a key.
    pub fn get(&self, key: &StageKey) -> Option<&PlanNode> {
        self.index.get(&digits(&key.0)).map(|&position| &self.nodes[position as usize])
    }

    /// Stages by kind, in the order of a run's chain; kinds that do not occur are left out.
    pub fn counts(&self, mut is_done: impl FnMut(&StageKey) -> bool) -> Vec<KindCount> {
        let mut counts: Vec<KindCount> = Stage::VERSIONS.map(|(kind, _)| KindCount { kind, total: 0, done: 0 }).into();
        for PlanNode { node, .. } in &self.nodes {
            if let Some(count) = counts.iter_mut().find(|count| count.kind == node.stage.kind()) {
                count.total += 1;
                count.done += usize::from(is_done(&node.key));
            }
        }
        counts.retain(|count| count.total > 0);
        counts
    }
}

/// The first 128 bits of a digest: enough to tell digests apart, and cheap to compare.
type Digits = [u32; 4];

fn digits(hexadecimal: &str) -> Digits {
    // '0'..='9' end in 0..=9, 'a'..='f' in 1..=6 with bit 6 set.
    let digit = |byte: &u8| u32::from((byte & 0xf) + 9 * (byte >> 6));
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(hexadecimal.as_bytes().chunks(8)) {
        *word = bytes.iter().fold(0, |number, byte| (number << 4) | digit(byte));
    }
    words
}

/// Digests are uniform already: folded bits are a hash.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

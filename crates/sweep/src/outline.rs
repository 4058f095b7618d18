//! What experiments ask for, without the configurations of their stages: enough to say how far they are, and small enough to be remembered.

use std::collections::HashMap;

use ressa_experiment::{Experiment, KeyMap, Stage, StageKey};
use ressa_runlog::States;
use ressa_store::Store;
use serde::{Deserialize, Serialize};

use crate::{Graph, SweepRecord, inventory::listed};

/// Distinct stages and runs of experiments. A list of lists is one list of positions and the ends of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Distinct stages, in the order of the graph.
    keys: Vec<StageKey>,
    /// Stages that count as made when all that reads them is, with their readers.
    means: Vec<(u32, Vec<u32>)>,
    /// Stages of every distinct run, in the order of the graph.
    runs: Lists,
    experiments: Vec<Part>,
}

/// Identity and label of every run of an outline, in its order.
pub type RunNames = Vec<(String, String)>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lists {
    items: Vec<u32>,
    ends: Vec<u32>,
}

impl Lists {
    fn push(&mut self, list: impl Iterator<Item = usize>) {
        self.items.extend(list.map(|item| item as u32));
        self.ends.push(self.items.len() as u32);
    }

    fn get(&self, at: usize) -> &[u32] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.items[start..self.ends[at] as usize]
    }
}

/// An experiment of an outline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    name: String,
    file: String,
    runs: Vec<u32>,
    stages: Vec<u32>,
}

/// How far an experiment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Its name.
    pub experiment: String,
    /// Its file below the experiments folder, as [`ressa_experiment::Origin`] says it.
    pub file: String,
    /// Distinct runs.
    pub runs: usize,
    /// Runs all of whose stages are made.
    pub complete: usize,
    /// Distinct stages, those of its gates among them.
    pub stages: usize,
    /// Stages that are made.
    pub made: usize,
}

impl Outline {
    /// The outline of experiments whose graph, gates included, is `graph`, and the names of its runs.
    pub fn of(experiments: &[Experiment], graph: &Graph) -> (Self, RunNames) {
        let positions = |list: &[usize]| list.iter().map(|&at| at as u32).collect::<Vec<_>>();
        let is_mean = |stage: &Stage| matches!(stage, Stage::Statistics { .. });
        let means = graph.stages.iter().enumerate().filter(|(_, stage)| is_mean(&stage.node.stage));
        let mut runs = Lists::default();
        graph.runs.iter().for_each(|run| runs.push(run.stages.iter().copied()));
        let run_at: HashMap<&str, u32> = graph.runs.iter().enumerate().map(|(at, run)| (&*run.id, at as u32)).collect();
        let part = |experiment: &Experiment| Part {
            name: experiment.name.clone(),
            file: experiment.origin.file.clone(),
            runs: experiment.runs().iter().filter_map(|cell| run_at.get(&*cell.run_id).copied()).collect(),
            stages: experiment.stages().iter().filter_map(|node| Some(graph.position(&node.key)? as u32)).collect(),
        };
        let outline = Self {
            keys: graph.stages.iter().map(|stage| stage.node.key).collect(),
            means: means.map(|(at, stage)| (at as u32, positions(&stage.dependents))).collect(),
            runs,
            experiments: experiments.iter().map(part).collect(),
        };
        let names = graph.runs.iter().map(|run| (run.id.to_string(), run.label.clone())).collect();
        (outline, names)
    }

    /// What a recorded sweep asked for, whose runs are not known.
    pub fn of_record(record: &SweepRecord) -> Self {
        let stages = (0..record.keys.len() as u32).collect();
        let part = Part { name: record.files.join(" "), file: record.files.join(" "), runs: Vec::new(), stages };
        Self { keys: record.keys.clone(), experiments: vec![part], ..Self::default() }
    }

    /// The stages of a run, by its place among the names.
    pub fn run(&self, at: usize) -> impl Iterator<Item = &StageKey> {
        self.runs.get(at).iter().map(|&stage| &self.keys[stage as usize])
    }

    /// The distinct stages.
    pub fn keys(&self) -> &[StageKey] {
        &self.keys
    }

    /// How far each experiment is where `is_made` says which stages are in the store.
    fn progress(&self, is_made: impl Fn(&StageKey) -> bool) -> Vec<Progress> {
        let mut present: Vec<bool> = self.keys.iter().map(is_made).collect();
        for (stage, readers) in self.means.iter().filter(|(_, readers)| !readers.is_empty()) {
            present[*stage as usize] |= readers.iter().all(|&reader| present[reader as usize]);
        }
        let is_made = |stage: &&u32| present[**stage as usize];
        let is_complete = |run: &&u32| self.runs.get(**run as usize).iter().all(|stage| is_made(&stage));
        let progress = |part: &Part| Progress {
            experiment: part.name.clone(),
            file: part.file.clone(),
            runs: part.runs.len(),
            complete: part.runs.iter().filter(is_complete).count(),
            stages: part.stages.len(),
            made: part.stages.iter().filter(is_made).count(),
        };
        self.experiments.iter().map(progress).collect()
    }
}

/// How far the experiments of several outlines are. Looks at names only, as [`crate::glance`] does, once for all of them; of what the log calls
/// published, at the name of its folder.
pub fn progress(outlines: &[Outline], store: &Store, states: &States) -> Vec<Vec<Progress>> {
    let many = outlines.iter().map(|outline| outline.keys.len()).max().unwrap_or(0);
    let mut index: KeyMap<usize> = KeyMap::with_capacity_and_hasher(many, Default::default());
    for key in outlines.iter().flat_map(|outline| &outline.keys) {
        let next = index.len();
        index.entry(*key).or_insert(next);
    }
    let mut made = vec![false; index.len()];
    let found = listed(store, |key| index.get(key).copied(), |key| states.is_published(key));
    found.into_iter().for_each(|stage| made[stage] = true);
    outlines.iter().map(|outline| outline.progress(|key| made[index[key]])).collect()
}

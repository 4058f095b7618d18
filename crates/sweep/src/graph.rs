//! The distinct stages of many runs, and who reads what.

use std::collections::{BTreeMap, HashMap};

use ressa_experiment::{
    Cell, Stage, StageKey, StageNode, Task,
    config::{Metric, RestoreMethod},
    stage::Inputs,
};

/// Runs, their distinct stages (upstream first) and the gates of their dense models.
#[derive(Debug, Default)]
pub struct Graph {
    /// Distinct stages; the inputs of a stage come before it.
    pub stages: Vec<GraphStage>,
    /// Distinct runs.
    pub runs: Vec<GraphRun>,
    /// Lowest acceptable dense scores: the evaluation that measures one, its name (`task` or `task/part`) and the floor.
    pub floors: Vec<(usize, String, f64)>,
    index: HashMap<StageKey, usize>,
}

/// A distinct stage.
#[derive(Debug)]
pub struct GraphStage {
    /// The stage.
    pub node: StageNode,
    /// Stages it reads.
    pub inputs: Vec<usize>,
    /// Stages that read it.
    pub dependents: Vec<usize>,
    /// Label of the first run that needs it.
    pub label: String,
    /// How many distinct runs need it; 0 for evaluations that only a gate needs.
    pub runs: u32,
    /// Whether the gate waits for it.
    pub gate: bool,
}

/// A distinct run.
#[derive(Debug)]
pub struct GraphRun {
    /// Identity.
    pub id: String,
    /// Experiment and coordinates of the first cell that is this run.
    pub label: String,
    /// Its stages.
    pub stages: Vec<usize>,
    /// What code it goes through: equal for runs that differ in numbers only.
    pub path: String,
}

impl Graph {
    /// The graph of `cells`, each with the name of its experiment. With `gated`, the evaluations that dense gates ask for are part of it.
    pub fn new<'a>(cells: impl IntoIterator<Item = (&'a str, &'a Cell)>, gated: bool) -> Self {
        let mut graph = Graph::default();
        let mut seen = HashMap::new();
        for (experiment, cell) in cells {
            if seen.insert(cell.run_id.as_str(), ()).is_some() {
                continue;
            }
            let label = run_label(experiment, cell);
            let stages = cell.stages.iter().map(|node| graph.stage(node, &label)).collect::<Vec<_>>();
            for &stage in &stages {
                graph.stages[stage].runs += 1;
            }
            if gated {
                graph.gate(cell);
            }
            graph.runs.push(GraphRun { id: cell.run_id.clone(), label, stages, path: code_path(cell) });
        }
        graph
    }

    /// Position of a stage.
    pub fn position(&self, key: &StageKey) -> Option<usize> {
        self.index.get(key).copied()
    }

    /// How many stage executions the runs would need without sharing.
    pub fn unshared(&self) -> usize {
        self.runs.iter().map(|run| run.stages.len()).sum()
    }

    /// Distinct stages per kind, in the order of a run.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        let mut kinds: Vec<(&'static str, usize)> =
            ["dense", "prune", "adapt", "merge", "evaluate"].into_iter().map(|kind| (kind, 0)).collect();
        for stage in &self.stages {
            if let Some(entry) = kinds.iter_mut().find(|(kind, _)| *kind == stage.node.stage.kind()) {
                entry.1 += 1;
            }
        }
        kinds.retain(|(_, count)| *count > 0);
        kinds
    }

    fn stage(&mut self, node: &StageNode, label: &str) -> usize {
        if let Some(&position) = self.index.get(&node.key) {
            return position;
        }
        let position = self.stages.len();
        let inputs: Vec<usize> = node.inputs.iter().filter_map(|key| self.position(key)).collect();
        for &input in &inputs {
            self.stages[input].dependents.push(position);
        }
        let (node, label) = (node.clone(), label.to_owned());
        self.index.insert(node.key.clone(), position);
        self.stages.push(GraphStage { node, inputs, dependents: Vec::new(), label, runs: 0, gate: false });
        position
    }

    fn gate(&mut self, cell: &Cell) {
        let run = &cell.run;
        let Some(dense) = cell.stages.iter().find(|node| matches!(node.stage, Stage::Dense { .. })) else { return };
        let dense = dense.key.clone();
        for (name, &floor) in &run.dense.gate {
            let task_name = name.split('/').next().unwrap_or(name);
            let Some(task) = Task::ALL.into_iter().find(|task| task.name() == task_name) else { continue };
            let node = Stage::Evaluate {
                task,
                items: if Task::QUESTIONS.contains(&task) { run.evaluate.questions } else { run.evaluate.images },
                beams: task.uses_language().then_some(run.evaluate.beams),
                data: run.data.clone(),
            }
            .node(Inputs { dense: Some(dense.clone()), ..Inputs::default() });
            let position = self.stage(&node, "dense gate");
            self.stages[position].gate = true;
            if let Some(&dense) = self.stages[position].inputs.first() {
                self.stages[dense].gate = true;
            }
            match self.floors.iter_mut().find(|(stage, known, _)| *stage == position && known == name) {
                Some(known) => known.2 = known.2.max(floor),
                None => self.floors.push((position, name.clone(), floor)),
            }
        }
    }
}

/// Experiment, coordinates and seed of a cell, for people: `restoration: wanda 2:4 ressa, seed 1`.
pub fn run_label(experiment: &str, cell: &Cell) -> String {
    let values: Vec<&str> = cell.coordinates.iter().map(|(_, value)| value.as_str()).collect();
    format!("{experiment}: {}, seed {}", if values.is_empty() { "run".to_owned() } else { values.join(" ") }, cell.seed)
}

/// A stage in a few words: `prune vision wanda 2:4`.
pub fn describe(stage: &Stage) -> String {
    match stage {
        Stage::Dense { preset: Some(preset), .. } => format!("dense {}", preset.name()),
        Stage::Dense { checkpoint, .. } => format!("dense {}", checkpoint.as_deref().unwrap_or("checkpoint")),
        Stage::Prune { tower, metric, pattern, sparsity, .. } => match sparsity {
            Some(sparsity) => format!("prune {tower} {} {:.0}%", metric.name(), sparsity * 100.0),
            None => format!("prune {tower} {} {pattern}", metric.name()),
        },
        Stage::Adapt { masked, training, .. } => {
            let masked = if *masked { "sparse" } else { "dense" };
            format!("adapt {masked}{}", if training.distill.is_some() { " distilled" } else { "" })
        }
        Stage::Merge { method } => format!("merge {}", method.name()),
        Stage::Evaluate { task, .. } => format!("evaluate {task}"),
    }
}

/// What code a run goes through. Two runs with one path can differ in numbers (sparsity, rank, seed), not in what is executed.
fn code_path(cell: &Cell) -> String {
    let run = &cell.run;
    let mut parts: BTreeMap<&str, String> = BTreeMap::new();
    let model = match (run.model.preset, &run.model.checkpoint) {
        (Some(preset), _) => preset.name().to_owned(),
        (None, Some(folder)) => folder.display().to_string(),
        (None, None) => String::new(),
    };
    parts.insert("model", model);
    parts.insert("metric", run.prune.metric.name().to_owned());
    if run.prune.metric != Metric::None {
        let unstructured = run.prune.pattern.sparsity().is_none();
        parts.insert("pattern", if unstructured { "unstructured" } else { "n:m" }.to_owned());
        parts.insert("propagate", format!("{:?}", run.prune.calibration.propagate));
    }
    parts.insert("restore", run.restore.method.name().to_owned());
    if run.restore.method != RestoreMethod::None {
        parts.insert("distill", (run.restore.distill.weight > 0.0).to_string());
    }
    parts.insert("tasks", run.evaluate.tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join("+"));
    parts.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

//! The distinct stages of many runs, and who reads what.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use ressa_experiment::{
    Cell, Experiment, Gate, RunConfig, Stage, StageKey, StageNode, Tower,
    config::{EvaluateConfig, MatrixUpdate},
    percent,
    reconstruct::ReconstructConfig,
    steps::Step,
};
use ressa_runlog::Positions;

/// Runs, their distinct stages (upstream first) and the gates of their dense models.
#[derive(Debug, Default)]
pub struct Graph {
    /// Distinct stages; the inputs of a stage come before it.
    pub stages: Vec<GraphStage>,
    /// Distinct runs.
    pub runs: Vec<GraphRun>,
    /// Lowest acceptable dense scores: the evaluation that measures one, its name (`task` or `task/part`) and the floor.
    pub floors: Vec<(usize, String, f64)>,
    positions: Positions,
    paths: HashSet<Arc<str>>,
}

/// A distinct stage.
#[derive(Debug)]
pub struct GraphStage {
    /// The stage.
    pub node: Arc<StageNode>,
    /// Stages it reads.
    pub inputs: Vec<usize>,
    /// Stages that read it.
    pub dependents: Vec<usize>,
    /// The first run that needs it; none for evaluations that only a gate needs.
    pub first_run: Option<usize>,
    /// How many distinct runs need it; 0 for evaluations that only a gate needs.
    pub runs: u32,
    /// Whether the gate waits for it.
    pub gate: bool,
    /// The dense model behind it: name of its preset, or its checkpoint folder.
    pub model: Arc<str>,
    /// Whether that model is one of the embedded world.
    pub is_embedded: bool,
}

/// A distinct run.
#[derive(Debug)]
pub struct GraphRun {
    /// Identity.
    pub id: Arc<str>,
    /// Experiment and coordinates of the first cell that is this run.
    pub label: String,
    /// Its stages.
    pub stages: Vec<usize>,
    /// What code it goes through: equal for runs that differ in numbers only.
    pub path: Arc<str>,
}

impl Graph {
    /// The graph of several experiments; with `gated`, the evaluations that their gates ask for are part of it.
    pub fn of<'a>(experiments: impl IntoIterator<Item = &'a Experiment>, gated: bool) -> Self {
        let mut graph = Graph::default();
        let mut seen = HashSet::new();
        for experiment in experiments {
            // As many as there are without sharing: what is not used is never touched.
            let stages = experiment.cells.iter().map(|cell| cell.stages.len()).sum();
            graph.stages.reserve(stages);
            graph.positions.reserve(stages, |at| &graph.stages[at].node.key);
            graph.runs.reserve(experiment.cells.len());
            graph.add_cells(&experiment.name, &experiment.cells, &mut seen);
            if gated {
                graph.add_gates(&experiment.gates);
            }
        }
        graph
    }

    /// The graph of cells that belong to one experiment.
    pub fn new(experiment: &str, cells: &[Cell], gates: &[Gate]) -> Self {
        let mut graph = Graph::default();
        graph.add_cells(experiment, cells, &mut HashSet::new());
        graph.add_gates(gates);
        graph
    }

    /// Some stages and all that is made of them, in the order of the graph.
    pub fn with_dependents(&self, stages: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut open: Vec<usize> = stages.into_iter().collect();
        let mut found: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(stage) = open.pop() {
            open.extend(self.stages[stage].dependents.iter().filter(|&&stage| found.insert(stage)));
        }
        found.into_iter().collect()
    }

    fn add_cells<'a>(&mut self, experiment: &str, cells: &'a [Cell], seen: &mut HashSet<&'a str>) {
        // Runs of one point follow each other and differ in their seed, which decides about no code.
        let mut last: Option<(&RunConfig, Arc<str>)> = None;
        for cell in cells.iter().filter(|cell| seen.insert(&*cell.run_id)) {
            let path = match last {
                Some((run, path)) if run.is_but_for_seed(&cell.run) => path,
                _ => self.path(code_path(cell)),
            };
            last = Some((&cell.run, Arc::clone(&path)));
            let label = run_label(experiment, cell);
            let stages = cell.stages.iter().map(|node| self.add_stage(node)).collect::<Vec<_>>();
            for &stage in &stages {
                self.stages[stage].runs += 1;
                self.stages[stage].first_run.get_or_insert(self.runs.len());
            }
            self.runs.push(GraphRun { id: Arc::clone(&cell.run_id), label, stages, path });
        }
    }

    /// One text for all runs of a path.
    fn path(&mut self, text: String) -> Arc<str> {
        match self.paths.get(text.as_str()) {
            Some(known) => Arc::clone(known),
            None => {
                let path: Arc<str> = text.into();
                self.paths.insert(Arc::clone(&path));
                path
            }
        }
    }

    /// A gate belongs to a run, so its dense model is in the graph already.
    fn add_gates(&mut self, gates: &[Gate]) {
        for gate in gates {
            for node in &gate.evaluate {
                let Stage::Evaluate { task, .. } = &*node.stage else { continue };
                let position = self.add_stage(node);
                self.stages[position].gate = true;
                // The dense model, and what it was made of.
                let mut above = self.stages[position].inputs.clone();
                while let Some(stage) = above.pop() {
                    self.stages[stage].gate = true;
                    above.extend(&self.stages[stage].inputs);
                }
                let of_task = |name: &&String| name.split('/').next() == Some(task.name());
                for (name, &floor) in gate.floors.iter().filter(|(name, _)| of_task(name)) {
                    match self.floors.iter_mut().find(|(stage, known, _)| *stage == position && known == name) {
                        Some(known) => known.2 = known.2.max(floor),
                        None => self.floors.push((position, name.clone(), floor)),
                    }
                }
            }
        }
    }

    /// Position of a stage.
    pub fn position(&self, key: &StageKey) -> Option<usize> {
        self.positions.get(key, |at| &self.stages[at].node.key)
    }

    /// Label of the first run that needs a stage.
    pub fn label(&self, position: usize) -> &str {
        self.stages[position].first_run.map_or("dense gate", |run| &self.runs[run].label)
    }

    /// How many stage executions the runs would need without sharing; evaluations that only a gate needs count once.
    pub fn unshared(&self) -> usize {
        let of_gates = self.stages.iter().filter(|stage| stage.runs == 0).count();
        self.runs.iter().map(|run| run.stages.len()).sum::<usize>() + of_gates
    }

    /// Distinct stages per kind, in the order of a run.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        let mut kinds: Vec<(&'static str, usize)> = Stage::VERSIONS.map(|(kind, _)| (kind, 0)).into();
        for stage in &self.stages {
            if let Some(entry) = kinds.iter_mut().find(|(kind, _)| *kind == stage.node.stage.kind()) {
                entry.1 += 1;
            }
        }
        kinds.retain(|(_, count)| *count > 0);
        kinds
    }

    fn add_stage(&mut self, node: &Arc<StageNode>) -> usize {
        if let Some(position) = self.position(&node.key) {
            return position;
        }
        let position = self.stages.len();
        let inputs: Vec<usize> = node.inputs.iter().filter_map(|key| self.position(key)).collect();
        for &input in &inputs {
            self.stages[input].dependents.push(position);
        }
        let node = Arc::clone(node);
        let (model, is_embedded) = match (&*node.stage, inputs.first()) {
            (Stage::Dense { preset: Some(preset), .. }, _) => (preset.name().into(), true),
            (Stage::Dense { checkpoint, .. }, _) => (checkpoint.as_deref().unwrap_or_default().into(), false),
            // The dense model is the first of what is read.
            (_, Some(&input)) => (Arc::clone(&self.stages[input].model), self.stages[input].is_embedded),
            (_, None) => ("".into(), false),
        };
        self.stages.push(GraphStage {
            node,
            inputs,
            dependents: Vec::new(),
            first_run: None,
            runs: 0,
            gate: false,
            model,
            is_embedded,
        });
        self.positions.insert(position, |at| &self.stages[at].node.key);
        position
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
        Stage::Rescale { spread, .. } => format!("rescale channels {spread}"),
        Stage::Sensitivity { tower, projection, measurement, .. } => {
            format!("measure {} {}", layers(*tower, *projection), measurement.name())
        }
        Stage::Statistics { tower, projection, .. } => format!("measure {} inputs", layers(*tower, *projection)),
        Stage::Prune { tower, projection, metric, pattern, sparsity, budget, .. } => {
            let layers = layers(*tower, *projection);
            match sparsity {
                Some(sparsity) => {
                    let divided =
                        budget.as_ref().map(|budget| format!(" {}", budget.rule.method.name())).unwrap_or_default();
                    format!("prune {layers} {} {}%{divided}", metric.name(), percent(*sparsity))
                }
                None => format!("prune {layers} {} {pattern}", metric.name()),
            }
        }
        Stage::Refine { tower, method, .. } => format!("refine {tower} {}", method.name()),
        Stage::Structure { tower, target, .. } => format!("structure {tower} {target}"),
        Stage::Reconstruct { tower, training, .. } => {
            format!("reconstruct {tower} {} by {}", training.train.name(), training.window)
        }
        Stage::Adapt { masked, training, .. } => {
            let update = match (training.update, *masked) {
                (MatrixUpdate::Sum, true) => "sparse",
                (MatrixUpdate::Sum, false) => "dense",
                (MatrixUpdate::Scale, _) => "scale",
                (MatrixUpdate::Spp, _) => "spp",
                (MatrixUpdate::SppLora, _) => "spp-lora",
            };
            let ways = [
                (training.distill.is_some(), " distilled"),
                (training.evolve.is_on(), " evolving"),
                (training.perturb.is_on(), " with noise"),
                (training.penalty.is_on(), " penalised"),
            ];
            let ways = ways.into_iter().filter_map(|(is_on, word)| is_on.then_some(word));
            format!("adapt {update}{}", ways.collect::<String>())
        }
        Stage::Merge { method, .. } => format!("merge {}", method.name()),
        Stage::Evaluate { task, .. } => format!("evaluate {task}"),
    }
}

/// The layers that a stage is about.
fn layers(tower: Tower, projection: bool) -> String {
    if projection { format!("{tower} and projection") } else { tower.to_string() }
}

/// What code a run goes through. Two runs with one path can differ in numbers (sparsity, rank, seed), not in what is executed.
fn code_path(cell: &Cell) -> String {
    let run = &cell.run;
    let model = match (run.model.preset, &run.model.checkpoint) {
        (Some(preset), _) => preset.name().to_owned(),
        (None, Some(folder)) => folder.display().to_string(),
        (None, None) => String::new(),
    };
    let scaled = if run.model.channel_spread > 0.0 { "rescaled" } else { "" };
    let step = |step: Step| match step {
        Step::Prune(prune) => {
            let pattern = if prune.pattern.sparsity().is_some() { "n:m" } else { "unstructured" };
            format!("{} {pattern} {:?}", prune.metric.name(), prune.calibration.propagate)
        }
        Step::Refine(refine) => refine.method.name().to_owned(),
        Step::Structure(structure) => {
            format!("structure {} {}", structure.score.name(), structure.block_score.name())
        }
        Step::Reconstruct(reconstruct) => {
            let ReconstructConfig { train, window, inputs, targets, .. } = *reconstruct;
            format!("{} {window} {inputs:?} {targets:?}", train.name())
        }
        Step::Restore(restore) => {
            let distill = &restore.distill;
            let learns = match distill.weight > 0.0 {
                false => "alone".to_owned(),
                true => {
                    let (states, other) = (distill.compares_states(), distill.teacher.is_some());
                    let attention = distill.compares_attention().then_some(distill.attention.blocks);
                    format!("{:?} {states} {attention:?} {other}", distill.divergence)
                }
            };
            let full = Tower::ALL.iter().filter(|&&tower| restore.tower(tower).full).count();
            let ways = (restore.evolve.is_on(), restore.evolve.needs_gradient(), restore.perturb.is_on());
            let penalised = restore.penalty.is_on();
            format!("{} {learns} {full} {ways:?} {penalised} {}", restore.method.name(), restore.align > 0)
        }
    };
    let steps: Vec<String> = run.sequence().into_iter().filter(Step::does_something).map(step).collect();
    let tasks: Vec<&str> = run.evaluate.tasks.iter().map(|task| task.name()).collect();
    let EvaluateConfig { retrieved, perturb, smoothing, .. } = &*run.evaluate;
    let own_head = retrieved.checkpoint.is_none();
    let asked = format!("{} {own_head} {} {:?}", retrieved.is_on(), perturb.is_on(), smoothing.method);
    format!("{model} {scaled} {} {} {asked}", steps.join(" "), tasks.join("+"))
}

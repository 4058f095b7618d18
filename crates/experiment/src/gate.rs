//! Dense gates: what an unpruned model must reach before a sweep spends anything on it. It is asked the tasks as they are: without retrieved captions,
//! perturbed questions or votes.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    RunConfig, Stage, StageNode, Task,
    canonical::canonical,
    chain::Planner,
    config::{PruneConfig, RestoreConfig},
    shared::Shared,
};

/// The gate of one dense model.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Preset or checkpoint folder.
    pub model_name: String,
    /// Evaluations of the unpruned model, one per task that a floor mentions.
    pub evaluate: Vec<Arc<StageNode>>,
    /// Lowest acceptable score by `task` or `task/part`, in points.
    pub floors: BTreeMap<String, f64>,
}

/// Adds the gate of a run as written, unless one with the same floors is there.
pub(crate) fn add(run: &RunConfig, planner: &mut Planner, gates: &mut Vec<Gate>) {
    let floors = run.dense.gate.clone();
    let mentions = |task: &Task| floors.keys().any(|name| name.split('/').next() == Some(task.name()));
    let mut dense = run.clone();
    dense.prune = PruneConfig::default().into();
    dense.restore = RestoreConfig::default().into();
    dense.steps = Shared::default();
    dense.evaluate.tasks = Task::ALL.into_iter().filter(mentions).collect();
    (dense.evaluate.retrieved, dense.evaluate.perturb, dense.evaluate.smoothing) = Default::default();
    // Numbers of items stay as the experiment has them, so that the gate's evaluations are the ones its dense runs need.
    let planned = planner.make(&RunConfig { evaluate: dense.evaluate.clone(), ..canonical(&dense) });
    let is_score = |node: &&Arc<StageNode>| matches!(*node.stage, Stage::Evaluate { .. });
    let gate = Gate {
        model_name: match (&run.model.preset, &run.model.checkpoint) {
            (Some(preset), _) => preset.name().to_owned(),
            (None, Some(folder)) => folder.display().to_string(),
            (None, None) => String::new(),
        },
        evaluate: planned.stages.iter().filter(is_score).cloned().collect(),
        floors,
    };
    if !gates.contains(&gate) {
        gates.push(gate);
    }
}

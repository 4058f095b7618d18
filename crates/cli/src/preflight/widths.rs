//! Whether groups of an N:M pattern divide what layers read, in what removals before the pruning leave of them.

use std::collections::HashSet;

use ressa_checkpoint::Removable;
use ressa_experiment::{
    Stage, Tower,
    structure::{TowerStructure, remaining},
};
use ressa_sweep::{Graph, GraphStage};

use super::{Preflight, model::Linear};

/// Layers that read the channels of a feed-forward layer, by the last word of their module paths.
const READ_CHANNELS: [&str; 4] = ["down_proj", "fc2", "wo", "dense"];
/// Layers that read what attention's heads say.
const READ_HEADS: [&str; 2] = ["o_proj", "o"];

/// What removals in front of a stage ask of a tower.
pub(super) fn removals(graph: &Graph, stage: &GraphStage, tower: Tower) -> Vec<TowerStructure> {
    let mut found = Vec::new();
    let mut open: Vec<usize> = stage.inputs.clone();
    let mut seen = HashSet::new();
    while let Some(position) = open.pop() {
        if !seen.insert(position) {
            continue;
        }
        let input = &graph.stages[position];
        match &*input.node.stage {
            Stage::Structure { tower: own, target, .. } if *own == tower => found.push(*target),
            _ => {}
        }
        open.extend(&input.inputs);
    }
    found
}

/// A pattern of groups, and where it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    pub tower: Tower,
    pub keep: u32,
    pub of: u32,
}

/// Looks at the layers of a tower.
pub(super) fn widths<'a>(
    layers: impl Iterator<Item = &'a Linear>,
    groups: Groups,
    removable: &Removable,
    removed: &[TowerStructure],
    found: &mut Preflight,
) {
    let Groups { tower, keep, of } = groups;
    for linear in layers {
        let Left { inputs, by } = left(linear, removable, removed);
        if inputs.is_multiple_of(u64::from(of)) {
            continue;
        }
        let name = &linear.name;
        let (setting, what) = match by {
            None => (
                "prune.pattern".to_owned(),
                format!(
                    "`{keep}:{of}` does not fit tower `{tower}`: `{name}` reads {inputs} inputs, which groups of {of} do not divide; use another \
                     pattern, or leave the tower with `prune.{tower}.sparsity: 0`"
                ),
            ),
            Some(what) => (
                format!("structure.{tower}.{what}"),
                format!(
                    "`{name}` is left with {inputs} inputs, which the groups of {of} of `{keep}:{of}` do not divide; say how many {what} are to \
                     remain, so that they do"
                ),
            ),
        };
        return found.problem(setting, what);
    }
}

/// What is left of a layer's inputs, and the target that decided it.
struct Left {
    inputs: u64,
    by: Option<&'static str>,
}

fn left(linear: &Linear, removable: &Removable, removed: &[TowerStructure]) -> Left {
    let inputs = linear.inputs as u64;
    let whole = Left { inputs, by: None };
    let role = linear.role.as_str();
    let in_attention = linear.name.contains("attention");
    let reads_channels = READ_CHANNELS.contains(&role) && !in_attention && removable.channels == Ok(inputs);
    let (what, count, targets): (&str, _, Vec<f64>) = if reads_channels {
        ("channels", inputs, removed.iter().map(|target| target.channels).collect())
    } else if let (true, Ok(heads)) = (READ_HEADS.contains(&role), &removable.heads) {
        ("heads", *heads, removed.iter().map(|target| target.heads).collect())
    } else {
        return whole;
    };
    let asked = targets.into_iter().filter(|target| *target > 0.0);
    match asked.filter_map(|target| remaining(target, count)).min() {
        // Heads of a layer have one width.
        Some(left) if left < count => Left { inputs: inputs / count.max(1) * left, by: Some(what) },
        _ => whole,
    }
}

//! Dense points and the axes on which they stand at every label.
//!
//! An `include` point that prunes nothing has its own name as the label of an axis that it does not mention. Where the axis only says how
//! to prune or to restore, the point is the same at each of its labels, and a claim compares it there. Where the axis changes the model,
//! the data or the evaluation, it is not.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::{Cell, RunConfig};

use super::Point;

/// Per point and axis: whether the point stands at every label.
pub(super) fn everywhere(cells: &[Cell], axes: &[String], points: &[Point]) -> Vec<Vec<bool>> {
    let included = cells.iter().filter_map(|cell| Some((cell.point.as_deref()?, cell)));
    let dense: BTreeSet<&str> = included.filter(|(_, cell)| cell.run.is_dense()).map(|(name, _)| name).collect();
    if dense.is_empty() {
        return vec![vec![false; axes.len()]; points.len()];
    }
    let of_pruning: Vec<bool> = axes.iter().map(|axis| is_of_pruning(cells, axis)).collect();
    let of_point = |point: &Point| {
        let dense = point.name.as_deref().is_some_and(|name| dense.contains(name));
        let unstated = |label: &Option<String>| label.is_none() || *label == point.name;
        point.labels.iter().zip(&of_pruning).map(|(label, pruning)| dense && *pruning && unstated(label)).collect()
    };
    points.iter().map(of_point).collect()
}

/// Whether a dense model sees nothing of an axis: the same models, data and evaluations are there at each of its labels.
fn is_of_pruning(cells: &[Cell], axis: &str) -> bool {
    let mut labels: BTreeMap<String, Vec<&RunConfig>> = BTreeMap::new();
    let sees = |a: &RunConfig, b: &RunConfig| {
        a.model == b.model && a.data.benchmarks() == b.data.benchmarks() && a.evaluate == b.evaluate
    };
    for cell in cells.iter().filter(|cell| cell.point.is_none()) {
        let Some(label) = cell.label(axis) else { continue };
        let known = labels.entry(label).or_default();
        if !known.iter().any(|run| sees(run, &cell.run)) {
            known.push(&cell.run);
        }
    }
    let mut all = labels.into_values();
    let Some(first) = all.next() else { return false };
    let subset = |a: &[&RunConfig], b: &[&RunConfig]| a.iter().all(|run| b.iter().any(|other| sees(run, other)));
    all.all(|runs| subset(&runs, &first) && subset(&first, &runs))
}

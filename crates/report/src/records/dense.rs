//! Dense points and the axes on which they stand at every label.
//!
//! An `include` point that prunes nothing has its own name as the label of an axis that it does not mention. Where the axis only says how
//! to prune or to restore, the point is the same at each of its labels, and a claim compares it there. Where the axis changes the model,
//! the data or the evaluation, it is not.

use std::collections::BTreeSet;

use ressa_experiment::{Cell, RunConfig};

use super::Point;

/// Per point and axis: whether the point stands at every label.
pub(super) fn everywhere(cells: &[Cell], axes: &[String], points: &[Point]) -> Vec<Vec<bool>> {
    let of_pruning: Vec<bool> = axes.iter().map(|axis| is_of_pruning(cells, axis)).collect();
    let included = cells.iter().filter(|cell| cell.run.is_dense());
    let dense: BTreeSet<&str> = included.filter_map(|cell| cell.point.as_deref()).collect();
    let of_point = |point: &Point| {
        let dense = point.name.as_deref().is_some_and(|name| dense.contains(name));
        let unstated = |label: &Option<String>| label.is_none() || *label == point.name;
        point.labels.iter().zip(&of_pruning).map(|(label, pruning)| dense && *pruning && unstated(label)).collect()
    };
    points.iter().map(of_point).collect()
}

/// Whether a dense model sees nothing of an axis: the same models, data and evaluations are there at each of its labels.
fn is_of_pruning(cells: &[Cell], axis: &str) -> bool {
    let mut labels: Vec<(String, Vec<&RunConfig>)> = Vec::new();
    let sees = |a: &RunConfig, b: &RunConfig| {
        a.model == b.model && a.data.benchmarks() == b.data.benchmarks() && a.evaluate == b.evaluate
    };
    for cell in cells.iter().filter(|cell| cell.point.is_none()) {
        let Some(label) = cell.label(axis) else { continue };
        let at = labels.iter().position(|(known, _)| *known == label).unwrap_or_else(|| {
            labels.push((label, Vec::new()));
            labels.len() - 1
        });
        if !labels[at].1.iter().any(|run| sees(run, &cell.run)) {
            labels[at].1.push(&cell.run);
        }
    }
    let Some(((_, first), others)) = labels.split_first() else { return false };
    let subset = |a: &[&RunConfig], b: &[&RunConfig]| a.iter().all(|run| b.iter().any(|other| sees(run, other)));
    others.iter().all(|(_, runs)| subset(runs, first) && subset(first, runs))
}

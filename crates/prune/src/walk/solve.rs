//! The layers of one block, those with the same input together.

use std::{collections::BTreeSet, rc::Rc};

use ressa_models::LayerId;
use tch::Tensor;

use super::{Outcome, Place, layers_of};
use crate::{
    error::PruneError,
    select::Selection,
    solver::{LayerProblem, LayerSolver},
    statistics::{BlockStatistics, ColumnStatistics},
};

/// Says what is asked of a layer of a shape `[out, in]`.
pub type Asking<'a> = dyn Fn(&LayerId, (i64, i64)) -> Result<Selection, PruneError> + 'a;

/// Prunes the layers of a block that was brought. `asked` says what is asked of a layer of a shape; with `carries` the block runs with what was
/// found from now on. Statistics are dropped one after the other, where nobody else holds them.
///
/// # Errors
/// As [`LayerSolver::solve`]; what was found cannot be kept.
pub fn solve<B: Outcome>(
    blocks: &mut B,
    place: Place,
    statistics: BlockStatistics,
    solver: &dyn LayerSolver,
    asked: &Asking<'_>,
    carries: bool,
) -> Result<(), B::Error> {
    let layers: Vec<(LayerId, (i64, i64))> =
        layers_of(blocks.model(), place).map(|(id, linear)| (id.clone(), linear.shape())).collect();
    let groups: Vec<(Vec<String>, Option<Rc<ColumnStatistics>>)> = match solver.needs().is_empty() {
        true => layers.iter().map(|(id, _)| (vec![id.name.clone()], None)).collect(),
        false => statistics.into_groups().into_iter().map(|(names, seen)| (names, Some(seen))).collect(),
    };
    let mut left: BTreeSet<&str> = layers.iter().map(|(id, _)| id.name.as_str()).collect();
    for (names, statistics) in groups {
        let mut members: Vec<(&LayerId, Tensor, Selection)> = Vec::new();
        for name in &names {
            let Some((id, shape)) = layers.iter().find(|(id, _)| id.name == *name) else { continue };
            members.push((id, blocks.weight(id)?, asked(id, *shape)?));
            left.remove(id.name.as_str());
        }
        let problems: Vec<LayerProblem<'_>> = members
            .iter()
            .map(|(id, weight, selection)| LayerProblem { name: &id.name, weight, selection: *selection })
            .collect();
        let solutions = solver.solve(&problems, statistics.as_deref())?;
        drop(problems);
        drop(statistics);
        for ((id, weight, selection), solution) in members.into_iter().zip(solutions) {
            drop(weight);
            blocks.take(id, selection, solution, carries)?;
        }
    }
    match left.first() {
        None => Ok(()),
        Some(name) => Err(PruneError::NoStatistics { layer: (*name).to_owned() }.into()),
    }
}

//! The layers of one block, those with the same input together.

use std::{collections::BTreeSet, rc::Rc};

use ressa_models::LayerId;
use tch::Tensor;

use super::{Outcome, Place, layers_of};
use crate::{
    error::PruneError,
    select::Selection,
    solver::{LayerGroup, LayerProblem, LayerSolver},
    statistics::{BlockStatistics, ColumnStatistics, RankDeficit},
};

/// A layer of a group.
struct Member<'a> {
    id: &'a LayerId,
    weight: Tensor,
    gone: Option<Tensor>,
    selection: Selection,
}

impl Member<'_> {
    fn problem(&self) -> LayerProblem<'_> {
        let Self { id, weight, gone, selection } = self;
        LayerProblem { name: &id.name, weight, selection: *selection, gone: gone.as_ref() }
    }
}

/// Says what is asked of a layer of a shape `[out, in]`.
pub type Asking<'a> = dyn Fn(&LayerId, (i64, i64)) -> Result<Selection, PruneError> + 'a;

/// Prunes the layers of a block that was brought. `asked` says what is asked of a layer of a shape; with `carries` the block runs with what was
/// found from now on. Statistics are dropped one after the other, where nobody else holds them and the method does not take all groups together.
/// Answers with how many Gram matrices were inverted of how many tokens.
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
) -> Result<RankDeficit, B::Error> {
    let layers: Vec<(LayerId, (i64, i64))> =
        layers_of(blocks.model(), place).map(|(id, linear)| (id.clone(), linear.shape())).collect();
    let groups: Vec<(Vec<String>, Option<Rc<ColumnStatistics>>)> = match solver.needs().is_empty() {
        true => layers.iter().map(|(id, _)| (vec![id.name.clone()], None)).collect(),
        false => statistics.into_groups().into_iter().map(|(names, seen)| (names, Some(seen))).collect(),
    };
    let mut left: BTreeSet<&str> = layers.iter().map(|(id, _)| id.name.as_str()).collect();
    let most = if solver.joins(blocks.device()) { groups.len().max(1) } else { 1 };
    let mut groups = groups.into_iter();
    let mut rank = RankDeficit::default();
    loop {
        let mut part = Vec::new();
        for (names, statistics) in groups.by_ref().take(most) {
            let mut members: Vec<Member<'_>> = Vec::new();
            for name in &names {
                let Some((id, shape)) = layers.iter().find(|(id, _)| id.name == *name) else { continue };
                let (weight, gone, selection) = (blocks.weight(id)?, blocks.gone(id)?, asked(id, *shape)?);
                members.push(Member { id, weight, gone, selection });
                left.remove(id.name.as_str());
                if let Some(statistics) = statistics.as_deref().filter(|_| solver.needs().gram) {
                    rank.add(&id.name, statistics);
                }
            }
            part.push((members, statistics));
        }
        if part.is_empty() {
            break;
        }
        let problems: Vec<Vec<LayerProblem<'_>>> =
            part.iter().map(|(members, _)| members.iter().map(Member::problem).collect()).collect();
        let of_groups: Vec<LayerGroup<'_>> = problems
            .iter()
            .zip(&part)
            .map(|(layers, (_, statistics))| LayerGroup { layers, statistics: statistics.as_deref() })
            .collect();
        let solutions = solver.solve_groups(&of_groups)?;
        drop(of_groups);
        drop(problems);
        for ((members, statistics), solutions) in part.into_iter().zip(solutions) {
            drop(statistics);
            for (Member { id, weight, gone, selection }, solution) in members.into_iter().zip(solutions) {
                drop((weight, gone));
                blocks.take(id, selection, solution, carries)?;
            }
        }
    }
    match left.first() {
        None => Ok(rank),
        Some(name) => Err(PruneError::NoStatistics { layer: (*name).to_owned() }.into()),
    }
}

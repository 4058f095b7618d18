//! The layers of one block, those with the same input together.

use std::{collections::BTreeSet, rc::Rc};

use ressa_models::{LayerCut, LayerId};
use tch::{Kind, Tensor};

use super::{Outcome, Place, layers_of};
use crate::{
    error::PruneError,
    select::Selection,
    solver::{LayerGroup, LayerProblem, LayerSolution, LayerSolver},
    statistics::{BlockStatistics, ColumnStatistics, RankDeficit},
};

/// A layer of a group, as far as structured removal has left it.
struct Member<'a> {
    id: &'a LayerId,
    weight: Tensor,
    gone: Option<Tensor>,
    selection: Selection,
    cut: Option<LayerCut>,
    /// Outputs and inputs of the whole layer.
    shape: (i64, i64),
}

impl Member<'_> {
    fn problem(&self) -> LayerProblem<'_> {
        let Self { id, weight, gone, selection, .. } = self;
        LayerProblem { name: &id.name, weight, selection: *selection, gone: gone.as_ref() }
    }
}

/// What was found for the rest of a layer, as what is found for all of it.
fn spread(cut: Option<&LayerCut>, shape: (i64, i64), solution: LayerSolution) -> LayerSolution {
    let Some(cut) = cut else { return solution };
    let LayerSolution { keep, weight, .. } = solution;
    let weight = weight.map(|weight| cut.spread(&weight, shape));
    LayerSolution { keep: cut.spread(&keep, shape), importance: None, weight }
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
        let (mut part, mut is_over) = (Vec::new(), true);
        for (names, statistics) in groups.by_ref().take(most) {
            is_over = false;
            let mut members: Vec<Member<'_>> = Vec::new();
            for name in &names {
                let Some((id, shape)) = layers.iter().find(|(id, _)| id.name == *name) else { continue };
                left.remove(id.name.as_str());
                let (weight, gone, cut) = (blocks.weight(id)?, blocks.gone(id)?, blocks.cut(id).cloned());
                let (rows, columns) = cut.as_ref().map_or(*shape, |cut| cut.size(*shape));
                if rows * columns == 0 {
                    let keep = Tensor::zeros([shape.0, shape.1], (Kind::Bool, weight.device()));
                    let nothing = LayerSolution { keep, importance: None, weight: None };
                    blocks.take(id, asked(id, *shape)?, nothing, carries)?;
                    continue;
                }
                let rest = |whole: Tensor| cut.as_ref().map_or_else(|| whole.shallow_clone(), |cut| cut.of(&whole));
                let (weight, gone, selection) = (rest(weight), gone.map(rest), asked(id, (rows, columns))?);
                members.push(Member { id, weight, gone, selection, cut, shape: *shape });
            }
            let columns = members.first().and_then(|member| member.cut.as_ref()?.columns.as_ref());
            let statistics = match (statistics, columns) {
                (Some(statistics), Some(columns)) => Some(Rc::new(statistics.columns_alone(columns))),
                (statistics, _) => statistics,
            };
            if let Some(statistics) = statistics.as_deref().filter(|_| solver.needs().gram) {
                members.iter().for_each(|member| rank.add(&member.id.name, statistics));
            }
            if !members.is_empty() {
                part.push((members, statistics));
            }
        }
        if is_over {
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
            for (Member { id, weight, gone, selection, cut, shape }, solution) in members.into_iter().zip(solutions) {
                drop((weight, gone));
                blocks.take(id, selection, spread(cut.as_ref(), shape, solution), carries)?;
            }
        }
    }
    match left.first() {
        None => Ok(rank),
        Some(name) => Err(PruneError::NoStatistics { layer: (*name).to_owned() }.into()),
    }
}

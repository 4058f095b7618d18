//! Methods on one layer's problem: from weights and statistics to masks and, where a method has them, new weights.
//!
//! A [`PruningMetric`] ranks and [`Selection`] decides; [`Ranked`] is that as a solver. A method that does more is a [`LayerSolver`] of its own.
//! Layers that read the same input are solved together, so that what depends on the input alone is done once.

mod dsnot;
mod factor;
mod sparsegpt;

pub use dsnot::{Dsnot, SignRule};
pub use sparsegpt::{Damping, SparseGpt, Threshold};

use tch::{Kind, Tensor};

use crate::{
    error::PruneError,
    metric::PruningMetric,
    rows::is_finite,
    select::Selection,
    statistics::{ColumnStatistics, Needs},
};

/// A layer and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct LayerProblem<'a> {
    /// Module path.
    pub name: &'a str,
    /// `[out, in]`.
    pub weight: &'a Tensor,
    /// What has to go.
    pub selection: Selection,
}

/// What a method found for a layer.
#[derive(Debug)]
pub struct LayerSolution {
    /// Keep mask, bool `[out, in]`.
    pub keep: Tensor,
    /// What ranked the weights when they were chosen, f32 `[out, in]`.
    pub importance: Tensor,
    /// The weights to go on with, zero where they are pruned, in the type of the old ones; `None` where the kept ones are unchanged.
    pub weight: Option<Tensor>,
}

/// A method that prunes linear layers.
pub trait LayerSolver {
    /// What [`LayerSolver::solve`] has to be given.
    fn needs(&self) -> Needs;

    /// Prunes layers that all read the input that `statistics` describes, in their order. `statistics` is present where
    /// [`LayerSolver::needs`] asks for it.
    ///
    /// # Errors
    /// A layer holds or sees values that are not finite, has another width than the statistics, or one that its N:M groups do not divide.
    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError>;
}

/// A metric as a solver: the least important weights go, the others stay as they are.
pub struct Ranked(pub Box<dyn PruningMetric>);

impl LayerSolver for Ranked {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError> {
        check(layers, self.needs(), statistics)?;
        let rank = |layer: &LayerProblem<'_>| {
            let importance = importance(self.0.as_ref(), layer, statistics)?;
            Ok(LayerSolution { keep: layer.selection.keep(&importance), importance, weight: None })
        };
        layers.iter().map(rank).collect()
    }
}

/// A metric's importance, f32 and finite.
pub(crate) fn importance(
    metric: &dyn PruningMetric,
    layer: &LayerProblem<'_>,
    statistics: Option<&ColumnStatistics>,
) -> Result<Tensor, PruneError> {
    let importance = metric.importance(layer.name, layer.weight, statistics).to_kind(Kind::Float);
    if is_finite(&importance) {
        return Ok(importance);
    }
    Err(PruneError::NotFiniteWeight { layer: layer.name.to_owned() })
}

/// Refuses what no method could prune.
fn check(
    layers: &[LayerProblem<'_>],
    needs: Needs,
    statistics: Option<&ColumnStatistics>,
) -> Result<(), PruneError> {
    for layer in layers {
        let name = || layer.name.to_owned();
        let size = layer.weight.size();
        let &[_, width] = size.as_slice() else {
            return Err(PruneError::NotAMatrix { layer: name(), shape: size });
        };
        if let Selection::NOfM { keep, of } = layer.selection
            && (of < 1 || !(0..=of).contains(&keep) || width % of != 0)
        {
            return Err(PruneError::Width { layer: name(), width, of });
        }
        if needs.is_empty() {
            continue;
        }
        let Some(statistics) = statistics.filter(|s| s.collects().covers(needs) && s.samples() > 0) else {
            return Err(PruneError::NoStatistics { layer: name() });
        };
        if statistics.columns() != width {
            return Err(PruneError::StatisticsWidth { layer: name(), width, found: statistics.columns() });
        }
        if !statistics.is_finite() {
            return Err(PruneError::NotFiniteInput { layer: name() });
        }
    }
    Ok(())
}

//! Methods on one layer's problem: from weights and statistics to masks and, where a method has them, new weights.
//!
//! A [`PruningMetric`] ranks and [`Selection`] decides; [`Ranked`] is that as a solver. A method that does more is a [`LayerSolver`] of its own.
//! Layers that read the same input are solved together, so that what depends on the input alone is done once.

mod alps;
mod dsnot;
pub(crate) mod factor;
mod sparsegpt;
mod threshold;

pub use alps::Alps;
pub use dsnot::{Dsnot, Initial, SignRule};
pub use sparsegpt::{Damping, Order, SparseGpt, Threshold};
pub use threshold::ByThreshold;

use ressa_runtime::is_finite;
use tch::{Device, Kind, Tensor};

use crate::{
    error::PruneError,
    metric::PruningMetric,
    rows::{new_mask, threads, with_floats},
    select::{Selection, host},
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
    /// What is gone already, bool `[out, in]`, zero in the weight: it goes first and never comes back.
    pub gone: Option<&'a Tensor>,
}

impl LayerProblem<'_> {
    /// An importance, f32 `[out, in]`, in which what is gone already comes before everything else.
    pub(crate) fn ranked(&self, importance: Tensor) -> Tensor {
        match self.gone {
            Some(gone) => importance.masked_fill(&gone.to_device(importance.device()), FIRST),
            None => importance,
        }
    }

    /// A keep mask without what is gone already: a group may have lost more than is asked of it.
    pub(crate) fn without_gone(&self, keep: Tensor) -> Tensor {
        match self.gone {
            Some(gone) => keep.logical_and(&gone.to_device(keep.device()).logical_not()),
            None => keep,
        }
    }
}

/// The importance of what is gone already, below every other and finite.
pub(crate) const FIRST: f64 = f32::MIN as f64;

/// Layers that read one input, and what was seen of it.
#[derive(Clone, Copy, Debug)]
pub struct LayerGroup<'a> {
    /// In the order in which they run.
    pub layers: &'a [LayerProblem<'a>],
    /// Present where [`LayerSolver::needs`] asks for them.
    pub statistics: Option<&'a ColumnStatistics>,
}

/// What a method found for a layer.
#[derive(Debug)]
pub struct LayerSolution {
    /// Keep mask, bool `[out, in]`.
    pub keep: Tensor,
    /// What ranked the weights when they were chosen, f32 `[out, in]`; `None` where it never was in one piece, see
    /// [`LayerSolver::importance`].
    pub importance: Option<Tensor>,
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

    /// Whether [`LayerSolver::solve_groups`] is faster on a device than one group after the other, which takes less memory.
    fn joins(&self, _device: Device) -> bool {
        false
    }

    /// Prunes the layers of several inputs; a list of solutions for each group, the same as those of [`LayerSolver::solve`] within rounding.
    ///
    /// # Errors
    /// As [`LayerSolver::solve`].
    fn solve_groups(&self, groups: &[LayerGroup<'_>]) -> Result<Vec<Vec<LayerSolution>>, PruneError> {
        groups.iter().map(|group| self.solve(group.layers, group.statistics)).collect()
    }

    /// What ranks the weights of a layer, f32 `[out, in]`, for methods that know it before they choose.
    ///
    /// # Errors
    /// It is not finite.
    fn importance(
        &self,
        _layer: &LayerProblem<'_>,
        _statistics: Option<&ColumnStatistics>,
    ) -> Result<Option<Tensor>, PruneError> {
        Ok(None)
    }
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
            if let Some(keep) = keep_by_rows(self.0.as_ref(), layer, statistics)? {
                return Ok(LayerSolution { keep, importance: None, weight: None });
            }
            let importance = importance(self.0.as_ref(), layer, statistics)?;
            let keep = layer.without_gone(layer.selection.keep(&importance));
            Ok(LayerSolution { keep, importance: Some(importance), weight: None })
        };
        layers.iter().map(rank).collect()
    }

    fn importance(
        &self,
        layer: &LayerProblem<'_>,
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Option<Tensor>, PruneError> {
        importance(self.0.as_ref(), layer, statistics).map(Some)
    }
}

/// Weights that are ranked at once where rows are for themselves: they stay in the processor's cache, and no page has to be cleared for them.
const PART: usize = 1 << 18;

/// The mask of a layer, some rows at a time. `None` where importances or groups cross rows, or the weight is on another device.
fn keep_by_rows(
    metric: &dyn PruningMetric,
    layer: &LayerProblem<'_>,
    statistics: Option<&ColumnStatistics>,
) -> Result<Option<Tensor>, PruneError> {
    let &[rows, columns] = layer.weight.size().as_slice() else { return Ok(None) };
    let (members, count) = layer.selection.groups(rows, columns);
    let within_rows = !matches!(layer.selection, Selection::Total { .. }) && members > 0 && columns % members == 0;
    if !(metric.by_row() && within_rows) || layer.weight.device() != Device::Cpu {
        return Ok(None);
    }
    let part = (PART / columns.max(1) as usize * threads(layer.weight.numel())).max(1);
    let mut done = Ok(());
    let keep = new_mask(&[rows, columns], |keep| {
        let mut parts = (0..rows).step_by(part).zip(keep.chunks_mut((part * columns as usize).max(1)));
        done = parts.try_for_each(|(from, keep)| {
            let rows = keep.len() as i64 / columns;
            let weight = layer.weight.narrow(0, from, rows);
            let gone = layer.gone.map(|gone| gone.narrow(0, from, rows));
            let part = LayerProblem { weight: &weight, gone: gone.as_ref(), ..*layer };
            let importance = importance(metric, &part, statistics)?;
            with_floats(&importance, |values| host::prune(values, members as usize, count as usize, keep));
            Ok(())
        });
    });
    done.map(|()| Some(layer.without_gone(keep)))
}

/// A metric's importance, f32 and finite.
pub(crate) fn importance(
    metric: &dyn PruningMetric,
    layer: &LayerProblem<'_>,
    statistics: Option<&ColumnStatistics>,
) -> Result<Tensor, PruneError> {
    let importance = layer.ranked(metric.importance(layer.name, layer.weight, statistics).to_kind(Kind::Float));
    if is_finite(&importance) {
        return Ok(importance);
    }
    Err(PruneError::NotFiniteWeight { layer: layer.name.to_owned() })
}

/// Refuses what no method could prune.
fn check(layers: &[LayerProblem<'_>], needs: Needs, statistics: Option<&ColumnStatistics>) -> Result<(), PruneError> {
    layers.iter().try_for_each(|layer| {
        let group = match layer.selection {
            Selection::NOfM { keep, of } => Some((keep, of)),
            _ => None,
        };
        check_layer(layer.name, &layer.weight.size(), group, needs, statistics)
    })
}

/// Refuses a layer by the shape of its weight, its N:M groups (kept, of) and its statistics.
///
/// # Errors
/// A weight that is no matrix; a width that the groups do not divide; statistics that are missing, of another width or not finite.
pub(crate) fn check_layer(
    layer: &str,
    shape: &[i64],
    group: Option<(i64, i64)>,
    needs: Needs,
    statistics: Option<&ColumnStatistics>,
) -> Result<(), PruneError> {
    let name = || layer.to_owned();
    let &[_, width] = shape else {
        return Err(PruneError::NotAMatrix { layer: name(), shape: shape.to_vec() });
    };
    if let Some((keep, of)) = group
        && (of < 1 || !(0..=of).contains(&keep) || width % of != 0)
    {
        return Err(PruneError::Width { layer: name(), width, of });
    }
    if needs.is_empty() {
        return Ok(());
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
    Ok(())
}

//! Ranking as published code does it: by a threshold instead of by a number.

use super::{LayerProblem, LayerSolution, LayerSolver, check, importance};
use crate::{
    error::PruneError,
    metric::PruningMetric,
    select::keep_by_threshold,
    statistics::{ColumnStatistics, Needs},
};

/// A metric whose weights go by the value of the first one that should stay; see [`keep_by_threshold`].
pub struct ByThreshold {
    /// What ranks the weights.
    pub metric: Box<dyn PruningMetric>,
    /// Whether weights at the threshold go too.
    pub inclusive: bool,
}

impl LayerSolver for ByThreshold {
    fn needs(&self) -> Needs {
        self.metric.needs()
    }

    fn solve(
        &self,
        layers: &[LayerProblem<'_>],
        statistics: Option<&ColumnStatistics>,
    ) -> Result<Vec<LayerSolution>, PruneError> {
        check(layers, self.needs(), statistics)?;
        let rank = |layer: &LayerProblem<'_>| {
            let importance = importance(self.metric.as_ref(), layer, statistics)?;
            let keep = layer.without_gone(keep_by_threshold(&importance, layer.selection, self.inclusive));
            Ok(LayerSolution { keep, importance: Some(importance), weight: None })
        };
        layers.iter().map(rank).collect()
    }
}

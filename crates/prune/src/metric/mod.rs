//! Pruning metrics: what gives a weight its importance. One file per metric.

mod magnitude;
mod random;
mod wanda;

pub use magnitude::Magnitude;
pub use random::Random;
pub use wanda::Wanda;

use ressa_experiment::config::Metric;
use tch::Tensor;

use crate::statistics::ColumnStatistics;

/// What a metric must be shown beside the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: no calibration is run.
    Weight,
    /// The norms of the columns of the inputs.
    ColumnNorms,
}

/// A rule that ranks the weights of a linear layer.
pub trait PruningMetric {
    /// What [`PruningMetric::importance`] has to be given.
    fn needs(&self) -> Needs;

    /// Importance `[out, in]`, f32, of `weight` `[out, in]`. `layer` is the module path; only metrics that draw look at it.
    ///
    /// `statistics` is present where [`PruningMetric::needs`] asks for it. Whoever compares importances takes the smallest to go first.
    fn importance(&self, layer: &str, weight: &Tensor, statistics: Option<&ColumnStatistics>) -> Tensor;
}

/// The metric an experiment names; `None` for [`Metric::None`].
pub fn metric(name: Metric, seed: u64) -> Option<Box<dyn PruningMetric>> {
    match name {
        Metric::None => None,
        Metric::Random => Some(Box::new(Random { seed })),
        Metric::Magnitude => Some(Box::new(Magnitude)),
        Metric::Wanda => Some(Box::new(Wanda)),
    }
}

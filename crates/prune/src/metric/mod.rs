//! Pruning metrics: what gives a weight its importance. One file per metric.

mod magnitude;
mod random;
mod ria;
mod wanda;

pub use magnitude::Magnitude;
pub use random::Random;
pub use ria::Ria;
pub use wanda::Wanda;

use ressa_experiment::config::Metric;
use tch::Tensor;

pub use crate::statistics::Needs;
use crate::statistics::ColumnStatistics;

/// A rule that ranks the weights of a linear layer.
pub trait PruningMetric: Send + Sync {
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

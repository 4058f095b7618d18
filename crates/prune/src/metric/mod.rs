//! Pruning metrics: what gives a weight its importance. One file per metric.

mod magnitude;
mod random;
mod ria;
mod wanda;

pub use magnitude::{Magnitude, SignedMagnitude};
pub use random::Random;
pub use ria::Ria;
pub use wanda::Wanda;

use ressa_experiment::config::Metric;
use tch::Tensor;

use crate::statistics::ColumnStatistics;
pub use crate::statistics::Needs;

/// A rule that ranks the weights of a linear layer.
pub trait PruningMetric: Send + Sync {
    /// What [`PruningMetric::importance`] has to be given.
    fn needs(&self) -> Needs;

    /// Whether some rows of a weight have the importances that they have in the whole, so that a large one can be ranked in parts.
    fn by_row(&self) -> bool {
        false
    }

    /// Importance `[out, in]`, f32, of `weight` `[out, in]`. `layer` is the module path; only metrics that draw look at it.
    ///
    /// `statistics` is present where [`PruningMetric::needs`] asks for it. Whoever compares importances takes the smallest to go first.
    fn importance(&self, layer: &str, weight: &Tensor, statistics: Option<&ColumnStatistics>) -> Tensor;
}

/// The metric an experiment names; `None` for [`Metric::None`] and for methods that do not rank all weights at once, see
/// [`crate::solver`].
pub fn metric(name: Metric, seed: u64) -> Option<Box<dyn PruningMetric>> {
    match name {
        Metric::None | Metric::SparseGpt | Metric::Alps | Metric::Dsnot => None,
        Metric::Random => Some(Box::new(Random { seed })),
        Metric::Magnitude => Some(Box::new(Magnitude)),
        Metric::Wanda => Some(Box::new(Wanda)),
        Metric::Ria => Some(Box::new(Ria::default())),
    }
}

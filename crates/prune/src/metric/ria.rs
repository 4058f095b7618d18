//! RIA: a weight matters by its share of its row and of its column, and a little by its input.
//!
//! - Formula: `(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) * norm_j^a`, `a = 1/2`, norms as in Wanda
//! - Needs: the weight and column norms of the layer's inputs
//! - Paper: Zhang et al., "Plug-and-play: an efficient post-training pruning method for large language models", ICLR 2024, equation 3
//! - Reference: `prune_ria` in the authors' repository, biomedical-cybernetics/Relative-importance-and-activation-pruning
//! - Differs: a row or column without any weight gives 0 instead of NaN; samples run alone as in Wanda. The reference's threshold for a
//!   matrix takes one weight more than asked; [`crate::select`] takes exactly what is asked. Its channel permutation is not part of the metric.

use tch::{Kind, Tensor};

use super::{Needs, PruningMetric};
use crate::statistics::ColumnStatistics;

/// Relative importance times a power of the norm of the input column.
#[derive(Clone, Copy, Debug)]
pub struct Ria {
    /// Exponent of the norm.
    pub power: f64,
}

impl Default for Ria {
    fn default() -> Self {
        Self { power: 0.5 }
    }
}

impl PruningMetric for Ria {
    fn needs(&self) -> Needs {
        Needs::NORMS
    }

    fn importance(&self, _layer: &str, weight: &Tensor, statistics: Option<&ColumnStatistics>) -> Tensor {
        let magnitude = weight.to_kind(Kind::Float).abs();
        let share = |along: i64| {
            let total = magnitude.sum_dim_intlist([along].as_slice(), true, Kind::Float);
            &magnitude / total.clamp_min(f64::from(f32::MIN_POSITIVE))
        };
        let mut importance = share(0);
        let _ = importance.g_add_(&share(1));
        match statistics.and_then(ColumnStatistics::norm) {
            Some(norm) => importance.g_mul_(&norm.pow_tensor_scalar(self.power).unsqueeze(0)),
            None => importance,
        }
    }
}

//! Wanda: a weight matters as much as what it multiplies.
//!
//! - Formula: `|w_ij| * sqrt(sum over samples and tokens of x_j^2 / samples)`
//! - Needs: column norms of the layer's inputs
//! - Paper: Sun et al., "A simple and effective pruning approach for large language models", arXiv 2306.11695, equation 1
//! - Reference: `lavis/compression/pruners/wanda_pruner.py`
//! - Differs: samples run alone, so no padding enters the norms; squares are summed in f32 within a sample and in f64 across samples,
//!   in sample order. The comparison group is a setting; the reference takes rows in the language model and the matrix in the image encoder.

use tch::{Kind, Tensor};

use super::{Needs, PruningMetric};
use crate::statistics::ColumnStatistics;

/// Absolute value of the weight times the norm of its input column.
#[derive(Clone, Copy, Debug)]
pub struct Wanda;

impl PruningMetric for Wanda {
    fn needs(&self) -> Needs {
        Needs::NORMS
    }

    fn by_row(&self) -> bool {
        true
    }

    fn importance(&self, _layer: &str, weight: &Tensor, statistics: Option<&ColumnStatistics>) -> Tensor {
        let mut importance = weight.to_kind(Kind::Float).abs();
        match statistics.and_then(ColumnStatistics::norm) {
            Some(norm) => importance.g_mul_(&norm.unsqueeze(0)),
            None => importance,
        }
    }
}

//! Magnitude: large weights matter.
//!
//! - Formula: `|w|`
//! - Needs: the weight
//! - Paper: Han et al., "Learning both weights and connections", arXiv 1506.02626
//! - Reference: `lavis/compression/pruners/global_pruner.py` and Wanda's `prune_magnitude`
//! - Differs: the reference of the VLM study forgets the absolute value and so prunes every negative weight first; this does so only as
//!   [`SignedMagnitude`].

use tch::{Kind, Tensor};

use super::{Needs, PruningMetric};
use crate::statistics::ColumnStatistics;

/// Absolute value of the weight.
#[derive(Clone, Copy, Debug)]
pub struct Magnitude;

impl PruningMetric for Magnitude {
    fn needs(&self) -> Needs {
        Needs::WEIGHT
    }

    fn by_row(&self) -> bool {
        true
    }

    fn importance(&self, _layer: &str, weight: &Tensor, _statistics: Option<&ColumnStatistics>) -> Tensor {
        weight.to_kind(Kind::Float).abs()
    }
}

/// The weight itself: the most negative ones go first, as in the VLM study's code.
#[derive(Clone, Copy, Debug)]
pub struct SignedMagnitude;

impl PruningMetric for SignedMagnitude {
    fn needs(&self) -> Needs {
        Needs::WEIGHT
    }

    fn by_row(&self) -> bool {
        true
    }

    fn importance(&self, _layer: &str, weight: &Tensor, _statistics: Option<&ColumnStatistics>) -> Tensor {
        weight.to_kind(Kind::Float)
    }
}

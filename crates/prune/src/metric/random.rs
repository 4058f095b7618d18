//! Random: the baseline that knows nothing.
//!
//! - Formula: independent uniform values
//! - Needs: the shape of the weight
//! - Paper: the control of "Rethinking Pruning for Vision-Language Models", arXiv 2404.02424, table of methods
//! - Reference: `lavis/compression/pruners/global_pruner.py`
//! - Differs: values come from a stream of their own per layer, seeded by (seed, module path). They depend neither on the order of
//!   the layers nor on what else draws random numbers, and they are the same on every device.

use rand::Rng;
use ressa_runtime::stream;
use tch::Tensor;

use super::{Needs, PruningMetric};
use crate::statistics::ColumnStatistics;

/// Uniform importance.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// Replicate seed.
    pub seed: u64,
}

impl PruningMetric for Random {
    fn needs(&self) -> Needs {
        Needs::WEIGHT
    }

    fn importance(&self, layer: &str, weight: &Tensor, _statistics: Option<&ColumnStatistics>) -> Tensor {
        let mut stream = stream(self.seed, layer);
        // 24 random bits are exactly representable in f32; the few ties are settled by position like any others.
        let values: Vec<f32> = (0..weight.numel()).map(|_| (stream.next_u32() >> 8) as f32).collect();
        Tensor::from_slice(&values).view_as(weight).to_device(weight.device())
    }
}

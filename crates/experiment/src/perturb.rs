//! Settings of noise on weights while a restoration trains.

use serde::{Deserialize, Serialize};

/// LoRA-GGPO (Chang et al., arXiv 2502.14538v1; later versions of that number are another method): the step computes with `W' + e`, where each weight of row `i`
/// of an effective matrix `W'` gets noise of the variance `sigma^2 / n (|W'_i|^2 + beta |g_i|^2)`. `n` is the number of weights of the row that are not
/// pruned, `g_i` the row's gradient in the step before. What is merged has no noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NoiseConfig {
    /// Length of a row's noise as a share of the row's own; 0 adds none.
    pub sigma: f64,
    /// Weight of the squared gradient beside the squared row.
    pub beta: f64,
}

impl Default for NoiseConfig {
    fn default() -> Self {
        Self { sigma: 0.0, beta: 0.01 }
    }
}

impl NoiseConfig {
    /// Whether there is noise.
    pub fn is_on(&self) -> bool {
        self.sigma > 0.0
    }
}

//! One layer given as tensors: which method prunes it, and with which settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Pattern,
    config::{BlockThreshold, Group, MethodConfig, Metric, Rounding, SparseGptConfig},
};

/// Settings of `Job::PruneLayer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruneLayer {
    /// Safetensors file with `weight` `[out, in]` and, for methods that look at activations, `inputs` `[samples, tokens, in]`.
    pub input: PathBuf,
    /// What is asked.
    pub options: LayerOptions,
    /// Safetensors file to write.
    pub output: PathBuf,
}

/// Settings of `Job::SparseLora`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparseLora {
    /// Safetensors file with `weight, keep_mask, a, b, x, upstream` and perhaps `bias`.
    pub input: PathBuf,
    /// Factor on the product of the adapter's matrices.
    pub scaling: f64,
    /// Safetensors file to write.
    pub output: PathBuf,
}

/// What to do with a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerOptions {
    /// What chooses the weights.
    pub metric: Metric,
    /// Fraction removed; this or a pattern.
    pub sparsity: Option<f64>,
    /// An N:M pattern; this or a sparsity.
    pub pattern: Option<Pattern>,
    /// Weights that compete; `null` means what the method's authors do.
    pub group: Option<Group>,
    /// Settings of the method.
    pub method: MethodConfig,
}

impl LayerOptions {
    /// A method as published: numbers of weights are truncated; SparseGPT takes its inclusive threshold over all rows of a block.
    pub fn published(metric: Metric) -> Self {
        let sparsegpt = SparseGptConfig { threshold: BlockThreshold::Inclusive, ..SparseGptConfig::default() };
        let method = MethodConfig { rounding: Rounding::Truncated, sparsegpt, ..MethodConfig::default() };
        Self { metric, sparsity: None, pattern: None, group: None, method }
    }
}

//! One layer given as tensors: which method prunes it, and with which settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Pattern, config::Group};

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

/// A pruning method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerMethod {
    /// Absolute values; the matrix competes.
    Magnitude,
    /// Absolute values times input norms; rows compete.
    Wanda,
    /// Relative importance and activations; the matrix competes.
    Ria,
    /// Optimal brain surgeon in blocks of 128 columns, with one inclusive threshold for a block over all rows.
    Sparsegpt,
    /// Swaps that start from Wanda's mask by rows.
    Dsnot,
}

/// What to do with a layer. `null` means what the method's authors do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerOptions {
    /// The method.
    pub method: LayerMethod,
    /// Fraction removed; this or a pattern.
    pub sparsity: Option<f64>,
    /// An N:M pattern; this or a sparsity.
    pub pattern: Option<Pattern>,
    /// Weights that compete. SparseGPT then takes the exact number, from the block or from each of its rows.
    pub group: Option<Group>,
    /// When SparseGPT dampens the Gram matrix: `true` only when it cannot be factorised, otherwise always.
    pub damp_on_failure: bool,
    /// DSnoT's most swaps in a row; 50.
    pub max_cycle: Option<usize>,
    /// DSnoT's error that is left alone; 0.1.
    pub threshold: Option<f64>,
    /// Whether a swap that turns the sign of the error ends a row also without an N:M pattern.
    pub same_sign: bool,
    /// Whether `members * sparsity` is rounded down as decimal arithmetic has it, not as binary does.
    pub decimal: bool,
}

impl LayerOptions {
    /// A method as published.
    pub fn published(method: LayerMethod) -> Self {
        Self {
            method,
            sparsity: None,
            pattern: None,
            group: None,
            damp_on_failure: false,
            max_cycle: None,
            threshold: None,
            same_sign: false,
            decimal: false,
        }
    }
}

//! Settings of the step `refine`: what happens to what was pruned before anything trains.

use serde::{Deserialize, Serialize};

/// Refinement of pruned layers, each by the outputs that it had before it was pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RefineConfig {
    /// The method; `none` leaves layers as they were pruned.
    pub method: RefineMethod,
    /// Maximum number of swaps in a row, or of steps of the solver; `null` means the method's usual number.
    pub iterations: Option<u32>,
}

/// A refinement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefineMethod {
    /// No refinement.
    None,
    /// Pruned weights for kept ones, as long as a layer's output comes closer (Zimmer et al., arXiv 2512.10922): another mask of the same size.
    #[default]
    #[serde(rename = "sparseswaps")]
    SparseSwaps,
    /// The kept weights that lose least of a layer's output: other weights under the same mask.
    LeastSquares,
}

impl RefineMethod {
    /// All of them, by the names used in YAML and tables.
    pub const NAMES: [&str; 3] = ["none", "sparseswaps", "least-squares"];

    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        match self {
            RefineMethod::None => Self::NAMES[0],
            RefineMethod::SparseSwaps => Self::NAMES[1],
            RefineMethod::LeastSquares => Self::NAMES[2],
        }
    }

    /// Its usual number of iterations.
    fn usual(self) -> u32 {
        match self {
            RefineMethod::None => 0,
            RefineMethod::SparseSwaps => 100,
            RefineMethod::LeastSquares => 10,
        }
    }
}

impl RefineConfig {
    /// Maximum number of iterations.
    pub fn iterations(&self) -> u32 {
        self.iterations.unwrap_or_else(|| self.method.usual())
    }

    /// The same with what it cannot see made neutral.
    #[must_use]
    pub fn canonical(&self) -> Self {
        match self.method {
            RefineMethod::None => Self { method: RefineMethod::None, iterations: None },
            method => Self { method, iterations: self.iterations.filter(|&own| own != method.usual()) },
        }
    }
}

//! Settings of a penalty on groups of weights while a restoration trains.

use serde::{Deserialize, Serialize};

use crate::method::is_default;

/// Group l1/l2: `weight` times the sum over groups of `sqrt(n) |w|`, with the length `|w|` of all `n` weights of a group, by a proximal step behind each step of the
/// optimiser: a group shrinks by `weight sqrt(n)` times the learning rate, and is zero where it was no longer than that.
///
/// Paper: "Less is More: Towards Parsimonious Multi-Task Models Using Structured Sparsity", arXiv 2308.12114.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PenaltyConfig {
    /// Weight; 0 leaves all groups alone.
    pub weight: f64,
    /// What a group is.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: PenalisedGroups,
}

/// Groups of weights that become zero together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PenalisedGroups {
    /// Heads and channels as the step `structure` removes them: rows of what makes them and columns of what reads them.
    #[default]
    Structure,
    /// Rows of every matrix.
    Rows,
}

impl PenaltyConfig {
    /// Whether groups are penalised.
    pub fn is_on(&self) -> bool {
        self.weight > 0.0
    }
}

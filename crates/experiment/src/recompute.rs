//! What a training computes again instead of keeping it.

use serde::{Deserialize, Serialize};

/// What is computed again in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Nothing while memory suffices, then blocks.
    #[default]
    Auto,
    /// Nothing: every activation is kept.
    None,
    /// Every block: only what enters each block is kept.
    Blocks,
}

impl Recompute {
    /// Whether nobody has chosen.
    pub fn is_auto(&self) -> bool {
        *self == Recompute::Auto
    }
}

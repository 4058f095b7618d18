//! Towers: the groups of layers that have a sparsity budget of their own.

use serde::{Deserialize, Serialize};

/// A group of layers with its own budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tower {
    /// The image encoder (`vision_model`).
    Vision,
    /// The interface between the two models (`qformer`).
    Qformer,
    /// The language model (`language_model`).
    Language,
}

impl Tower {
    /// Every tower, in the order in which they are pruned.
    pub const ALL: [Tower; 3] = [Tower::Vision, Tower::Qformer, Tower::Language];

    /// The name used in YAML, tables and file names.
    pub fn name(self) -> &'static str {
        match self {
            Tower::Vision => "vision",
            Tower::Qformer => "qformer",
            Tower::Language => "language",
        }
    }
}

impl std::fmt::Display for Tower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! Distillation of attention distributions: which are compared.

use serde::{Deserialize, Serialize};

use crate::Tower;

/// Maximum number of probabilities that are formed at once, of the teacher and of the student each.
pub const PROBABILITIES_AT_ONCE: i64 = 1 << 24;

/// Distillation of attention: `KL(teacher || student)` of what each query looks at, as in the last block of MiniLM (Wang et al., arXiv 2002.10957);
/// the mean over queries that are no padding, heads, rows and compared attentions, summed over towers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AttentionConfig {
    /// Weight within the distillation loss; 0 compares no attention.
    pub weight: f64,
    /// Blocks of a tower that are compared.
    pub blocks: AttentionBlocks,
    /// Towers that are compared.
    pub towers: Vec<Tower>,
}

impl AttentionConfig {
    /// The same with what it cannot see made neutral.
    pub(super) fn canonical(&self) -> Self {
        if self.weight <= 0.0 {
            return Self::default();
        }
        let mut towers = self.towers.clone();
        towers.sort_unstable();
        towers.dedup();
        Self { towers, ..self.clone() }
    }
}

impl Default for AttentionConfig {
    fn default() -> Self {
        Self { weight: 0.0, blocks: AttentionBlocks::Last, towers: vec![Tower::Language] }
    }
}

/// Blocks whose attention is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionBlocks {
    /// The last one of every stack: of T5's encoder and of its decoder.
    Last,
    /// Every block; of a teacher with more or fewer, those at the same share of the depth.
    All,
}

//! Distillation: what a restoration learns from a teacher beside the task.

mod attention;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::attention::{AttentionBlocks, AttentionConfig, PROBABILITIES_AT_ONCE};
use crate::method::is_default;

/// Knowledge distillation: `(1 - weight) task + weight (logits divergence(teacher, student) + hidden.weight states(teacher, student) +
/// attention.weight attention(teacher, student))`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DistillConfig {
    /// Share of the distillation loss, 0 to 1.
    pub weight: f64,
    /// Softmax temperature.
    pub temperature: f64,
    /// How the divergence is reduced over positions.
    pub reduction: Reduction,
    /// Compare the teacher's so many most probable tokens, and all others as one; null compares every token. What a teacher said is then
    /// small enough to be kept for every training that sees the same batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// How far two distributions are from each other.
    #[serde(skip_serializing_if = "is_default")]
    pub divergence: Divergence,
    /// Whether the divergence is multiplied by the squared temperature, so that its gradient does not shrink with it (Hinton et al.,
    /// arXiv 1503.02531).
    #[serde(skip_serializing_if = "is_default")]
    pub square: bool,
    /// Weight of the divergence of next-token distributions within the distillation loss.
    #[serde(skip_serializing_if = "is_one")]
    pub logits: f64,
    /// Hidden states within the distillation loss.
    #[serde(skip_serializing_if = "is_default")]
    pub hidden: HiddenConfig,
    /// Attention within the distillation loss.
    #[serde(skip_serializing_if = "is_default")]
    pub attention: AttentionConfig,
    /// Folder of another model with the same tokenizer and images; null is the dense model, which shares the student's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<PathBuf>,
}

impl DistillConfig {
    /// Whether hidden states are compared.
    pub fn compares_states(&self) -> bool {
        self.weight > 0.0 && self.hidden.weight > 0.0
    }

    /// Whether attention is compared.
    pub fn compares_attention(&self) -> bool {
        self.weight > 0.0 && self.attention.weight > 0.0
    }

    /// Whether something is compared that is inside of the networks; what a teacher says of that is not kept.
    pub fn looks_inside(&self) -> bool {
        self.compares_states() || self.compares_attention()
    }

    /// The same with what it cannot see made neutral.
    pub(crate) fn make_canonical(&mut self) {
        if self.weight <= 0.0 {
            *self = Self::default();
            return;
        }
        if self.hidden.weight <= 0.0 {
            self.hidden = HiddenConfig::default();
        }
        self.hidden.layers.sort_unstable();
        self.hidden.layers.dedup();
        self.attention = self.attention.canonical();
        if self.logits <= 0.0 {
            let Self { weight, logits, hidden, attention, teacher, .. } = self.clone();
            *self = Self { weight, logits, hidden, attention, teacher, ..Self::default() };
        }
        if self.temperature == 1.0 {
            self.square = false;
        }
    }
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            weight: 0.0,
            temperature: 1.0,
            reduction: Reduction::Mean,
            top_k: None,
            divergence: Divergence::Forward,
            square: false,
            logits: 1.0,
            hidden: HiddenConfig::default(),
            attention: AttentionConfig::default(),
            teacher: None,
        }
    }
}

fn is_one(number: &f64) -> bool {
    *number == 1.0
}

/// Reduction of the divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Mean over answer tokens; padding excluded.
    Mean,
    /// Sum over positions, mean over rows (the reference; grows with the answer's length).
    Sum,
}

/// A divergence of the student's distribution `q` from the teacher's `p`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// `KL(p || q)`: the student covers what the teacher says.
    #[default]
    Forward,
    /// `KL(q || p)`: the student says nothing that the teacher does not (Gu et al., arXiv 2306.08543).
    Reverse,
    /// `(KL(p || q) + KL(q || p)) / 2`, half of Jeffreys' divergence.
    Symmetric,
    /// `(KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2`; at most ln 2.
    JensenShannon,
}

/// Distillation of the language model's hidden states: per row, squared distance over the teacher's squared length, tokens weighted by what they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HiddenConfig {
    /// Weight within the distillation loss; 0 compares no states.
    pub weight: f64,
    /// Blocks whose outputs are compared, counted from 0 (T5: encoder, then decoder); empty means the last.
    pub layers: Vec<u32>,
    /// Weight of image tokens.
    pub image: f64,
    /// Weight of the instruction's tokens.
    pub text: f64,
    /// Weight of the answer's tokens.
    pub answer: f64,
}

impl Default for HiddenConfig {
    fn default() -> Self {
        Self { weight: 0.0, layers: Vec::new(), image: 1.0, text: 1.0, answer: 1.0 }
    }
}

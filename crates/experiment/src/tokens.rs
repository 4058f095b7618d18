//! What each kind of token counts in calibration statistics.

use serde::{Deserialize, Serialize};

use crate::method::is_default;

/// Weights of the tokens that a layer sees. Visual tokens are image patches in the image encoder and where the connector looks at them, and the
/// image's tokens in the language model; query tokens are the connector's; the rest is text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TokenConfig {
    /// Which tokens count at all.
    #[serde(skip_serializing_if = "is_default")]
    pub select: TokenSelection,
    /// Weight of a text token.
    pub text: f64,
    /// Weight of a visual token.
    pub visual: f64,
    /// Weight of a query token.
    pub query: f64,
    /// ATV: factor on how much a block changes its visual tokens, which decides how many of them count.
    pub alpha: f64,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self { select: TokenSelection::All, text: 1.0, visual: 1.0, query: 1.0, alpha: 1.0 }
    }
}

impl TokenConfig {
    /// Whether every token counts the same.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The same rule with what it does not look at made neutral.
    pub fn canonical(&self) -> Self {
        match self.select {
            TokenSelection::All => Self { alpha: Self::default().alpha, ..*self },
            TokenSelection::Atv => *self,
        }
    }
}

/// Which tokens count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenSelection {
    /// All of them.
    #[default]
    All,
    /// All text and query tokens, and the visual ones that a block changes most (ATV-Pruning, arXiv 2603.16001).
    Atv,
}

//! What the tokens are that a block's layers read.

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// A word of an instruction or an answer.
    Text,
    /// A patch of an image, or what the connector tells the language model of one.
    Visual,
    /// A learned query of the connector.
    Query,
}

impl TokenKind {
    /// `counts[i].1` tokens of `counts[i].0`, one part after the other.
    pub(crate) fn parts(counts: &[(TokenKind, i64)]) -> Vec<TokenKind> {
        counts.iter().flat_map(|&(kind, count)| std::iter::repeat_n(kind, count.max(0) as usize)).collect()
    }
}

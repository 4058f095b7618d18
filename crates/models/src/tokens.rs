//! What the tokens are that a block's layers read.

/// Where a token comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenKind {
    /// A word of an instruction or an answer.
    Text,
    /// A patch of an image, or what the interface tells the language model of one.
    Visual,
    /// A learned query of the interface.
    Query,
}

impl TokenKind {
    /// `counts[i].1` tokens of `counts[i].0`, one part after the other.
    pub(crate) fn parts(counts: &[(TokenKind, i64)]) -> Vec<TokenKind> {
        counts.iter().flat_map(|&(kind, count)| std::iter::repeat_n(kind, count.max(0) as usize)).collect()
    }
}

/// What a layer of a Q-Former block reads of its block's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Queries,
    Texts,
    Images,
}

impl Share {
    /// From the module path below the block, which tells the parts of a block apart.
    pub fn of(path: &str) -> Self {
        if path.starts_with("crossattention.attention.key") || path.starts_with("crossattention.attention.value") {
            Share::Images
        } else if ["crossattention.", "intermediate_query.", "output_query."].iter().any(|part| path.starts_with(part))
        {
            Share::Queries
        } else if path.starts_with("attention.") {
            Share::All
        } else {
            Share::Texts
        }
    }
}

//! Sparsity patterns: unstructured, or N:M written as in the field (`2:4` keeps 2 of every 4).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which positions of a weight matrix may be removed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Any position; the share removed is the tower's `sparsity`.
    Unstructured,
    /// `keep` of every `of` consecutive inputs of a row survive.
    NOfM {
        /// Weights kept in each group.
        keep: u32,
        /// Group size.
        of: u32,
    },
}

impl Pattern {
    /// The sparsity a pattern implies; `None` where the tower's budget decides.
    pub fn sparsity(self) -> Option<f64> {
        match self {
            Pattern::Unstructured => None,
            Pattern::NOfM { keep, of } => Some(1.0 - f64::from(keep) / f64::from(of)),
        }
    }
}

/// Why a text is not a pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a pattern: use `unstructured` or `keep:of` such as `\"2:4\"`, with 1 <= keep < of <= 64")]
pub struct PatternError(pub String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "unstructured" {
            return Ok(Pattern::Unstructured);
        }
        let wrong = || PatternError(text.to_owned());
        let (keep, of) = text.split_once(':').ok_or_else(wrong)?;
        let keep: u32 = keep.parse().map_err(|_| wrong())?;
        let of: u32 = of.parse().map_err(|_| wrong())?;
        if keep < 1 || keep >= of || of > 64 {
            return Err(wrong());
        }
        Ok(Pattern::NOfM { keep, of })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Unstructured => f.write_str("unstructured"),
            Pattern::NOfM { keep, of } => write!(f, "{keep}:{of}"),
        }
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

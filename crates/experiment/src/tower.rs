//! Towers: the groups of layers that have a sparsity budget of their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

/// A group of layers with its own budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tower {
    /// The image encoder.
    Vision,
    /// What stands between image encoder and language model: a Q-Former, or the linears of LLaVA and Qwen-VL.
    #[serde(alias = "qformer")]
    Connector,
    /// The language model.
    Language,
}

impl Tower {
    /// Every tower, in the order in which they are pruned.
    pub const ALL: [Tower; 3] = [Tower::Vision, Tower::Connector, Tower::Language];

    /// What earlier versions called [`Tower::Connector`].
    pub(crate) const EARLIER_CONNECTOR: &str = "qformer";

    /// The name used in YAML, tables and file names.
    pub fn name(self) -> &'static str {
        match self {
            Tower::Vision => "vision",
            Tower::Connector => "connector",
            Tower::Language => "language",
        }
    }

    /// The name in what is hashed into keys, which stays what it was: results of earlier versions keep their keys.
    fn key_name(self) -> &'static str {
        match self {
            Tower::Connector => Self::EARLIER_CONNECTOR,
            other => other.name(),
        }
    }

    /// The names that are read: [`Tower::name`] first.
    pub fn spellings(self) -> impl Iterator<Item = &'static str> {
        let (name, key_name) = (self.name(), self.key_name());
        std::iter::once(name).chain((key_name != name).then_some(key_name))
    }

    /// The tower of a name, in any spelling that is read.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tower| tower.spellings().any(|name| name == text))
    }
}

/// Writes a tower as keys have it. For fields of stage configurations; reading takes either name.
pub(crate) fn in_keys<S: Serializer>(tower: &Tower, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tower.key_name())
}

/// As [`in_keys`], for what is told of several towers.
pub(crate) fn map_in_keys<S: Serializer>(map: &BTreeMap<Tower, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(tower, value)| (tower.key_name(), value)))
}

impl std::fmt::Display for Tower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! Settings of the step `structure`: what is removed as a whole, attention heads, channels of feed-forward layers, blocks and learned queries.

use serde::{Deserialize, Serialize};

use crate::{
    Tower,
    config::{CalibrationConfig, Propagate},
    method::is_default,
    percent,
    tokens::TokenConfig,
};

/// Structured removal: targets of each tower, and what ranks its groups.
///
/// Every layer of a tower loses the same number of heads and channels, so that a model's configuration can say its new sizes and the budget is met exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StructureConfig {
    /// What ranks heads, channels and queries.
    pub score: GroupScore,
    /// What ranks blocks.
    pub block_score: BlockScore,
    /// Targets of the image encoder.
    pub vision: TowerStructure,
    /// Targets of the connector.
    pub connector: TowerStructure,
    /// Targets of the language model.
    pub language: TowerStructure,
    /// Samples behind the scores.
    pub calibration: GroupCalibration,
}

/// Samples behind scores of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GroupCalibration {
    /// Distinct training images.
    pub images: u32,
    /// Questions drawn for each image.
    pub questions: u32,
    /// Captions drawn for each image.
    pub captions: u32,
}

/// As many as prunings have.
impl Default for GroupCalibration {
    fn default() -> Self {
        let CalibrationConfig { images, questions, captions, .. } = CalibrationConfig::default();
        Self { images, questions, captions }
    }
}

impl GroupCalibration {
    /// The same for those who draw them. Towers are measured as a step finds them, on every token.
    pub fn config(self) -> CalibrationConfig {
        let Self { images, questions, captions } = self;
        let (propagate, tokens) = (Propagate::Dense, TokenConfig::default());
        CalibrationConfig { images, questions, captions, propagate, tokens }
    }
}

/// What a tower loses: below 1 a fraction removed, from 1 on the number that remains; 0 leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TowerStructure {
    /// Attention heads of each layer; where query heads share keys and values, those with their query heads.
    pub heads: f64,
    /// Channels of each feed-forward layer.
    pub channels: f64,
    /// Blocks of each stack.
    pub blocks: f64,
    /// Learned queries; only a connector has some.
    #[serde(skip_serializing_if = "is_default")]
    pub queries: f64,
}

impl TowerStructure {
    /// Whether it removes anything.
    pub fn is_none(&self) -> bool {
        !self.cuts_weights() && !self.cuts_queries()
    }

    /// Whether it removes parts of layers.
    pub fn cuts_layers(&self) -> bool {
        self.heads > 0.0 || self.channels > 0.0
    }

    /// Whether it removes weights of layers, or whole ones. Queries are tokens: no layer is smaller without them.
    pub fn cuts_weights(&self) -> bool {
        self.cuts_layers() || self.blocks > 0.0
    }

    /// Whether it removes learned queries.
    pub fn cuts_queries(&self) -> bool {
        self.queries > 0.0
    }

    /// Whether it removes something that groups are ranked for.
    fn ranks_groups(&self) -> bool {
        self.cuts_layers() || self.cuts_queries()
    }
}

/// What it removes in a few words: `heads 25%, channels to 96`.
impl std::fmt::Display for TowerStructure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets =
            [("heads", self.heads), ("channels", self.channels), ("blocks", self.blocks), ("queries", self.queries)];
        let word = |(what, target): (&str, f64)| match target {
            target if target <= 0.0 => None,
            target if target < 1.0 => Some(format!("{what} {}%", percent(target))),
            target => Some(format!("{what} to {target}")),
        };
        f.write_str(&targets.into_iter().filter_map(word).collect::<Vec<_>>().join(", "))
    }
}

/// How many of `count` groups a target leaves; `None` where it asks for more than there are.
pub fn remaining(target: f64, count: u64) -> Option<u64> {
    if target >= 1.0 {
        return Some(target as u64).filter(|left| *left <= count);
    }
    // As decimal arithmetic gives it: 70 % of 90 are 63.
    let removed = (count as f64 * target + 1e-6).floor() as u64;
    Some(count - removed.min(count.saturating_sub(1)))
}

/// What ranks heads, channels and queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupScore {
    /// The norm of a group's weights, or of a query.
    Magnitude,
    /// Weights that read a group's outputs, times the norms of these outputs (Wanda by group, as in An et al., arXiv 2312.11983).
    Wanda,
    /// How much the loss changes to first order without the group's weights, element by element (Ma et al., arXiv 2305.11627).
    #[default]
    Gradient,
    /// Uniform random.
    Random,
}

impl GroupScore {
    /// All of them, by the names used in YAML and tables.
    pub const NAMES: [&str; 4] = ["magnitude", "wanda", "gradient", "random"];

    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether it looks at calibration samples.
    pub fn calibrates(self) -> bool {
        matches!(self, GroupScore::Wanda | GroupScore::Gradient)
    }
}

/// What ranks blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockScore {
    /// 1 minus the mean cosine of what enters and leaves (Men et al., arXiv 2403.03853).
    #[default]
    Influence,
    /// The norm of a block's weights.
    Magnitude,
    /// How much the loss changes to first order without the block's weights, element by element.
    Gradient,
    /// Uniform random.
    Random,
}

impl BlockScore {
    /// All of them, by the names used in YAML and tables.
    pub const NAMES: [&str; 4] = ["influence", "magnitude", "gradient", "random"];

    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether it looks at calibration samples.
    pub fn calibrates(self) -> bool {
        matches!(self, BlockScore::Influence | BlockScore::Gradient)
    }
}

impl StructureConfig {
    /// The targets of one tower.
    pub fn tower(&self, tower: Tower) -> &TowerStructure {
        match tower {
            Tower::Vision => &self.vision,
            Tower::Connector => &self.connector,
            Tower::Language => &self.language,
        }
    }

    /// Towers that lose something.
    pub fn towers(&self) -> impl Iterator<Item = Tower> {
        Tower::ALL.into_iter().filter(|&tower| !self.tower(tower).is_none())
    }

    /// What ranks heads, channels and queries of a tower; `None` where it keeps all.
    pub fn score_of(&self, tower: Tower) -> Option<GroupScore> {
        self.tower(tower).ranks_groups().then_some(self.score)
    }

    /// What ranks blocks of a tower; `None` where it keeps all.
    pub fn block_score_of(&self, tower: Tower) -> Option<BlockScore> {
        (self.tower(tower).blocks > 0.0).then_some(self.block_score)
    }

    /// Whether scores of a tower look at calibration samples.
    pub fn calibrates_tower(&self, tower: Tower) -> bool {
        self.score_of(tower).is_some_and(GroupScore::calibrates)
            || self.block_score_of(tower).is_some_and(BlockScore::calibrates)
    }

    /// Whether scores look at calibration samples.
    pub fn calibrates(&self) -> bool {
        self.towers().any(|tower| self.calibrates_tower(tower))
    }

    /// Whether scores of a tower are gradients of the loss, which depends on every tower.
    pub fn differentiates(&self, tower: Tower) -> bool {
        self.score_of(tower) == Some(GroupScore::Gradient) || self.block_score_of(tower) == Some(BlockScore::Gradient)
    }

    /// Whether scores of a tower are drawn.
    pub fn draws_tower(&self, tower: Tower) -> bool {
        self.score_of(tower) == Some(GroupScore::Random) || self.block_score_of(tower) == Some(BlockScore::Random)
    }

    /// Whether scores are drawn.
    pub fn draws(&self) -> bool {
        self.towers().any(|tower| self.draws_tower(tower))
    }

    /// The same with what it cannot see made neutral.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let neutral = Self::default();
        let mut own = self.clone();
        if !own.towers().any(|tower| own.tower(tower).ranks_groups()) {
            own.score = neutral.score;
        }
        if !own.towers().any(|tower| own.tower(tower).blocks > 0.0) {
            own.block_score = neutral.block_score;
        }
        if !own.calibrates() {
            own.calibration = neutral.calibration;
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_fractions_removed_or_numbers_that_remain() {
        assert_eq!([0.0, 0.25, 0.5, 0.7].map(|target| remaining(target, 6)), [6, 5, 3, 2].map(Some));
        assert_eq!(remaining(0.7, 90), Some(27));
        assert_eq!(remaining(0.99, 4), Some(1));
        assert_eq!(remaining(0.9999999, 1), Some(1), "one group stays");
        assert_eq!([1.0, 6.0, 7.0].map(|target| remaining(target, 6)), [Some(1), Some(6), None]);
    }

    #[test]
    fn what_is_not_read_is_neutral() {
        let blocks = |score| StructureConfig {
            score,
            language: TowerStructure { blocks: 0.5, ..TowerStructure::default() },
            ..StructureConfig::default()
        };
        assert_eq!(blocks(GroupScore::Random).canonical(), blocks(GroupScore::Wanda).canonical());
        let channels = |images| StructureConfig {
            score: GroupScore::Magnitude,
            vision: TowerStructure { channels: 0.5, ..TowerStructure::default() },
            calibration: GroupCalibration { images, ..GroupCalibration::default() },
            ..StructureConfig::default()
        };
        assert_eq!(channels(3).canonical(), channels(4).canonical());
        assert!(blocks(GroupScore::Random).calibrates() && !channels(3).calibrates());
    }

    #[test]
    fn queries_are_ranked_and_said_only_where_some_go() {
        let of = |queries| TowerStructure { queries, ..TowerStructure::default() };
        assert!(of(0.0).is_none() && !of(0.25).is_none() && !of(0.25).cuts_weights());
        assert_eq!((of(0.25).to_string().as_str(), of(24.0).to_string().as_str()), ("queries 25%", "queries to 24"));
        // Keys of stages that remove none are those that they were.
        let written = |target: TowerStructure| serde_json::to_value(target).expect("plain data");
        assert!(written(of(0.0)).get("queries").is_none() && written(of(24.0)).get("queries").is_some());
        let config = StructureConfig { score: GroupScore::Wanda, connector: of(0.5), ..StructureConfig::default() };
        assert_eq!(config.score_of(Tower::Connector), Some(GroupScore::Wanda));
        assert!(config.canonical() == config && config.calibrates());
    }
}

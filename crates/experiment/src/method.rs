//! Settings of pruning methods beside metric, pattern and budget. Every choice of the published code that differs from the sound default is one.

use serde::{Deserialize, Serialize};

use crate::{
    Pattern,
    config::{Group, Metric},
};

/// How a method prunes. In a run every part has its own section; a stage sees only what its method reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MethodConfig {
    /// How many weights a sparsity is.
    #[serde(skip_serializing_if = "is_default")]
    pub rounding: Rounding,
    /// What goes at the threshold.
    #[serde(skip_serializing_if = "is_default")]
    pub threshold: Threshold,
    /// Magnitude.
    #[serde(skip_serializing_if = "is_default")]
    pub magnitude: MagnitudeConfig,
    /// SparseGPT.
    #[serde(skip_serializing_if = "is_default")]
    pub sparsegpt: SparseGptConfig,
    /// DSnoT.
    #[serde(skip_serializing_if = "is_default")]
    pub dsnot: DsnotConfig,
    /// ALPS.
    #[serde(skip_serializing_if = "is_default")]
    pub alps: AlpsConfig,
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl MethodConfig {
    /// Whether nothing is set.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// The same method with what it does not read made neutral. `groups` are the comparison groups of the pruned towers.
    pub fn canonical(&self, metric: Metric, pattern: Pattern, groups: &[Option<Group>]) -> Self {
        let mut own = Self::default();
        match metric {
            Metric::Magnitude => own.magnitude = self.magnitude,
            Metric::SparseGpt => own.sparsegpt = self.sparsegpt.canonical(pattern),
            Metric::Dsnot => own.dsnot = self.dsnot.canonical(pattern),
            Metric::Alps => own.alps = self.alps,
            Metric::None | Metric::Random | Metric::Wanda | Metric::Ria => {}
        }
        if metric == Metric::None || pattern != Pattern::Unstructured {
            return own;
        }
        // A tower that competes as a whole is counted as a whole, exactly.
        let counts = groups.iter().any(|group| *group != Some(Group::Tower));
        if counts && metric.ranks() {
            own.threshold = self.threshold;
        }
        // SparseGPT's published threshold is an index that is always truncated.
        if counts && own.sparsegpt.threshold != BlockThreshold::Inclusive {
            own.rounding = self.rounding;
        }
        own
    }
}

/// What a method must be shown of a layer's inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StatisticsNeeds {
    /// Norms of the columns.
    pub norms: bool,
    /// Sums of the columns and variances within samples.
    pub moments: bool,
    /// Inner products of the columns with each other.
    pub gram: bool,
}

impl StatisticsNeeds {
    /// What a metric needs; of `method`, only what it starts from counts.
    pub fn of(metric: Metric, method: &MethodConfig) -> Self {
        match metric {
            Metric::None | Metric::Random | Metric::Magnitude => Self::default(),
            Metric::Wanda | Metric::Ria => Self { norms: true, ..Self::default() },
            Metric::SparseGpt | Metric::Alps => Self { gram: true, ..Self::default() },
            Metric::Dsnot => {
                Self { norms: true, moments: true, gram: method.dsnot.initial == InitialMetric::SparseGpt }
            }
        }
    }

    /// What both need.
    pub fn and(self, other: Self) -> Self {
        Self { norms: self.norms || other.norms, moments: self.moments || other.moments, gram: self.gram || other.gram }
    }
}

/// How a product of a group's size and a sparsity becomes a number of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Down, as decimal arithmetic would give the product: 70 % of 90 are 63.
    #[default]
    Decimal,
    /// Down from the binary product, which may fall just short: 62. What published code does.
    Truncated,
    /// To the nearest, halves to the even one. What the reference's DSnoT does.
    Nearest,
}

/// What happens to weights whose importance is that of the first one that should stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// The number is met exactly; ties go by position.
    #[default]
    Exact,
    /// Only what lies below the threshold goes: fewer than asked where there are ties (the reference's image encoder).
    Strict,
    /// The threshold goes too: at least one weight more than asked (ECoFLaP).
    Inclusive,
}

/// Magnitude pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MagnitudeConfig {
    /// Without the absolute value, as in the reference: the most negative weights go first.
    pub signed: bool,
}

/// SparseGPT.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SparseGptConfig {
    /// When the diagonal of the Gram matrix is raised.
    pub damping: Damping,
    /// By how much, as a share of its mean.
    pub damping_share: f64,
    /// Columns whose masks are chosen at once.
    pub block: u32,
    /// How many weights of a block go.
    pub threshold: BlockThreshold,
    /// In which order columns are walked.
    #[serde(skip_serializing_if = "is_default")]
    pub order: ColumnOrder,
}

impl Default for SparseGptConfig {
    fn default() -> Self {
        let (damping, threshold, order) = (Damping::Always, BlockThreshold::Exact, ColumnOrder::Natural);
        Self { damping, damping_share: 0.01, block: 128, threshold, order }
    }
}

impl SparseGptConfig {
    /// An N:M pattern says itself how many weights go.
    fn canonical(&self, pattern: Pattern) -> Self {
        match pattern {
            Pattern::Unstructured => *self,
            Pattern::NOfM { .. } => Self { threshold: BlockThreshold::Exact, ..*self },
        }
    }
}

/// In which order SparseGPT walks the columns of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnOrder {
    /// From left to right (published).
    #[default]
    Natural,
    /// Blocks, and columns in them, in which most is lost come first, where blocks are unlike (ROSE, arXiv 2603.05878).
    Loss,
}

/// How many weights of a block of columns SparseGPT removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockThreshold {
    /// So many that all blocks together meet the number.
    Exact,
    /// All up to and with the first one that should stay, over all rows: at least one weight more in each block (published).
    Inclusive,
}

/// When the Gram matrix is damped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damping {
    /// Once, before it is factorised (published).
    Always,
    /// Only if it cannot be factorised, again until it can (the reference).
    OnFailure,
}

/// ALPS.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AlpsConfig {
    /// What is added to the diagonal of the Gram matrix, as a share of its mean.
    pub damping_share: f64,
    /// The first penalty on the distance to the sparse matrix.
    pub penalty: f64,
    /// Maximum number of iterations that look for the mask.
    pub iterations: u32,
    /// Maximum number of steps of least squares on it.
    pub steps: u32,
}

impl Default for AlpsConfig {
    fn default() -> Self {
        Self { damping_share: 0.01, penalty: 0.1, iterations: 300, steps: 10 }
    }
}

/// DSnoT.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DsnotConfig {
    /// What makes the first mask.
    pub initial: InitialMetric,
    /// Maximum number of swaps in a row; 0 leaves the first mask.
    pub cycles: u32,
    /// Errors of a row's expected output up to this are left alone.
    pub threshold: f64,
    /// When a swap that turns the sign of the error ends the row.
    pub sign: SignRule,
    /// Exponent of the variance that a contribution is divided by.
    pub variance_power: f64,
}

impl Default for DsnotConfig {
    fn default() -> Self {
        Self {
            initial: InitialMetric::Wanda,
            cycles: 50,
            threshold: 0.1,
            sign: SignRule::Published,
            variance_power: 1.0,
        }
    }
}

impl DsnotConfig {
    /// With no cycle, nothing but the first mask counts; with N:M, both sign rules are one.
    fn canonical(&self, pattern: Pattern) -> Self {
        let neutral = Self::default();
        if self.cycles == 0 {
            return Self { initial: self.initial, cycles: 0, ..neutral };
        }
        let sign = if pattern == Pattern::Unstructured { self.sign } else { neutral.sign };
        Self { sign, ..*self }
    }
}

/// Metrics that DSnoT can start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitialMetric {
    /// Absolute value.
    Magnitude,
    /// Absolute value times input norm (published).
    Wanda,
    /// Relative importance and activations.
    Ria,
    /// SparseGPT's saliency of the weights as they are, with its published damping.
    #[serde(rename = "sparsegpt")]
    SparseGpt,
}

/// Whether a swap that turns the sign of a row's error ends the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignRule {
    /// With N:M only (published).
    Published,
    /// Always.
    Always,
}

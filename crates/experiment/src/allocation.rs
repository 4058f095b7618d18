//! Settings of allocation: how a budget is divided among layers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ExperimentError, Tower,
    config::{Group, Metric, PruneConfig},
    method::is_default,
    shape::{Names, Shape},
    source::Source,
    yaml,
};

/// How the budget of the towers is divided among their layers. Budgets are met to one weight whatever the method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AllocationConfig {
    /// What decides.
    pub method: AllocationMethod,
    /// Layers that get one sparsity.
    pub group: AllocationGroup,
    /// Whether towers may trade with each other.
    pub towers: AllocationScope,
    /// Largest fraction removed from a group.
    pub cap: f64,
    /// Smallest fraction removed from a group.
    pub floor: f64,
    /// Calibration samples that are looked at, the first so many; `None` means all.
    pub samples: Option<u32>,
    /// TAMP, LoSA: how far a group's sparsity may be from its tower's; `None` means as published.
    #[serde(skip_serializing_if = "is_default")]
    pub margin: Option<f64>,
    /// EvoPress: what is searched.
    #[serde(skip_serializing_if = "is_default")]
    pub search: SearchConfig,
    /// Where ECoFLaP's scores come from.
    pub order: ScoreOrder,
    /// What ECoFLaP's scores weigh.
    pub score: ScoreRule,
    /// How the scores of a group's layers become one.
    pub aggregate: Aggregate,
    /// Half the distance between the two weights that are compared, in units of the noise (zeroth order).
    pub epsilon: f64,
    /// Noises drawn for each layer and sample (zeroth order).
    pub noise: u32,
    /// OWL: how far a group's sparsity may be from the mean.
    pub lambda: f64,
    /// OWL: how many times the mean an outlier is.
    pub m: f64,
    /// Sparsity by layer pattern (`method: table`).
    pub table: BTreeMap<String, f64>,
}

impl Default for AllocationConfig {
    fn default() -> Self {
        Self {
            method: AllocationMethod::Uniform,
            group: AllocationGroup::Block,
            towers: AllocationScope::Each,
            cap: 0.95,
            floor: 0.0,
            samples: Some(32),
            margin: None,
            search: SearchConfig::default(),
            order: ScoreOrder::First,
            score: ScoreRule::Aobd,
            aggregate: Aggregate::Sum,
            epsilon: 1e-3,
            noise: 1,
            lambda: 0.08,
            m: 5.0,
            table: BTreeMap::new(),
        }
    }
}

impl AllocationConfig {
    /// A table from a file of its own: a mapping of layer patterns to sparsities, as under `prune.allocation.table`.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn read_table(path: &std::path::Path) -> Result<BTreeMap<String, f64>, ExperimentError> {
        const NAME: &str = "prune.allocation.table";
        let example = |error: ExperimentError| error.help("write a line for each layer, such as `language.0: 0.3`");
        let node = yaml::parse(&Source::read(path, &path.display().to_string())?).map_err(example)?;
        Shape::Shares.check(NAME, &node, &Names::default())?;
        let entries = node.map(NAME)?.iter();
        Ok(entries.filter_map(|(key, share)| Some((key.text.clone(), share.value().as_f64()?))).collect())
    }

    /// Whether every layer gets its tower's sparsity and nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the model must be measured first.
    pub fn is_measured(&self) -> bool {
        !matches!(self.method, AllocationMethod::Uniform | AllocationMethod::Table)
    }

    /// How far a group's sparsity may be from `sparsity`, that of its tower, where the method bounds it so.
    pub fn margin(&self, sparsity: f64) -> Option<f64> {
        let published = match self.method {
            AllocationMethod::Tamp => 0.1,
            AllocationMethod::Losa if sparsity <= 0.5 => 0.01,
            AllocationMethod::Losa if sparsity <= 0.6 => 0.02,
            AllocationMethod::Losa => 0.03,
            _ => return None,
        };
        Some(self.margin.unwrap_or(published))
    }

    /// The same division with what it cannot see made neutral. `towers` is how many towers have a budget.
    pub fn canonical(&self, towers: usize) -> Self {
        let neutral = Self::default();
        // Each tower as one group of its own is its budget again; one tower has nobody to trade with.
        let whole = self.group == AllocationGroup::Tower && (self.towers == AllocationScope::Each || towers < 2);
        if self.method == AllocationMethod::Uniform || (self.is_measured() && whole) {
            return neutral;
        }
        let mut own = Self { method: self.method, cap: self.cap, floor: self.floor, ..neutral.clone() };
        if towers > 1 {
            own.towers = self.towers;
        }
        match self.method {
            AllocationMethod::Uniform => {}
            AllocationMethod::Table => own.table = self.table.clone(),
            AllocationMethod::Owl => {
                (own.group, own.samples, own.lambda, own.m) = (self.group, self.samples, self.lambda, self.m);
            }
            AllocationMethod::Ecoflap => {
                (own.group, own.samples, own.aggregate) = (self.group, self.samples, self.aggregate);
                (own.order, own.score) = (self.order, self.score);
                if self.order == ScoreOrder::Zeroth {
                    (own.epsilon, own.noise) = (self.epsilon, self.noise);
                }
            }
            AllocationMethod::Tamp => {
                (own.group, own.samples, own.margin) = (self.group, self.samples, self.margin);
            }
            AllocationMethod::Losa => (own.samples, own.margin) = (self.samples, self.margin),
            AllocationMethod::Evopress => {
                (own.group, own.samples, own.search) = (self.group, self.samples, self.search);
            }
        }
        own
    }

    /// What has to be measured of a tower for it; `None` where nothing is. `prune` is the section that it is part of.
    pub fn measurement(&self, prune: &PruneConfig, tower: Tower) -> Option<Measurement> {
        match self.method {
            AllocationMethod::Uniform | AllocationMethod::Table => None,
            AllocationMethod::Owl => Some(Measurement::Outliers { group: self.group, m: self.m }),
            AllocationMethod::Ecoflap => Some(match self.order {
                ScoreOrder::First => Measurement::Gradient { score: self.score },
                ScoreOrder::Zeroth => {
                    Measurement::Perturbation { score: self.score, epsilon: self.epsilon, noise: self.noise }
                }
            }),
            AllocationMethod::Tamp => Some(Measurement::Density),
            AllocationMethod::Losa => Some(Measurement::Similarity),
            AllocationMethod::Evopress => Some(Measurement::Search {
                metric: if prune.metric.ranks() { prune.metric } else { Metric::Wanda },
                compared: prune.tower(tower).group.unwrap_or(prune.metric.published_group()),
                sparsity: prune.tower(tower).sparsity,
                group: self.group,
                floor: self.floor,
                cap: self.cap,
                search: self.search,
            }),
        }
    }
}

/// What EvoPress searches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SearchConfig {
    /// Rounds of mutation and selection.
    pub generations: u32,
    /// Candidates in a round.
    pub offspring: u32,
    /// Steps from the tower's sparsity half way to 1 or 0, whichever is nearer, for a group of mean size, and as many the other way.
    pub levels: u32,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { generations: 50, offspring: 16, levels: 8 }
    }
}

/// What decides how a budget is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationMethod {
    /// Every layer its tower's sparsity.
    Uniform,
    /// Written down, by layer pattern; the other layers fill the budget with one sparsity.
    Table,
    /// The share of outliers among weights times input norms (Yin et al., arXiv 2310.05175).
    Owl,
    /// How much the loss depends on the weights (Sung et al., arXiv 2310.02998).
    Ecoflap,
    /// How unlike each other the outputs of visual and text tokens are (Lee et al., arXiv 2504.09897).
    Tamp,
    /// How like other blocks' a block's input is (Huang et al., ICLR 2025).
    Losa,
    /// What a search over divisions finds closest to the dense model's answers (Sieberling et al., ICML 2025).
    Evopress,
}

impl AllocationMethod {
    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        match self {
            AllocationMethod::Uniform => "uniform",
            AllocationMethod::Table => "table",
            AllocationMethod::Owl => "owl",
            AllocationMethod::Ecoflap => "ecoflap",
            AllocationMethod::Tamp => "tamp",
            AllocationMethod::Losa => "losa",
            AllocationMethod::Evopress => "evopress",
        }
    }
}

/// Layers that get one sparsity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationGroup {
    /// Every weight matrix for itself.
    Layer,
    /// The matrices of a block.
    Block,
    /// The matrices of a tower.
    Tower,
}

/// Who shares a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationScope {
    /// Every tower meets its own sparsity.
    Each,
    /// The towers with a budget meet the sum of their budgets, and may trade.
    Joint,
}

/// Where scores come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreOrder {
    /// Gradients of the loss.
    First,
    /// Differences of the loss under noise, forward passes only.
    Zeroth,
}

/// What a layer's score weighs, from its weights `w` and gradients `g`. In zeroth order one slope stands for all gradients of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreRule {
    /// `|w| |g|`: first-order change of the loss.
    Aobd,
    /// `w^2 g^2`: second-order change with the empirical Fisher diagonal.
    Obd,
    /// `w^2 |g|`: what the reference computes under the name `aobd`.
    ObdAbsolute,
    /// `|g|` alone.
    Gradient,
}

/// How the scores of layers become the score of their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregate {
    /// Their sum: the kept fraction goes by the mean score of a weight.
    Sum,
    /// Their sum divided by the group's weights: the kept number goes by it, so large groups are pruned more.
    Average,
}

/// What a `sensitivity` stage measures of each layer of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measure", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Measurement {
    /// Number of weights whose product with the input's norm is above `m` times the mean over their group.
    Outliers {
        /// Weights behind the mean.
        group: AllocationGroup,
        /// Times the mean.
        m: f64,
    },
    /// A score from gradients of the loss, summed over the layer's weights.
    Gradient {
        /// What is summed.
        score: ScoreRule,
    },
    /// A score from differences of the loss under noise on the layer.
    Perturbation {
        /// What is weighed.
        score: ScoreRule,
        /// Half the distance of the two weights.
        epsilon: f64,
        /// Noises per sample.
        noise: u32,
    },
    /// How far the outputs of visual tokens, of text tokens, and of one beside the other are from pointing one way.
    Density,
    /// What a block's input does not have in common with other blocks' inputs.
    Similarity,
    /// The share that a layer loses in the best division that a search finds, every other tower being dense.
    Search {
        /// What ranks the weights of a candidate.
        metric: Metric,
        /// Weights that it compares.
        compared: Group,
        /// Share that the tower loses.
        sparsity: f64,
        /// Layers that get one share.
        group: AllocationGroup,
        /// Least share.
        floor: f64,
        /// Largest share.
        cap: f64,
        /// What is searched.
        #[serde(flatten)]
        search: SearchConfig,
    },
}

impl Measurement {
    /// A word for progress lines.
    pub fn name(&self) -> &'static str {
        match self {
            Measurement::Outliers { .. } => "outliers",
            Measurement::Gradient { .. } => "gradients",
            Measurement::Perturbation { .. } => "perturbations",
            Measurement::Density => "densities",
            Measurement::Similarity => "similarities",
            Measurement::Search { .. } => "search",
        }
    }
}

/// What a `prune` stage is told about the division of a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BudgetConfig {
    /// How it is divided; canonical.
    pub rule: AllocationConfig,
    /// Towers that meet it together, with their sparsities.
    #[serde(serialize_with = "crate::tower::map_in_keys")]
    pub towers: BTreeMap<Tower, f64>,
    /// Whether the connector's part is for its projection, too. Whoever lists the layers looks at it.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub projection: bool,
}

/// Published by a `sensitivity` stage: what was measured of each layer, by module path.
pub type Sensitivities = BTreeMap<String, f64>;

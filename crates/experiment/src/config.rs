//! The resolved configuration of one run: every setting explicit, nothing about the machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Asks, Pattern, Task, Tower,
    aids::Aids,
    allocation::AllocationConfig,
    evolve::EvolveConfig,
    loading::LoadingConfig,
    method::is_default,
    model::{DenseConfig, ModelConfig},
    penalty::PenaltyConfig,
    perturb::NoiseConfig,
    reconstruct::ReconstructConfig,
    refine::RefineConfig,
    settings::SETTINGS,
    shared::Shared,
    steps::StepConfig,
    structure::StructureConfig,
};

pub use crate::{
    aids::{PerturbConfig, Perturbation, RetrievedConfig, SmoothingConfig, SmoothingMethod},
    asking::{AskingConfig, Crop, Lemmatizer, OkvqaConfig, PerplexityConfig, Repetition, RetrievalConfig, TextRule},
    corpora::{Augment, CorporaConfig, Corpus, SampleForm},
    distill::{AttentionBlocks, AttentionConfig, DistillConfig, Divergence, HiddenConfig, Reduction},
    method::{
        AlpsConfig, BlockThreshold, ColumnOrder, Damping, DsnotConfig, InitialMetric, MagnitudeConfig, MethodConfig,
        Rounding, SignRule, SparseGptConfig, StatisticsNeeds, Threshold,
    },
    recompute::Recompute,
    tokens::{TokenConfig, TokenSelection},
};

/// Everything that can change a run's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunConfig {
    /// The dense model.
    pub model: Shared<ModelConfig>,
    /// How a preset is trained, and the gate it must pass.
    #[serde(default)]
    pub dense: Shared<DenseConfig>,
    /// Images, questions and captions.
    #[serde(default)]
    pub data: Shared<DataConfig>,
    /// What is removed.
    #[serde(default)]
    pub prune: Shared<PruneConfig>,
    /// How what was pruned is refined; for steps `refine` only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refine: RefineConfig,
    /// What is removed as a whole; for steps `structure` only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub structure: Shared<StructureConfig>,
    /// How what is left is reconstructed; for steps `reconstruct` only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reconstruct: Shared<ReconstructConfig>,
    /// How quality is given back.
    #[serde(default)]
    pub restore: Shared<RestoreConfig>,
    /// What is measured.
    #[serde(default)]
    pub evaluate: Shared<EvaluateConfig>,
    /// What is done to the dense model, in order, where it is not one pruning and one restoration. Sections say what steps do not say.
    #[serde(default, skip_serializing_if = "no_steps")]
    pub steps: Shared<Vec<StepConfig>>,
    /// Replicate seed: calibration sample, random masks, adapter initialisation and training batches.
    #[serde(default)]
    pub seed: u64,
}

impl RunConfig {
    /// A model and nothing done to it.
    pub fn of(model: ModelConfig) -> Self {
        Self {
            model: model.into(),
            dense: Shared::default(),
            data: Shared::default(),
            prune: Shared::default(),
            refine: RefineConfig::default(),
            structure: Shared::default(),
            reconstruct: Shared::default(),
            restore: Shared::default(),
            evaluate: Shared::default(),
            steps: Shared::default(),
            seed: 0,
        }
    }

    /// Whether two runs differ in nothing but their seed.
    pub fn is_but_for_seed(&self, other: &Self) -> bool {
        let Self { model, dense, data, prune, refine, structure, reconstruct, restore, evaluate, steps, seed: _ } =
            self;
        (prune, refine, restore, steps) == (&other.prune, &other.refine, &other.restore, &other.steps)
            && (structure, reconstruct) == (&other.structure, &other.reconstruct)
            && *evaluate == other.evaluate
            && (model, dense, data) == (&other.model, &other.dense, &other.data)
    }
}

fn no_steps(steps: &[StepConfig]) -> bool {
    steps.is_empty()
}

/// Where samples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DataConfig {
    /// The embedded world, or folders of published benchmarks.
    pub source: DataSource,
    /// Seed of the embedded world; every split follows from it.
    pub seed: u64,
    /// Root folder of published benchmarks and corpora (`source: folder`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<std::path::PathBuf>,
    /// What calibration reads (`source: folder`).
    #[serde(skip_serializing_if = "CorporaConfig::is_default")]
    pub calibration: CorporaConfig,
    /// What restoration trains on (`source: folder`).
    #[serde(skip_serializing_if = "CorporaConfig::is_default")]
    pub restoration: CorporaConfig,
    /// Text file of the task `perplexity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<std::path::PathBuf>,
}

impl DataConfig {
    /// What an evaluation sees: no training data.
    pub fn benchmarks(&self) -> Self {
        let (calibration, restoration) = Default::default();
        Self { source: self.source, seed: self.seed, root: self.root.clone(), calibration, restoration, text: None }
    }

    /// What the evaluation of a task sees: benchmarks, or a text alone.
    pub fn of_task(&self, task: Task) -> Self {
        match task.asks() {
            Asks::Text => Self { text: self.text.clone(), ..Self::default() },
            _ => self.benchmarks(),
        }
    }

    /// What calibration sees.
    pub fn for_calibration(&self) -> Self {
        Self { calibration: self.calibration.clone(), ..self.benchmarks() }
    }

    /// What the calibration of a tower with settings of its own sees.
    pub fn for_calibration_of(&self, tower: &TowerPrune) -> Self {
        let mut data = self.for_calibration();
        if !tower.calibration.corpora.is_empty() {
            data.calibration.corpora = tower.calibration.corpora.clone();
        }
        data
    }

    /// What restoration sees.
    pub fn for_restoration(&self) -> Self {
        Self { restoration: self.restoration.clone(), ..self.benchmarks() }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        let (calibration, restoration) = Default::default();
        Self { source: DataSource::Shapes, seed: 1234, root: None, calibration, restoration, text: None }
    }
}

/// Kind of data source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// The procedurally generated world that comes with the program.
    Shapes,
    /// The paper's benchmarks on disk.
    Folder,
}

/// Pruning: metric, pattern, budget per tower, calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PruneConfig {
    /// What ranks the weights; `none` leaves the model dense.
    pub metric: Metric,
    /// Which positions may be removed together.
    pub pattern: Pattern,
    /// Budget of the image encoder.
    pub vision: TowerPrune,
    /// Budget of the connector; the paper never prunes it. Keys have its earlier name.
    #[serde(rename = "qformer", alias = "connector")]
    pub connector: TowerPrune,
    /// Budget of the language model.
    pub language: TowerPrune,
    /// Samples behind the statistics.
    pub calibration: CalibrationConfig,
    /// How budgets are divided among layers.
    #[serde(skip_serializing_if = "AllocationConfig::is_default")]
    pub allocation: AllocationConfig,
    /// How many weights a sparsity is.
    #[serde(skip_serializing_if = "is_default")]
    pub rounding: Rounding,
    /// What goes at the threshold.
    #[serde(skip_serializing_if = "is_default")]
    pub threshold: Threshold,
    /// Settings of magnitude.
    #[serde(skip_serializing_if = "is_default")]
    pub magnitude: MagnitudeConfig,
    /// Settings of SparseGPT.
    #[serde(skip_serializing_if = "is_default")]
    pub sparsegpt: SparseGptConfig,
    /// Settings of DSnoT.
    #[serde(skip_serializing_if = "is_default")]
    pub dsnot: DsnotConfig,
    /// Settings of ALPS.
    #[serde(skip_serializing_if = "is_default")]
    pub alps: AlpsConfig,
}

impl PruneConfig {
    /// Whether the metric or the division of the budget looks at calibration samples.
    pub fn calibrates(&self) -> bool {
        self.metric.needs_calibration() || self.allocation.is_measured()
    }

    /// The calibration of one tower.
    pub fn calibration_of(&self, tower: Tower) -> CalibrationConfig {
        let own = &self.tower(tower).calibration;
        CalibrationConfig {
            images: own.images.unwrap_or(self.calibration.images),
            questions: own.questions.unwrap_or(self.calibration.questions),
            captions: own.captions.unwrap_or(self.calibration.captions),
            // Weights compare kinds of token, and an image encoder sees one kind.
            tokens: if tower == Tower::Vision { TokenConfig::default() } else { self.calibration.tokens },
            ..self.calibration.clone()
        }
    }

    /// How the method prunes.
    pub fn method(&self) -> MethodConfig {
        let Self { rounding, threshold, magnitude, sparsegpt, dsnot, alps, .. } = *self;
        MethodConfig { rounding, threshold, magnitude, sparsegpt, dsnot, alps }
    }

    /// The same pruning with what it cannot see made neutral.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let mut own = self.clone();
        crate::canonical::canonical_prune(&mut own);
        own
    }

    /// Why these settings cannot be used together, and what to do; `None` where they can.
    pub fn contradiction(&self) -> Option<String> {
        crate::conflict::prune(self).map(|found| format!("{}: {}", found.message, found.help))
    }

    /// Settings that are not the default, by their paths in experiment files.
    pub fn chosen(&self) -> BTreeMap<&'static str, serde_json::Value> {
        let run = |prune: Self| RunConfig { prune: prune.into(), ..RunConfig::of(ModelConfig::default()) };
        let (own, neutral) = (run(self.clone()), run(Self::default()));
        let of_prune = SETTINGS.iter().filter(|setting| setting.path.starts_with("prune."));
        let differs = of_prune.map(|setting| (setting, setting.get(&own))).filter(|(s, v)| *v != s.get(&neutral));
        // Settings are plain data without odd keys, which is JSON too.
        differs.map(|(s, value)| (s.path, serde_json::to_value(value).unwrap_or_default())).collect()
    }

    /// The towers that it removes something of.
    pub fn pruned(&self) -> impl Iterator<Item = Tower> + Clone {
        let is_pruned = |tower: &Tower| self.metric != Metric::None && self.tower(*tower).sparsity > 0.0;
        Tower::ALL.into_iter().filter(is_pruned)
    }

    /// The settings of one tower.
    pub fn tower(&self, tower: Tower) -> &TowerPrune {
        match tower {
            Tower::Vision => &self.vision,
            Tower::Connector => &self.connector,
            Tower::Language => &self.language,
        }
    }
}

impl Default for PruneConfig {
    fn default() -> Self {
        Self {
            metric: Metric::None,
            pattern: Pattern::Unstructured,
            vision: TowerPrune::default(),
            connector: TowerPrune::default(),
            language: TowerPrune::default(),
            calibration: CalibrationConfig::default(),
            allocation: AllocationConfig::default(),
            rounding: Rounding::default(),
            threshold: Threshold::default(),
            magnitude: MagnitudeConfig::default(),
            sparsegpt: SparseGptConfig::default(),
            dsnot: DsnotConfig::default(),
            alps: AlpsConfig::default(),
        }
    }
}

/// A pruning metric: what gives a weight its importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// No pruning.
    None,
    /// Uniform random importance.
    Random,
    /// Absolute value of the weight.
    Magnitude,
    /// Absolute value times the norm of the input feature (Sun et al., arXiv 2306.11695).
    Wanda,
    /// Share of row and column times a power of the norm (Zhang et al., ICLR 2024).
    Ria,
    /// Optimal brain surgeon, column by column; changes the weights that stay (Frantar and Alistarh, arXiv 2301.00774).
    #[serde(rename = "sparsegpt")]
    SparseGpt,
    /// Swaps that bring the expected output back (Zhang et al., arXiv 2310.08915).
    Dsnot,
    /// Mask and weights together, by alternating directions (Meng et al., NeurIPS 2024).
    Alps,
}

impl Metric {
    /// All that prune, as they are listed for people.
    pub const METHODS: [Metric; 7] =
        [Metric::Magnitude, Metric::Wanda, Metric::Ria, Metric::SparseGpt, Metric::Alps, Metric::Dsnot, Metric::Random];

    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        match self {
            Metric::None => "none",
            Metric::Random => "random",
            Metric::Magnitude => "magnitude",
            Metric::Wanda => "wanda",
            Metric::Ria => "ria",
            Metric::SparseGpt => "sparsegpt",
            Metric::Dsnot => "dsnot",
            Metric::Alps => "alps",
        }
    }

    /// Whether the metric looks at calibration activations.
    pub fn needs_calibration(self) -> bool {
        matches!(self, Metric::Wanda | Metric::Ria | Metric::SparseGpt | Metric::Alps | Metric::Dsnot)
    }

    /// Whether the method ranks every weight once, so that weights of several layers can be compared.
    pub fn ranks(self) -> bool {
        !matches!(self, Metric::SparseGpt | Metric::Alps | Metric::Dsnot)
    }

    /// Whether the method changes the weights that stay.
    pub fn changes_weights(self) -> bool {
        matches!(self, Metric::SparseGpt | Metric::Alps)
    }

    /// The comparison group its authors use for unstructured pruning.
    pub fn published_group(self) -> Group {
        match self {
            Metric::Magnitude | Metric::Ria | Metric::SparseGpt | Metric::Alps => Group::Matrix,
            Metric::None | Metric::Random | Metric::Wanda | Metric::Dsnot => Group::Row,
        }
    }
}

impl std::str::FromStr for Metric {
    type Err = String;

    /// A method by its name; `none` is not one.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Metric::METHODS.map(Metric::name).join(", ");
        let found = Metric::METHODS.into_iter().find(|method| method.name() == text);
        found.ok_or_else(|| format!("`{text}` is not one of {}", names()))
    }
}

/// Pruning settings of one tower.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TowerPrune {
    /// Fraction removed, 0 (tower untouched) to below 1. With an N:M pattern: 0, or what the pattern implies.
    pub sparsity: f64,
    /// Weights among which importance is compared; `null` means the metric's published group.
    pub group: Option<Group>,
    /// What is different about this tower's calibration.
    #[serde(skip_serializing_if = "is_default")]
    pub calibration: TowerCalibration,
    /// Of the connector: whether the projection into the language model is pruned with it, within its budget.
    #[serde(skip_serializing_if = "is_default")]
    pub projection: bool,
}

/// Calibration of one tower where it differs from that of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TowerCalibration {
    /// Distinct images; `null` means as for the other towers, here and below.
    pub images: Option<u32>,
    /// Questions drawn for each image.
    pub questions: Option<u32>,
    /// Captions drawn for each image.
    pub captions: Option<u32>,
    /// Corpora (`source: folder`); none means as for the other towers.
    pub corpora: Vec<Corpus>,
}

/// The weights among which importance is compared in unstructured pruning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Each output row for itself.
    Row,
    /// The whole weight matrix.
    Matrix,
    /// All matrices of the tower together.
    Tower,
}

impl Group {
    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        match self {
            Group::Row => "row",
            Group::Matrix => "matrix",
            Group::Tower => "tower",
        }
    }
}

/// Calibration samples and how activations flow while they are collected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CalibrationConfig {
    /// Distinct training images.
    pub images: u32,
    /// Questions drawn for each image.
    pub questions: u32,
    /// Captions drawn for each image.
    pub captions: u32,
    /// What a block sees as its input.
    pub propagate: Propagate,
    /// What each kind of token counts.
    #[serde(skip_serializing_if = "TokenConfig::is_default")]
    pub tokens: TokenConfig,
}

impl Default for CalibrationConfig {
    fn default() -> Self {
        Self { images: 48, questions: 3, captions: 1, propagate: Propagate::Pruned, tokens: TokenConfig::default() }
    }
}

/// What a block sees while its statistics are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagate {
    /// Outputs of pruned predecessors, as in the Wanda paper (and the reference's baselines).
    Pruned,
    /// Outputs of dense predecessors (what the reference's restoration runs do).
    Dense,
}

/// Restoration: training that gives quality back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RestoreConfig {
    /// The method; `none` leaves the pruned model as it is.
    pub method: RestoreMethod,
    /// Adapters of the image encoder.
    pub vision: TowerAdapter,
    /// Adapters of the connector, never masked unless the connector itself is pruned. Keys have its earlier name.
    #[serde(rename = "qformer", alias = "connector")]
    pub connector: TowerAdapter,
    /// Adapters of the language model.
    pub language: TowerAdapter,
    /// Optimiser steps.
    pub steps: u32,
    /// The first so many steps leave the language model out: what leaves the connector is compared with the embeddings of the answers' words.
    #[serde(skip_serializing_if = "is_default")]
    pub align: u32,
    /// Images per step; each brings `questions` questions and one caption.
    pub batch: u32,
    /// Questions per image and step.
    pub questions: u32,
    /// Distinct training images to draw from.
    pub samples: u32,
    /// How batches are divided among what they are drawn from.
    #[serde(skip_serializing_if = "is_default")]
    pub loading: LoadingConfig,
    /// Peak learning rate of AdamW.
    pub learning_rate: f64,
    /// Linear warm-up steps.
    pub warmup: u32,
    /// Learning rate at the end of the cosine, as a share of the peak.
    pub final_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Gradient norm above which gradients are scaled down.
    pub clip: f64,
    /// Weight of the contrastive image-text loss, for models with a retrieval head.
    pub contrastive: f64,
    /// How much more a wrong text or image of the contrastive loss counts the more it is like the right one; 0 counts all the same.
    #[serde(skip_serializing_if = "is_default")]
    pub hardness: f64,
    /// How masks change on the way.
    #[serde(skip_serializing_if = "is_default")]
    pub evolve: EvolveConfig,
    /// Noise on the weights on the way.
    #[serde(skip_serializing_if = "is_default")]
    pub perturb: NoiseConfig,
    /// Penalty on groups of weights.
    #[serde(skip_serializing_if = "is_default")]
    pub penalty: PenaltyConfig,
    /// What is learned from a teacher beside the task.
    pub distill: DistillConfig,
    /// Maximum number of images computed at once, not above `batch`; a step's batch is then computed in parts that add up to it. Null means the whole batch. Changes memory
    /// and time, and results by rounding only: it is not part of a stage's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<u32>,
    /// Whether blocks are computed again for their gradients instead of keeping their activations. Like `micro-batch` not part of a stage's
    /// identity.
    #[serde(skip_serializing_if = "Recompute::is_auto")]
    pub recompute: Recompute,
}

impl RestoreConfig {
    /// The settings of one tower.
    pub fn tower(&self, tower: Tower) -> &TowerAdapter {
        match tower {
            Tower::Vision => &self.vision,
            Tower::Connector => &self.connector,
            Tower::Language => &self.language,
        }
    }
}

impl Default for RestoreConfig {
    fn default() -> Self {
        let tower = |rank| TowerAdapter { rank, ..TowerAdapter::default() };
        Self {
            method: RestoreMethod::None,
            vision: tower(8),
            connector: tower(4),
            language: tower(8),
            steps: 60,
            align: 0,
            batch: 16,
            questions: 3,
            samples: 2000,
            loading: LoadingConfig::default(),
            learning_rate: 3e-3,
            warmup: 8,
            final_rate: 0.05,
            weight_decay: 0.0,
            clip: 1.0,
            contrastive: 1.0,
            hardness: 0.0,
            evolve: EvolveConfig::default(),
            perturb: NoiseConfig::default(),
            penalty: PenaltyConfig::default(),
            distill: DistillConfig::default(),
            micro_batch: None,
            recompute: Recompute::Auto,
        }
    }
}

/// A restoration method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreMethod {
    /// No restoration.
    None,
    /// Dense adapter, merged: fills pruned positions, and the certificate says so.
    Lora,
    /// Dense adapter, merged, mask re-applied afterwards.
    LoraRemasked,
    /// Adapter masked by the keep mask during training and merging (paper section 3.3).
    SparseLora,
    /// Weights scaled by a low-rank product that starts at one (Zimmer et al., arXiv 2312.15230).
    ScaleLora,
    /// Weights that change by a share of themselves, a factor for the row times one for the column (Lu et al., ICML 2024).
    Spp,
    /// The same with a low-rank product in place of the two factors (arXiv 2510.14444).
    SppLora,
}

impl RestoreMethod {
    /// The name used in YAML and tables.
    pub fn name(self) -> &'static str {
        match self {
            RestoreMethod::None => "none",
            RestoreMethod::Lora => "lora",
            RestoreMethod::LoraRemasked => "lora-remasked",
            RestoreMethod::SparseLora => "sparse-lora",
            RestoreMethod::ScaleLora => "scale-lora",
            RestoreMethod::Spp => "spp",
            RestoreMethod::SppLora => "spp-lora",
        }
    }

    /// Whether what trains leaves pruned weights at zero.
    pub fn trains_masked(self) -> bool {
        !matches!(self, RestoreMethod::None | RestoreMethod::Lora | RestoreMethod::LoraRemasked)
    }

    /// What matrices get.
    pub fn update(self) -> MatrixUpdate {
        match self {
            RestoreMethod::ScaleLora => MatrixUpdate::Scale,
            RestoreMethod::Spp => MatrixUpdate::Spp,
            RestoreMethod::SppLora => MatrixUpdate::SppLora,
            RestoreMethod::None | RestoreMethod::Lora | RestoreMethod::LoraRemasked | RestoreMethod::SparseLora => {
                MatrixUpdate::Sum
            }
        }
    }
}

/// How a matrix's update and its weight come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatrixUpdate {
    /// `W + s B A`.
    #[default]
    Sum,
    /// `W * (B A)`.
    Scale,
    /// `W + s W * (b a)`, `a` with `rank` rows that are spread over the outputs.
    Spp,
    /// `W + s W * (B A)`.
    SppLora,
}

/// Adapters of one tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TowerAdapter {
    /// Whether the tower is trained at all.
    pub tune: bool,
    /// Rank of the update; with `spp`, rows of its factor of the columns. 0 leaves matrices as they are.
    pub rank: u32,
    /// Factor on the update (`alpha / rank` of the reference). `scale-lora` has none.
    pub scale: f64,
    /// Roles of the linears that get an adapter, such as `qkv` or `wi_0`, or modules on their path, such as `crossattention`; empty means
    /// every prunable linear.
    pub targets: Vec<String>,
    /// Whether matrices change element by element instead of by a product of low rank.
    #[serde(skip_serializing_if = "is_default")]
    pub full: bool,
    /// The learned queries of the connector train, element by element.
    #[serde(skip_serializing_if = "is_default")]
    pub queries: bool,
    /// Biases that train beside the adapters, element by element.
    #[serde(skip_serializing_if = "is_default")]
    pub bias: TrainedBiases,
    /// Whether gains and shifts of norms train, element by element.
    #[serde(skip_serializing_if = "is_default")]
    pub norms: bool,
}

impl TowerAdapter {
    /// Whether matrices of the tower are to train, where it is tuned.
    pub fn trains_matrices(&self) -> bool {
        self.rank > 0 || self.full
    }

    /// Whether anything of the tower is to train, where it is tuned. `lora-only` names biases of the matrices that train.
    pub fn trains(&self) -> bool {
        self.trains_matrices() || self.queries || self.norms || self.bias == TrainedBiases::All
    }
}

impl Default for TowerAdapter {
    fn default() -> Self {
        let (full, queries, bias, norms) = Default::default();
        Self { tune: true, rank: 8, scale: 2.0, targets: Vec::new(), full, queries, bias, norms }
    }
}

/// Biases that train in a restoration, by the names that PEFT's `bias` has for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainedBiases {
    /// None.
    #[default]
    None,
    /// Those of the linears that get an adapter.
    LoraOnly,
    /// All of the tower, shifts of norms among them.
    All,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvaluateConfig {
    /// Tasks, in table order.
    pub tasks: Vec<Task>,
    /// Questions per question-answering task.
    pub questions: u32,
    /// Images for captions (per caption set) and for retrieval.
    pub images: u32,
    /// Beams of the search; 1 is greedy.
    pub beams: u32,
    /// How questions are asked and answered.
    #[serde(skip_serializing_if = "AskingConfig::is_default")]
    pub answer: AskingConfig,
    /// How captions are asked for and written.
    #[serde(skip_serializing_if = "AskingConfig::is_default")]
    pub caption: AskingConfig,
    /// What is done for OK-VQA alone.
    #[serde(skip_serializing_if = "OkvqaConfig::is_default")]
    pub okvqa: OkvqaConfig,
    /// How images and texts are compared.
    #[serde(skip_serializing_if = "RetrievalConfig::is_default")]
    pub retrieval: RetrievalConfig,
    /// How a text is cut.
    #[serde(skip_serializing_if = "PerplexityConfig::is_default")]
    pub perplexity: PerplexityConfig,
    /// Captions before each prompt.
    #[serde(skip_serializing_if = "is_default")]
    pub retrieved: RetrievedConfig,
    /// What happens to questions before they are asked.
    #[serde(skip_serializing_if = "is_default")]
    pub perturb: PerturbConfig,
    /// Copies of a question that are voted on.
    #[serde(skip_serializing_if = "is_default")]
    pub smoothing: SmoothingConfig,
}

impl EvaluateConfig {
    /// How a task is asked; `None` for retrieval and texts, where nothing is asked.
    pub fn asking(&self, task: Task) -> Option<&AskingConfig> {
        match task.asks() {
            Asks::Answer | Asks::Choice => Some(&self.answer),
            Asks::Caption => Some(&self.caption),
            Asks::Match | Asks::Text => None,
        }
    }

    /// What changes what is asked of a task.
    pub fn aids(&self, task: Task) -> Aids {
        let asks = task.has_questions();
        Aids {
            retrieved: (task.writes() && self.retrieved.is_on()).then(|| self.retrieved.clone()),
            perturb: (asks && self.perturb.is_on()).then(|| self.perturb.clone()),
            smoothing: (asks && self.smoothing.is_on()).then(|| self.smoothing.clone()),
        }
    }

    /// Items of a task that are asked for: questions, images, or windows of a text, of which 0 means all.
    pub fn items(&self, task: Task) -> u32 {
        match task.asks() {
            Asks::Answer | Asks::Choice => self.questions,
            Asks::Caption | Asks::Match => self.images,
            Asks::Text => self.perplexity.windows.unwrap_or(0),
        }
    }
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            tasks: Task::PAPER.to_vec(),
            questions: 1000,
            images: 300,
            beams: 1,
            answer: AskingConfig::default(),
            caption: AskingConfig::default(),
            okvqa: OkvqaConfig::default(),
            retrieval: RetrievalConfig::default(),
            perplexity: PerplexityConfig::default(),
            retrieved: RetrievedConfig::default(),
            perturb: PerturbConfig::default(),
            smoothing: SmoothingConfig::default(),
        }
    }
}

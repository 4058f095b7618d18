//! Stages: the steps of a run, each with a typed configuration and a key. Runs that share a key share the work.
//!
//! The key is the hash of the stage's name and version, its own configuration and the keys of the stages it reads. A setting a stage
//! cannot see is not in its configuration, so it cannot invalidate it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Pattern, StageKey, Task, Tower,
    aids::Aids,
    allocation::{BudgetConfig, Measurement},
    config::{
        AskingConfig, CalibrationConfig, DataConfig, DistillConfig, Group, MatrixUpdate, MethodConfig, Metric,
        OkvqaConfig, Recompute, RestoreMethod, RetrievalConfig, StatisticsNeeds, TowerAdapter,
    },
    evolve::EvolveConfig,
    job::Compute,
    loading::LoadingConfig,
    model::Preset,
    penalty::PenaltyConfig,
    perturb::NoiseConfig,
    reading::Readings,
    reconstruct::WindowTraining,
    refine::RefineMethod,
    structure::{BlockScore, GroupScore, TowerStructure},
};

pub use crate::chain::stages;

/// A stage with its key and the stages it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageNode {
    /// Identity.
    pub key: StageKey,
    /// What is done; the same evaluation of many runs is one value.
    #[serde(with = "crate::shared::one")]
    pub stage: Arc<Stage>,
    /// What is read; shared by the evaluations of a run.
    #[serde(with = "crate::shared::one")]
    pub inputs: Arc<Inputs>,
    /// What it reads from outside the store, itself or through its dense model.
    #[serde(default, skip_serializing_if = "Readings::is_empty")]
    pub readings: Readings,
}

/// The published stages that a stage reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense: Option<StageKey>,
    /// Measured towers that the budget is divided by, in tower order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitivities: Vec<StageKey>,
    /// Stored statistics of the tower's inputs. Not part of a stage's key: without them the same numbers are collected on the way, and what
    /// else was collected in the same pass changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<StageKey>,
    /// Pruned towers, in tower order; of a tower that several steps have changed since the merge, the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<StageKey>,
    /// Trained adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<StageKey>,
    /// The restoration that all else comes after: its weights stand for those of the dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<StageKey>,
}

impl Inputs {
    /// Appends what goes into the key, as JSON.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        if self.statistics.is_some() {
            return Self { statistics: None, ..self.clone() }.write(buffer);
        }
        serde_json::to_writer(buffer, self).expect("inputs are plain data with text keys");
    }

    /// The same with other keys.
    pub(crate) fn renamed(&self, name: impl Fn(&StageKey) -> StageKey) -> Self {
        let all = |keys: &[StageKey]| keys.iter().map(&name).collect();
        Self {
            dense: self.dense.as_ref().map(&name),
            sensitivities: all(&self.sensitivities),
            statistics: self.statistics.as_ref().map(&name),
            masks: all(&self.masks),
            adapter: self.adapter.as_ref().map(&name),
            merge: self.merge.as_ref().map(&name),
        }
    }

    /// Every key read, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &StageKey> {
        let measured = self.sensitivities.iter().chain(&self.statistics);
        self.dense.iter().chain(measured).chain(&self.masks).chain(&self.adapter).chain(&self.merge)
    }
}

/// What a stage does, with exactly the settings it can see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Stage {
    /// Train a preset, or take a published checkpoint. Output: `model/`, a Hugging Face folder.
    Dense {
        /// Preset to train; exclusive with `checkpoint`.
        preset: Option<Preset>,
        /// Folder of a published checkpoint.
        checkpoint: Option<String>,
        /// Data to train on.
        data: DataConfig,
        /// Training seed.
        seed: u64,
        /// Steps, where not the preset's own.
        steps: Option<u32>,
    },
    /// Plant channel scales in the dense model: the same function to the bit, with unequal channels. Output: `model/`, a Hugging Face
    /// folder, which later stages read as their dense model.
    Rescale {
        /// Standard deviation of the natural logarithm of the scales.
        spread: f64,
        /// What the scales are drawn from.
        seed: u64,
    },
    /// Measure how much each layer of a tower matters, to divide budgets by. Output: one number per layer.
    Sensitivity {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// Whether the projection into the language model is one of the connector's layers.
        #[serde(default, skip_serializing_if = "crate::method::is_default")]
        projection: bool,
        /// What is measured.
        measurement: Measurement,
        /// Samples that are looked at, the first so many; null means all.
        samples: Option<u32>,
        /// Calibration.
        calibration: CalibrationConfig,
        /// Data of the calibration samples.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Collect what the layers of a tower of the dense model see. Output: one file per block.
    Statistics {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// Whether the projection into the language model is one of the connector's layers.
        #[serde(default, skip_serializing_if = "crate::method::is_default")]
        projection: bool,
        /// What is collected.
        needs: StatisticsNeeds,
        /// Calibration.
        calibration: CalibrationConfig,
        /// Data of the calibration samples.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Mask one tower. Output: `masks.safetensors`, `weights.safetensors` where the method changes weights, and a certificate.
    Prune {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// Whether the projection into the language model is one of the connector's layers.
        #[serde(default, skip_serializing_if = "crate::method::is_default")]
        projection: bool,
        /// What ranks the weights.
        metric: Metric,
        /// Which positions go together.
        pattern: Pattern,
        /// Fraction removed; null when the pattern says it.
        sparsity: Option<f64>,
        /// Comparison group; null for N:M.
        group: Option<Group>,
        /// Calibration; null for metrics that need none.
        calibration: Option<CalibrationConfig>,
        /// Data of the calibration samples; null without calibration.
        data: Option<DataConfig>,
        /// Replicate seed; null where nothing is drawn.
        seed: Option<u64>,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
        /// How the budget is divided; absent where every layer gets the tower's sparsity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Box<BudgetConfig>>,
        /// Settings of the method; absent where all that it reads are the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<Box<MethodConfig>>,
    },
    /// Refine the layers of a tower that was pruned. Output: `masks.safetensors`, `weights.safetensors` where kept weights are not those that were pruned,
    /// and a certificate with the error of each layer before and after.
    Refine {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// How.
        method: RefineMethod,
        /// Maximum number of swaps in a row, or of steps of the solver.
        iterations: u32,
        /// Calibration.
        calibration: CalibrationConfig,
        /// Data of the calibration samples.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Remove heads, channels and blocks of a tower. Output: `masks.safetensors`, `structure.safetensors` with the rows and columns that are left of each
    /// layer, and a certificate with the numbers of groups.
    Structure {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// What it loses.
        target: TowerStructure,
        /// What ranks heads and channels; null where all stay.
        score: Option<GroupScore>,
        /// What ranks blocks; null where all stay.
        block_score: Option<BlockScore>,
        /// Calibration; null for scores that need none.
        calibration: Option<CalibrationConfig>,
        /// Data of the calibration samples; null without calibration.
        data: Option<DataConfig>,
        /// Replicate seed; null where nothing is drawn.
        seed: Option<u64>,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Reconstruct a tower: train a part of it at a time to put out what the dense model puts out there. Output: `masks.safetensors`, the masks that it had,
    /// `weights.safetensors`, and a certificate with the error of each window before and after.
    Reconstruct {
        /// The tower.
        #[serde(serialize_with = "crate::tower::in_keys")]
        tower: Tower,
        /// Training settings.
        training: Box<WindowTraining>,
        /// Samples.
        calibration: CalibrationConfig,
        /// Data of the samples.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Train adapters on a pruned model. Output: `adapter.safetensors`, `losses.csv`; where masks changed, `masks.safetensors` and `weights.safetensors`.
    Adapt {
        /// Whether the update is masked while training.
        masked: bool,
        /// Training settings.
        training: Box<AdaptTraining>,
        /// Data to train on.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Merge adapters into the weights and certify the result. Output: a certificate.
    Merge {
        /// How.
        method: RestoreMethod,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
    },
    /// Predict and score one task. Output: `predictions.jsonl` and scores.
    Evaluate {
        /// The task.
        task: Task,
        /// Questions, images for captions and retrieval, or windows of a text, of which 0 means all.
        items: u32,
        /// Beams; null for retrieval and texts.
        beams: Option<u32>,
        /// Benchmark data.
        data: DataConfig,
        /// How the task is asked; absent for retrieval and at its default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asking: Option<Box<AskingConfig>>,
        /// What is done for OK-VQA; absent for other tasks and at its default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        okvqa: Option<Box<OkvqaConfig>>,
        /// What retrieval compares with; absent for other tasks and at its default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retrieval: Option<Box<RetrievalConfig>>,
        /// Type of the computation, where the experiment says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        compute: Option<Compute>,
        /// Tokens of a window of a text; absent for all other tasks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window: Option<u32>,
        /// What changes what is asked; absent where nothing does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aids: Option<Box<Aids>>,
    },
}

/// Settings of adapter training; towers that are not tuned are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdaptTraining {
    /// How updates of matrices are formed.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub update: MatrixUpdate,
    /// Adapters of the image encoder.
    pub vision: Option<TowerAdapter>,
    /// Adapters of the connector. Keys have its earlier name.
    #[serde(rename = "qformer", alias = "connector")]
    pub connector: Option<TowerAdapter>,
    /// Adapters of the language model.
    pub language: Option<TowerAdapter>,
    /// Optimiser steps.
    pub steps: u32,
    /// Steps, the first so many, that leave the language model out.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub align: u32,
    /// Images per step.
    pub batch: u32,
    /// Questions per image.
    pub questions: u32,
    /// Distinct training images.
    pub samples: u32,
    /// How batches are divided among what they are drawn from.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub loading: LoadingConfig,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Warm-up steps.
    pub warmup: u32,
    /// Final share of the learning rate.
    pub final_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Gradient clipping norm.
    pub clip: f64,
    /// Weight of the contrastive loss.
    pub contrastive: f64,
    /// What likeness adds to a wrong pair of the contrastive loss.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub hardness: f64,
    /// How masks change on the way.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub evolve: EvolveConfig,
    /// Noise on the weights on the way.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub perturb: NoiseConfig,
    /// Penalty on groups of weights.
    #[serde(default, skip_serializing_if = "crate::method::is_default")]
    pub penalty: PenaltyConfig,
    /// Distillation; null when its weight is 0.
    pub distill: Option<DistillConfig>,
    /// Maximum number of images computed at once; not part of the stage's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<u32>,
    /// What is computed again in the backward pass; not part of the stage's key.
    #[serde(default, skip_serializing_if = "Recompute::is_auto")]
    pub recompute: Recompute,
}

impl AdaptTraining {
    /// The settings that decide about the result: those of memory change it by rounding only.
    #[must_use]
    pub fn without_layout(&self) -> Self {
        Self { micro_batch: None, recompute: Recompute::Auto, ..self.clone() }
    }

    fn has_layout(&self) -> bool {
        self.micro_batch.is_some() || !self.recompute.is_auto()
    }

    /// The adapters of one tower.
    pub fn tower(&self, tower: Tower) -> Option<&TowerAdapter> {
        match tower {
            Tower::Vision => self.vision.as_ref(),
            Tower::Connector => self.connector.as_ref(),
            Tower::Language => self.language.as_ref(),
        }
    }
}

impl Stage {
    /// Name of the stage kind, as shown in plans.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Dense { .. } => "dense",
            Stage::Rescale { .. } => "rescale",
            Stage::Sensitivity { .. } => "sensitivity",
            Stage::Statistics { .. } => "statistics",
            Stage::Prune { .. } => "prune",
            Stage::Refine { .. } => "refine",
            Stage::Structure { .. } => "structure",
            Stage::Reconstruct { .. } => "reconstruct",
            Stage::Adapt { .. } => "adapt",
            Stage::Merge { .. } => "merge",
            Stage::Evaluate { .. } => "evaluate",
        }
    }

    /// Type of the computation, where the experiment says it.
    pub fn compute(&self) -> Option<Compute> {
        match self {
            Stage::Dense { .. } | Stage::Rescale { .. } => None,
            Stage::Sensitivity { compute, .. }
            | Stage::Statistics { compute, .. }
            | Stage::Prune { compute, .. }
            | Stage::Refine { compute, .. }
            | Stage::Structure { compute, .. }
            | Stage::Reconstruct { compute, .. }
            | Stage::Adapt { compute, .. }
            | Stage::Merge { compute, .. }
            | Stage::Evaluate { compute, .. } => *compute,
        }
    }

    /// Version of each stage's code. Raise it with every change that can move a number: outputs of older versions are then made anew.
    /// A test compares the sources behind each stage with what was recorded for its version (`stage-sources.json`).
    pub const VERSIONS: [(&'static str, u32); 11] = [
        ("dense", 1),
        ("rescale", 1),
        ("sensitivity", 1),
        ("statistics", 1),
        ("prune", 1),
        ("refine", 1),
        ("structure", 1),
        ("reconstruct", 1),
        ("adapt", 2),
        ("merge", 1),
        ("evaluate", 1),
    ];

    /// The tower whose masks it publishes.
    pub fn masks(&self) -> Option<Tower> {
        match self {
            Stage::Prune { tower, .. }
            | Stage::Refine { tower, .. }
            | Stage::Structure { tower, .. }
            | Stage::Reconstruct { tower, .. } => Some(*tower),
            _ => None,
        }
    }

    /// Whether it publishes a certificate of weights.
    pub fn is_certified(&self) -> bool {
        self.masks().is_some() || matches!(self, Stage::Merge { .. })
    }

    /// Whether it is a part of what steps make of the weights: whoever reads such a stage also opens those of them that it was made from.
    pub fn changes_weights(&self) -> bool {
        self.is_certified() || matches!(self, Stage::Adapt { .. })
    }

    /// Whether it changes weights by gradients, step by step, and resumes when it was interrupted.
    pub fn trains(&self) -> bool {
        matches!(self, Stage::Dense { .. } | Stage::Adapt { .. } | Stage::Reconstruct { .. })
    }

    /// Version of the stage's code.
    pub fn version(&self) -> u32 {
        let kind = self.kind();
        Self::VERSIONS.iter().find(|(name, _)| *name == kind).map_or(0, |(_, version)| *version)
    }

    /// The stage with its key.
    pub fn node(self, inputs: Inputs) -> StageNode {
        self.node_with(inputs, &mut Vec::new())
    }

    pub(crate) fn node_with(self, inputs: Inputs, buffer: &mut Vec<u8>) -> StageNode {
        let key = identify(buffer, &self, |buffer| self.write(buffer), |buffer| inputs.write(buffer));
        StageNode { key, stage: Arc::new(self), inputs: Arc::new(inputs), readings: Readings::default() }
    }

    /// Appends the configuration as JSON.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        if let Stage::Adapt { training, masked, data, seed, compute } = self
            && training.has_layout()
        {
            let (training, data) = (Box::new(training.without_layout()), data.clone());
            let bare = Stage::Adapt { training, masked: *masked, data, seed: *seed, compute: *compute };
            return bare.write(buffer);
        }
        serde_json::to_writer(buffer, self).expect("a stage is plain data with text keys");
    }
}

/// The key of a stage: the digest of `{"kind", "version", "configuration", "inputs"}`, in this order, as JSON without spaces.
///
/// `configuration` and `inputs` append themselves as JSON; a grid asks for the same few over and over, so the caller may have them
/// ready. `buffer` is reused for the same reason.
pub(crate) fn identify(
    buffer: &mut Vec<u8>,
    stage: &Stage,
    configuration: impl FnOnce(&mut Vec<u8>),
    inputs: impl FnOnce(&mut Vec<u8>),
) -> StageKey {
    before_inputs(buffer, stage, configuration);
    inputs(buffer);
    buffer.push(b'}');
    blake3::hash(buffer).into()
}

/// What is hashed before the inputs, in a buffer.
fn before_inputs(buffer: &mut Vec<u8>, stage: &Stage, configuration: impl FnOnce(&mut Vec<u8>)) {
    buffer.clear();
    for part in [b"{\"kind\":\"", stage.kind().as_bytes(), b"\",\"version\":"] {
        buffer.extend_from_slice(part);
    }
    serde_json::to_writer(&mut *buffer, &stage.version()).expect("a number is JSON");
    buffer.extend_from_slice(b",\"configuration\":");
    configuration(buffer);
    buffer.extend_from_slice(b",\"inputs\":");
}

/// The keys of one stage with ever other inputs: what comes before them is hashed once.
pub(crate) struct Identifier(blake3::Hasher);

impl Identifier {
    /// For a stage whose configuration is this JSON.
    pub fn new(stage: &Stage, configuration: &[u8]) -> Self {
        let mut buffer = Vec::new();
        before_inputs(&mut buffer, stage, |buffer| buffer.extend_from_slice(configuration));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&buffer);
        Self(hasher)
    }

    /// The key with inputs of this JSON, as [`identify`] makes it.
    pub fn key(&self, inputs: &[u8]) -> StageKey {
        self.0.clone().update(inputs).update(b"}").finalize().into()
    }
}

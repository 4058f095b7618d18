//! Stages: the steps of a run, each with a typed configuration and a key. Runs that share a key share the work.
//!
//! The key is the hash of the stage's name and version, its own configuration and the keys of the stages it reads. A setting a stage
//! cannot see is not in its configuration, so it cannot invalidate it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Pattern, RunConfig, Task, Tower,
    config::{CalibrationConfig, DataConfig, DistillConfig, Group, Metric, Propagate, RestoreMethod, TowerAdapter},
    model::Preset,
};

/// Identity of a stage: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageKey(pub String);

impl StageKey {
    /// The first twelve digits, enough for people.
    pub fn short(&self) -> &str {
        &self.0[..12.min(self.0.len())]
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stage with its key and the stages it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageNode {
    /// Identity.
    pub key: StageKey,
    /// What is done.
    pub stage: Stage,
    /// What is read.
    pub inputs: Inputs,
}

/// The published stages that a stage reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense: Option<StageKey>,
    /// Pruned towers, in tower order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<StageKey>,
    /// Trained adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<StageKey>,
    /// The merge that `evaluate` looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<StageKey>,
}

impl Inputs {
    /// Every key read, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = &StageKey> {
        self.dense.iter().chain(&self.masks).chain(&self.adapter).chain(&self.merge)
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
    /// Mask one tower. Output: `masks.safetensors` and a certificate.
    Prune {
        /// The tower.
        tower: Tower,
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
    },
    /// Train adapters on a pruned model. Output: `adapter.safetensors`, `losses.csv`.
    Adapt {
        /// Whether the update is masked while training.
        masked: bool,
        /// Training settings.
        training: AdaptTraining,
        /// Data to train on.
        data: DataConfig,
        /// Replicate seed.
        seed: u64,
    },
    /// Merge adapters into the weights and certify the result. Output: a certificate.
    Merge {
        /// How.
        method: RestoreMethod,
    },
    /// Predict and score one task. Output: `predictions.jsonl` and scores.
    Evaluate {
        /// The task.
        task: Task,
        /// Questions, or images for captions and retrieval.
        items: u32,
        /// Beams; null for retrieval.
        beams: Option<u32>,
        /// Benchmark data.
        data: DataConfig,
    },
}

/// Settings of adapter training; towers that are not tuned are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdaptTraining {
    /// Adapters of the image encoder.
    pub vision: Option<TowerAdapter>,
    /// Adapters of the interface.
    pub qformer: Option<TowerAdapter>,
    /// Adapters of the language model.
    pub language: Option<TowerAdapter>,
    /// Optimiser steps.
    pub steps: u32,
    /// Images per step.
    pub batch: u32,
    /// Questions per image.
    pub questions: u32,
    /// Distinct training images.
    pub samples: u32,
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
    /// Distillation; null when its weight is 0.
    pub distill: Option<DistillConfig>,
}

impl AdaptTraining {
    /// The adapters of one tower.
    pub fn tower(&self, tower: Tower) -> Option<&TowerAdapter> {
        match tower {
            Tower::Vision => self.vision.as_ref(),
            Tower::Qformer => self.qformer.as_ref(),
            Tower::Language => self.language.as_ref(),
        }
    }
}

impl Stage {
    /// Name of the stage kind, as shown in plans.
    pub fn kind(&self) -> &'static str {
        match self {
            Stage::Dense { .. } => "dense",
            Stage::Prune { .. } => "prune",
            Stage::Adapt { .. } => "adapt",
            Stage::Merge { .. } => "merge",
            Stage::Evaluate { .. } => "evaluate",
        }
    }

    /// Version of the stage's code. Raise it with every change that can move a number; all outputs of older versions are then ignored.
    pub fn version(&self) -> u32 {
        match self {
            Stage::Dense { .. } => 1,
            Stage::Prune { .. } => 1,
            Stage::Adapt { .. } => 1,
            Stage::Merge { .. } => 1,
            Stage::Evaluate { .. } => 1,
        }
    }

    /// The stage with its key.
    pub fn node(self, inputs: Inputs) -> StageNode {
        let identity = serde_json::json!({
            "kind": self.kind(),
            "version": self.version(),
            "configuration": self,
            "inputs": inputs,
        });
        let key = StageKey(blake3::hash(identity.to_string().as_bytes()).to_hex().to_string());
        StageNode { key, stage: self, inputs }
    }
}

/// The chain of one run: `dense -> prune per tower -> adapt -> merge -> evaluate per task`, upstream first.
///
/// `run` must be canonical: settings that the run cannot see are already neutral.
pub fn stages(run: &RunConfig) -> Vec<StageNode> {
    let mut nodes = Vec::new();
    let dense = Stage::Dense {
        preset: run.model.preset,
        checkpoint: run.model.checkpoint.as_ref().map(|p| p.display().to_string()),
        data: run.data.clone(),
        seed: run.dense.seed,
        steps: run.dense.steps,
    }
    .node(Inputs::default());
    let dense_key = dense.key.clone();
    nodes.push(dense);

    let mut masks: Vec<(Tower, StageKey)> = Vec::new();
    for tower in Tower::ALL {
        let prune = &run.prune;
        let budget = prune.tower(tower);
        if prune.metric == Metric::None || budget.sparsity <= 0.0 {
            continue;
        }
        let calibrated = prune.metric.needs_calibration();
        let unstructured = prune.pattern == Pattern::Unstructured;
        let sees_masks = calibrated && prune.calibration.propagate == Propagate::Pruned;
        let node = Stage::Prune {
            tower,
            metric: prune.metric,
            pattern: prune.pattern,
            sparsity: unstructured.then_some(budget.sparsity),
            group: unstructured.then(|| budget.group.unwrap_or(prune.metric.published_group())),
            calibration: calibrated.then(|| prune.calibration.clone()),
            data: calibrated.then(|| run.data.clone()),
            seed: (calibrated || prune.metric == Metric::Random).then_some(run.seed),
        }
        .node(Inputs {
            dense: Some(dense_key.clone()),
            masks: if sees_masks { masks.iter().map(|(_, key)| key.clone()).collect() } else { Vec::new() },
            ..Inputs::default()
        });
        masks.push((tower, node.key.clone()));
        nodes.push(node);
    }
    let mask_keys: Vec<StageKey> = masks.iter().map(|(_, key)| key.clone()).collect();

    let restore = &run.restore;
    let mut merge_key = None;
    if restore.method != RestoreMethod::None {
        let tower = |t: Tower| Some(restore.tower(t)).filter(|a| a.tune && a.rank > 0).cloned();
        let adapt = Stage::Adapt {
            masked: restore.method == RestoreMethod::SparseLora,
            training: AdaptTraining {
                vision: tower(Tower::Vision),
                qformer: tower(Tower::Qformer),
                language: tower(Tower::Language),
                steps: restore.steps,
                batch: restore.batch,
                questions: restore.questions,
                samples: restore.samples,
                learning_rate: restore.learning_rate,
                warmup: restore.warmup,
                final_rate: restore.final_rate,
                weight_decay: restore.weight_decay,
                clip: restore.clip,
                contrastive: restore.contrastive,
                distill: (restore.distill.weight > 0.0).then(|| restore.distill.clone()),
            },
            data: run.data.clone(),
            seed: run.seed,
        }
        .node(Inputs { dense: Some(dense_key.clone()), masks: mask_keys.clone(), ..Inputs::default() });
        let merge = Stage::Merge { method: restore.method }.node(Inputs {
            dense: Some(dense_key.clone()),
            masks: mask_keys.clone(),
            adapter: Some(adapt.key.clone()),
            ..Inputs::default()
        });
        merge_key = Some(merge.key.clone());
        nodes.push(adapt);
        nodes.push(merge);
    }

    for &task in &run.evaluate.tasks {
        // Retrieval never runs the language model, so an unrestored run's language mask is not one of its inputs.
        let seen = |tower: Tower| task.uses_language() || tower != Tower::Language;
        let masks = match merge_key {
            Some(_) => Vec::new(),
            None => masks.iter().filter(|(tower, _)| seen(*tower)).map(|(_, key)| key.clone()).collect(),
        };
        nodes.push(
            Stage::Evaluate {
                task,
                items: if Task::QUESTIONS.contains(&task) { run.evaluate.questions } else { run.evaluate.images },
                beams: task.uses_language().then_some(run.evaluate.beams),
                data: run.data.clone(),
            }
            .node(Inputs { dense: Some(dense_key.clone()), masks, merge: merge_key.clone(), adapter: None }),
        );
    }
    nodes
}

//! Which dense model an experiment starts from, and how the program trains its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{job::Compute, method::is_default};

/// Where the dense model comes from. Exactly one of `preset` and `checkpoint` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// A small model that the program trains itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// A Hugging Face checkpoint folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Type of the computation; absent: f32 on a CPU, and on a GPU the type of the weights. Adapters and their optimiser, losses, statistics and
    /// pruning's arithmetic stay f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Compute>,
    /// Standard deviation of the natural logarithm of planted channel scales; 0 plants none. The function stays the same to the bit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub channel_spread: f64,
    /// Seed of the planted scales.
    #[serde(default, skip_serializing_if = "is_default")]
    pub channel_seed: u64,
}

/// The small models of the embedded world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// InstructBLIP with a T5 encoder-decoder.
    #[serde(rename = "shapes-flant5")]
    ShapesFlanT5,
    /// InstructBLIP with a LLaMA decoder.
    #[serde(rename = "shapes-vicuna")]
    ShapesVicuna,
}

impl Preset {
    /// The name used in YAML and in store entries.
    pub fn name(self) -> &'static str {
        match self {
            Preset::ShapesFlanT5 => "shapes-flant5",
            Preset::ShapesVicuna => "shapes-vicuna",
        }
    }
}

/// How a preset is trained. The recipe itself belongs to the stage's version; these are its free settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DenseConfig {
    /// Seed of initialisation and batches. Not the replicate seed: all replicates share one dense model.
    pub seed: u64,
    /// Steps of the joint stage; `null` means the preset's own number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Lowest acceptable dense score per `task` or `task/part`, in points. Checked before a sweep spends anything.
    pub gate: std::collections::BTreeMap<String, f64>,
}

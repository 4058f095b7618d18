//! A folder to be pruned: the settings of an experiment, and what stands beside them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ModelAt;
use crate::config::{CorporaConfig, PruneConfig};

/// Settings of `Job::Prune`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prune {
    /// The model.
    pub model: ModelAt,
    /// What goes, and how it is chosen. Numbers of calibration images, questions and captions mean nothing here: `samples` says how many.
    pub prune: PruneConfig,
    /// Calibration samples.
    pub calibration: CalibrationSource,
    /// How many of them are used, drawn with the seed; `null` is all that are listed. A corpus needs a number.
    pub samples: Option<usize>,
    /// Seed of the draw, and of random importance.
    pub seed: u64,
    /// Limit of resident host memory in bytes; `null` is no limit.
    pub memory_limit: Option<u64>,
    /// Whether activations go to the disk even where they fit into memory. Results do not depend on it.
    pub spill: bool,
    /// Limit in bytes on activations that stay on a device other than the CPU; larger ones are in host memory between two blocks. Results do not depend on it.
    pub device_activations: u64,
    /// Seconds of work after which what is done is made to last: a killed run does at most so much again.
    pub checkpoint_after: f64,
    /// Folder to write; must be absent or empty.
    pub output: PathBuf,
}

/// Where calibration samples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationSource {
    /// One by one; their order does not matter.
    Listed(Vec<CalibrationRequest>),
    /// Caption corpora, drawn and ordered as an experiment draws them.
    Corpora {
        /// Which, and what becomes of their entries.
        corpora: CorporaConfig,
        /// Folder that holds them.
        root: PathBuf,
    },
}

/// A calibration sample as files list it: an image with an instruction and its answer, or an image with a caption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRequest {
    /// Image file.
    pub image: PathBuf,
    /// The instruction; none beside a caption.
    #[serde(default)]
    pub prompt: String,
    /// What the model is to say.
    #[serde(alias = "caption")]
    pub answer: String,
}

/// Settings of experiments that a pruning job takes by their paths; a path that ends with a dot is a section. The others have an option of their own.
pub const SETTABLE: [&str; 20] = [
    "prune.rounding",
    "prune.threshold",
    "prune.magnitude.",
    "prune.sparsegpt.",
    "prune.dsnot.",
    "prune.alps.",
    "prune.allocation.group",
    "prune.allocation.towers",
    "prune.allocation.cap",
    "prune.allocation.floor",
    "prune.allocation.samples",
    "prune.allocation.lambda",
    "prune.allocation.m",
    "prune.calibration.tokens.",
    "prune.vision.group",
    "prune.connector.group",
    "prune.connector.projection",
    "prune.language.group",
    "data.calibration.form",
    "data.calibration.instructions",
];

/// Whether a setting can be given to a pruning job by its path.
///
/// # Errors
/// What to do instead.
pub fn settable(path: &str) -> Result<(), String> {
    let option = match path {
        "prune.metric" => "--metric",
        "prune.pattern" => "--pattern",
        "prune.vision.sparsity" => "--vision",
        "prune.connector.sparsity" => "--connector",
        "prune.language.sparsity" => "--language",
        "prune.calibration.propagate" => "--propagate",
        "prune.allocation.method" | "prune.allocation.table" => "--allocation",
        "model.checkpoint" => "--model",
        "model.compute" => "--dtype",
        "data.root" => "--data-root",
        "data.calibration.corpora" => "--calibration",
        "prune.calibration.images" => "--samples",
        "seed" => "--seed",
        path if SETTABLE.iter().any(|open| path == *open || (open.ends_with('.') && path.starts_with(open))) => {
            return Ok(());
        }
        _ => return Err("a single pruning has no such setting; an experiment has".to_owned()),
    };
    Err(format!("it has an option of its own: {option}"))
}

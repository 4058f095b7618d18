//! Jobs: single steps outside any sweep. `ressa` hands one to a worker process as JSON on standard input and reads replies, one JSON
//! object per line, from its standard output; standard error is the worker's log.

mod layer;
mod prune;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Readings, Task, protocol::Failure, stage::Inputs};

pub use layer::{LayerOptions, PruneLayer, SparseLora};
pub use prune::{CalibrationRequest, CalibrationSource, Prune, SETTABLE, settable};

/// One step on a model folder. Paths are relative to the folder that `ressa` was started in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Answer prompts about images.
    Generate(Generate),
    /// One teacher-forced pass, its parts written as tensors.
    Forward(Forward),
    /// Input statistics of every prunable linear.
    Stats(Stats),
    /// A folder of published shape with random weights.
    RandomCheckpoint(RandomCheckpoint),
    /// One layer pruned by itself.
    PruneLayer(PruneLayer),
    /// One layer with a masked adapter, forwards, backwards and merged.
    SparseLora(SparseLora),
    /// A finished run as a model folder.
    Export(Box<Export>),
    /// A folder pruned block by block, in bounded memory.
    Prune(Box<Prune>),
    /// Stored predictions scored, also by other programs.
    Score(Box<ScorePredictions>),
    /// Perplexity of a text.
    Perplexity(Perplexity),
    /// Dense and sparse products timed.
    BenchKernels(BenchKernels),
}

/// Settings of [`Job::BenchKernels`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchKernels {
    /// What is multiplied with.
    pub shapes: Vec<KernelShape>,
    /// Columns that are multiplied at once, ascending.
    pub batches: Vec<u32>,
    /// Share of zeros, anywhere; `null`: two of every four.
    pub sparsity: Option<f64>,
    /// Type of weights and inputs; `null` means f32 on a CPU, bf16 on a GPU.
    pub dtype: Option<Compute>,
}

/// A shape that linears of a model have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelShape {
    /// Rows of the weight.
    pub outputs: usize,
    /// Columns of the weight.
    pub inputs: usize,
    /// Linears of this shape.
    pub layers: usize,
    /// One of them.
    pub example: String,
}

/// Settings of [`Job::Perplexity`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The model.
    pub model: ModelAt,
    /// Text file.
    pub text: PathBuf,
    /// Tokens of a window.
    pub window: usize,
    /// The first so many windows; `null`: all.
    pub windows: Option<usize>,
    /// Whether the answer lists the windows.
    pub list: bool,
}

/// Settings of [`Job::Score`]. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorePredictions {
    /// `predictions.jsonl` of an evaluation.
    pub predictions: PathBuf,
    /// Its task.
    pub task: Task,
    /// Whether the benchmark is a published one.
    pub published: bool,
    /// `meteor-1.5.jar`, where METEOR is wanted.
    pub meteor: Option<PathBuf>,
    /// `spice-1.0.jar`, where SPICE is wanted.
    pub spice: Option<PathBuf>,
    /// What runs SPICE's jar, by default `java`, and METEOR's, whose score is computed without it unless this is given.
    pub java: Option<PathBuf>,
    /// Whether answers to OK-VQA are brought to their base forms by rules.
    pub lemmatize: bool,
    /// Table of answers and lemmas that does it instead.
    pub lemmas: Option<PathBuf>,
    /// Folder in which SPICE keeps what it has parsed.
    pub scratch: PathBuf,
}

/// A model on disk, and how to compute with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelAt {
    /// Its folder.
    pub folder: PathBuf,
    /// Type of the computation; `null` means f32 on a CPU, and on a GPU the type of the weights.
    pub compute: Option<Compute>,
}

/// Type in which a network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// 32-bit floats.
    Float32,
    /// bfloat16, with float32 where the architecture needs it.
    Bfloat16,
    /// float16, with float32 where the architecture needs it.
    Float16,
}

impl Compute {
    /// The name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Compute::Float32 => "float32",
            Compute::Bfloat16 => "bfloat16",
            Compute::Float16 => "float16",
        }
    }
}

impl std::str::FromStr for Compute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Compute::Float32, Compute::Bfloat16, Compute::Float16]
            .into_iter()
            .find(|compute| compute.name() == text)
            .ok_or_else(|| format!("`{text}` is not one of float32, bfloat16, float16"))
    }
}

/// How the files of an exported folder hold its pruned linears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Container {
    /// Every weight, zeros too.
    #[default]
    Dense,
    /// Values that are not zero, and a bit for every place.
    Bitmask,
    /// Two values of every four places, and a bit for every place.
    #[serde(rename = "2:4")]
    TwoFour,
}

impl Container {
    /// Every container.
    pub const ALL: [Container; 3] = [Container::Dense, Container::Bitmask, Container::TwoFour];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Container::Dense => "dense",
            Container::Bitmask => "bitmask",
            Container::TwoFour => "2:4",
        }
    }
}

impl std::str::FromStr for Container {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|container| container.name() == text);
        found.ok_or_else(|| format!("`{text}` is not one of dense, bitmask, 2:4"))
    }
}

/// Settings of [`Job::Generate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// The model.
    pub model: ModelAt,
    /// What to answer; prompts about one image share its features.
    pub requests: Vec<PromptRequest>,
    /// How to search.
    pub search: SearchOptions,
}

/// A prompt about an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRequest {
    /// Image file.
    pub image: PathBuf,
    /// The instruction.
    pub prompt: String,
}

/// Search settings with the names and meanings of transformers' `GenerationConfig`; `null` leaves the folder's
/// `generation_config.json`, then the library's default, in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchOptions {
    /// Beams; 1 is greedy.
    pub num_beams: Option<usize>,
    /// Exponent on the length in a finished beam's score.
    pub length_penalty: Option<f64>,
    /// No end before the sequence (with what stands before the new tokens) is this long.
    pub min_length: Option<usize>,
    /// Maximum length, with what stands before the new tokens.
    pub max_length: Option<usize>,
    /// No end before so many new tokens.
    pub min_new_tokens: Option<usize>,
    /// Maximum number of new tokens; overrides `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Factor against tokens that are already there; 1 is none.
    pub repetition_penalty: Option<f64>,
    /// Whether a row ends with its first `num_beams` finished beams.
    pub early_stopping: Option<bool>,
}

/// Answer to a [`PromptRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generated {
    /// New tokens, up to and including the first end token.
    pub tokens: Vec<u32>,
    /// Their text, without special tokens.
    pub text: String,
}

/// Settings of [`Job::Forward`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// The model.
    pub model: ModelAt,
    /// Safetensors file with `pixel_values`, `input_ids`, `attention_mask`, `labels` and, where the Q-Former reads text,
    /// `qformer_input_ids`, `qformer_attention_mask`.
    pub inputs: PathBuf,
    /// Safetensors file to write.
    pub output: PathBuf,
}

/// Settings of [`Job::Stats`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// The model.
    pub model: ModelAt,
    /// Samples.
    pub requests: Vec<CalibrationRequest>,
    /// Whether a decoder-only model also reads the end token of the answer, as teacher-forced passes of other implementations do. No pruning does.
    pub end_token: bool,
    /// Safetensors file to write.
    pub output: PathBuf,
}

/// Settings of [`Job::RandomCheckpoint`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RandomCheckpoint {
    /// Name of a published shape, or a `config.json`.
    pub like: String,
    /// Folder to write; must be absent or empty.
    pub output: PathBuf,
    /// Seed of the weights.
    pub seed: u64,
    /// Type of the weights.
    pub dtype: Compute,
}

/// Settings of [`Job::Export`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Writable store of the run's stages.
    pub store: PathBuf,
    /// Read-only stores looked at after it.
    pub shipped: Vec<PathBuf>,
    /// Folder at which relative paths of published checkpoints start.
    pub root: PathBuf,
    /// The stages that make the model: dense, masks, and the merge where there is one.
    pub inputs: Inputs,
    /// What they read from outside the store, and where it is now.
    #[serde(default)]
    pub readings: Readings,
    /// Folder to write; must be absent or empty.
    pub output: PathBuf,
    /// Maximum size of a file of weights in bytes; `null` keeps the files of the source folder.
    pub max_shard_size: Option<u64>,
    /// Whether heads, channels and blocks that were removed stay as zeros, instead of a smaller model.
    #[serde(default)]
    pub full_size: bool,
    /// How pruned linears are stored.
    #[serde(default)]
    pub container: Container,
    /// What the model card says beyond the certificate: label, settings and scores of the run. Its form is the checkpoint crate's.
    pub card: Value,
}

/// A line that a job's worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// How far it is.
    Progress {
        /// Share done, 0 to 1.
        fraction: f64,
        /// What is going on.
        message: String,
    },
    /// Last line: what the job found.
    Done {
        /// Depends on the job: `generate` answers with a list of [`Generated`], the others with a summary object.
        output: Value,
    },
    /// Last line: why not.
    Failed {
        /// Kind and message.
        failure: Failure,
    },
}

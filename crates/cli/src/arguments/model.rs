//! Options of the commands that work on one model folder.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ressa_experiment::{
    Pattern,
    config::Metric,
    job::{Compute, SearchOptions},
};
use ressa_sweep::DeviceChoice;

use super::{path, prune::GroupName};

/// The machine of a single job.
#[derive(Args, Clone, Debug)]
pub struct JobMachine {
    /// `auto`, `cpu` or `cuda:N`
    #[arg(long, default_value = "auto", value_parser = |text: &str| text.parse::<DeviceChoice>())]
    pub device: DeviceChoice,
    /// Threads of one tensor operation, and of decoding images [default: all cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Let a GPU round the factors of float32 products to TF32: faster, with 10 bits of mantissa
    #[arg(long)]
    pub tf32: bool,
}

impl JobMachine {
    /// All cores of the host, for jobs that no device can help with.
    pub fn host() -> Self {
        Self { device: DeviceChoice::Cpu, threads: None, tf32: false }
    }
}

/// The model of a single job.
#[derive(Args, Clone, Debug)]
pub struct ModelOptions {
    /// Model folder, or a repository that `ressa fetch` has brought
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub model: PathBuf,
    /// Type of the computation: float32, bfloat16 or float16 [default: float32 on a CPU, on a GPU that of the weights]
    #[arg(long, value_name = "TYPE", value_parser = |text: &str| text.parse::<Compute>())]
    pub dtype: Option<Compute>,
}

/// Options of `generate`.
#[derive(Args, Debug)]
pub struct GenerateOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Image file
    #[arg(long, value_name = "FILE", required_unless_present = "requests", requires = "prompt", value_parser = path())]
    pub image: Option<PathBuf>,
    /// Instruction about the image
    #[arg(long, value_name = "TEXT", requires = "image")]
    pub prompt: Option<String>,
    /// Many at once: JSON list of `{"image": FILE, "prompt": TEXT}`
    #[arg(long, value_name = "FILE", conflicts_with = "image", value_parser = path())]
    pub requests: Option<PathBuf>,
    #[command(flatten)]
    pub search: Search,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Search settings, with the names they have in transformers. What is not given is read from `generation_config.json`.
#[derive(Args, Debug)]
pub struct Search {
    /// Beams; 1 is greedy
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub num_beams: Option<usize>,
    /// Exponent on the length in the score of a finished beam; above 0 favours long answers
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = finite)]
    pub length_penalty: Option<f64>,
    /// Minimum length, with what stands before the new tokens
    #[arg(long, value_name = "N")]
    pub min_length: Option<usize>,
    /// Maximum length, with what stands before the new tokens
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Minimum number of new tokens
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Maximum number of new tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Factor against tokens that are already there; 1 is none
    #[arg(long, value_name = "F", value_parser = positive)]
    pub repetition_penalty: Option<f64>,
    /// End a row with its first NUM_BEAMS finished beams
    #[arg(long)]
    pub early_stopping: bool,
}

impl Search {
    /// Refuses a minimum above its maximum.
    ///
    /// # Errors
    /// Says which two options contradict each other.
    pub fn check(&self) -> Result<(), String> {
        for (what, least, most) in
            [("length", self.min_length, self.max_length), ("new-tokens", self.min_new_tokens, self.max_new_tokens)]
        {
            if let (Some(least), Some(most)) = (least, most)
                && least > most
            {
                return Err(format!(
                    "--min-{what} is {least} and --max-{what} is {most}; the minimum must not be above the maximum"
                ));
            }
        }
        Ok(())
    }

    /// As a job says it.
    pub fn options(&self) -> SearchOptions {
        SearchOptions {
            num_beams: self.num_beams,
            length_penalty: self.length_penalty,
            min_length: self.min_length,
            max_length: self.max_length,
            min_new_tokens: self.min_new_tokens,
            max_new_tokens: self.max_new_tokens,
            repetition_penalty: self.repetition_penalty,
            early_stopping: self.early_stopping.then_some(true),
        }
    }
}

fn at_least<const LEAST: usize>(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n >= LEAST).ok_or_else(|| format!("expected a whole number from {LEAST} up"))
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| "expected a number".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    finite(text).ok().filter(|&n| n > 0.0).ok_or_else(|| "expected a number above 0".to_owned())
}

/// Steps for those who compare ressa with another implementation. Tensors are safetensors files, the rest is JSON.
#[derive(Debug, Subcommand)]
pub enum Lab {
    /// Make `pixel_values` of images
    Preprocess(PreprocessOptions),
    /// Make token ids of a JSON list of texts on standard input: a list of id lists
    Tokenize(TokenizeOptions),
    /// Run the network once, teacher-forced, and write its parts: `vision_last_hidden_state, qformer_query_output, language_model_inputs,
    /// logits, loss`
    Forward(ForwardOptions),
    /// Collect `<name>.sqsum, .sum, .rows` of the inputs of every prunable linear
    Stats(StatsOptions),
    /// Take the perplexity of a text by the language model of a folder, as the code of Wanda and SparseGPT does
    Perplexity(PerplexityOptions),
    /// Write a folder of a published shape with random weights, for capacity and speed trials
    RandomCheckpoint(RandomOptions),
    /// Prune one layer: `weight [out,in]` and `inputs [samples,tokens,in]` in, `keep_mask, weight, importance` out
    PruneLayer(PruneLayerOptions),
    /// Run one layer with a masked adapter: `weight, keep_mask, bias, a, b, x, upstream` in, `y, grad_a, grad_b, merged` out
    SparseLora(SparseLoraOptions),
}

/// Options of `lab prune-layer`. Defaults are the published ones of each method.
#[derive(Args, Debug)]
pub struct PruneLayerOptions {
    /// Safetensors file: `weight` and, where the method looks at activations, `inputs`
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub input: PathBuf,
    /// Method: magnitude, wanda, ria, sparsegpt, alps, dsnot or random
    #[arg(long, value_name = "METHOD", value_parser = |text: &str| text.parse::<Metric>())]
    pub method: Metric,
    /// Fraction removed
    #[arg(long, value_name = "S", required_unless_present = "pattern", conflicts_with = "pattern", value_parser = finite)]
    pub sparsity: Option<f64>,
    /// Kept of every so many inputs, such as 2:4
    #[arg(long, value_name = "K:M", value_parser = |text: &str| text.parse::<Pattern>().map_err(|e| e.to_string()))]
    pub pattern: Option<Pattern>,
    /// Weights that compete [default: that of the method's authors]
    #[arg(long, value_enum, conflicts_with = "pattern")]
    pub group: Option<GroupName>,
    /// When SparseGPT dampens the Gram matrix
    #[arg(long, value_enum, default_value_t = DampingName::Always)]
    pub damping: DampingName,
    /// DSnoT: maximum number of swaps in a row [default: 50]
    #[arg(long, value_name = "N")]
    pub max_cycle: Option<u32>,
    /// DSnoT: errors up to this are left alone [default: 0.1]
    #[arg(long, value_name = "T", value_parser = finite)]
    pub threshold: Option<f64>,
    /// DSnoT: a swap that turns the sign of the error ends a row
    #[arg(long)]
    pub same_sign: bool,
    /// Round counts as decimal arithmetic does, not by truncating the binary product
    #[arg(long)]
    pub decimal: bool,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Damping on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DampingName {
    /// As published
    Always,
    /// Only where the factorisation fails
    OnFailure,
}

/// Options of `lab sparse-lora`.
#[derive(Args, Debug)]
pub struct SparseLoraOptions {
    /// Safetensors file: `weight, keep_mask, a, b, x, upstream` and perhaps `bias`
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub input: PathBuf,
    /// Factor on the product of the adapter's matrices
    #[arg(long, value_name = "S", value_parser = finite)]
    pub scaling: f64,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Options of `lab preprocess`.
#[derive(Args, Debug)]
pub struct PreprocessOptions {
    /// Model folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub model: PathBuf,
    /// Image files
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., value_parser = path())]
    pub images: Vec<PathBuf>,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: PathBuf,
}

/// Options of `lab tokenize`.
#[derive(Args, Debug)]
pub struct TokenizeOptions {
    /// Model folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub model: PathBuf,
    /// With the Q-Former's tokenizer
    #[arg(long)]
    pub qformer: bool,
    /// Without special tokens
    #[arg(long)]
    pub no_special: bool,
}

/// Options of `lab forward`.
#[derive(Args, Debug)]
pub struct ForwardOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Safetensors file: `pixel_values, input_ids, attention_mask, labels[, qformer_input_ids, qformer_attention_mask][, image_grid_thw]
    /// [, pixel_attention_mask][, image_sizes]`
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub inputs: PathBuf,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Options of `lab stats`.
#[derive(Args, Debug)]
pub struct StatsOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// JSON list of `{"image": FILE, "prompt": TEXT, "answer": TEXT}`, run in this order
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub requests: PathBuf,
    /// Have a decoder-only model read the end token of the answer too, as teacher-forced passes of other programs do; no pruning does
    #[arg(long)]
    pub end_token: bool,
    /// Safetensors file to write
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Options of `lab perplexity`.
#[derive(Args, Debug)]
pub struct PerplexityOptions {
    /// Model folder, or a repository that `ressa fetch` has brought
    #[arg(value_name = "DIR", value_parser = path())]
    pub folder: PathBuf,
    /// Text file in UTF-8, tokenized as a whole
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub text: PathBuf,
    /// Tokens of a window; what is left of the text behind the last whole window is not looked at
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least::<2>)]
    pub window: usize,
    /// The first so many windows [default: all]
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub windows: Option<usize>,
    /// Type of the computation: float32, bfloat16 or float16 [default: float32 on a CPU, on a GPU that of the weights]
    #[arg(long, value_name = "TYPE", value_parser = |text: &str| text.parse::<Compute>())]
    pub dtype: Option<Compute>,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Options of `lab random-checkpoint`.
#[derive(Args, Debug)]
pub struct RandomOptions {
    /// Published shape such as `instructblip-flan-t5-xl`, or a `config.json`
    #[arg(long, value_name = "NAME|FILE")]
    pub like: String,
    /// Folder to write, absent or empty
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub output: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Type of the weights: float32, bfloat16 or float16
    #[arg(long, value_name = "TYPE", default_value = "bfloat16", value_parser = |text: &str| text.parse::<Compute>())]
    pub dtype: Compute,
}

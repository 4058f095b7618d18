//! Options of `ressa prune`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ressa_experiment::{
    Pattern,
    config::{Group, Metric, Propagate},
    job::settable,
    settings::SETTINGS,
};

use super::{
    model::{JobMachine, ModelOptions},
    path,
};

/// Prunes a folder in one pass, a block at a time. Killed and started again with the same options, it resumes, on any device.
#[derive(Args, Debug)]
pub struct PruneOptions {
    #[command(flatten)]
    pub model: ModelOptions,
    /// Method: magnitude, wanda, ria, sparsegpt, alps, dsnot or random
    #[arg(long = "metric", value_name = "METHOD", value_parser = |text: &str| text.parse::<Metric>())]
    pub metric: Metric,
    /// `unstructured`, or N:M such as 2:4
    #[arg(long, value_name = "PATTERN", default_value = "unstructured", value_parser = |text: &str| text.parse::<Pattern>())]
    pub pattern: Pattern,
    /// Sparsity of the image encoder; with N:M 0 or what the pattern implies
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = fraction, allow_negative_numbers = true)]
    pub vision: f64,
    /// Sparsity of the connector: the Q-Former, or the linears of LLaVA and Qwen-VL
    #[arg(long, alias = "qformer", value_name = "S", default_value_t = 0.0, value_parser = fraction, allow_negative_numbers = true)]
    pub connector: f64,
    /// Sparsity of the language model
    #[arg(long, value_name = "S", default_value_t = 0.0, value_parser = fraction, allow_negative_numbers = true)]
    pub language: f64,
    /// Weights compared with each other where the pattern is unstructured [default: as published: matrix for magnitude, ria,
    /// sparsegpt and alps, row for the others]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<GroupName>,
    /// How budgets are divided among layers: `uniform`, `owl` (by shares of outliers, counted in a pass of its own), or a YAML file of sparsities
    /// by layer pattern such as `language.0: 0.3`; the other layers fill the budget
    #[arg(long, value_name = "FILE|RULE", default_value = "uniform")]
    pub allocation: String,
    /// A setting by its name in experiment files, such as prune.sparsegpt.damping=on-failure, and again for more
    #[arg(long, value_name = "KEY=VALUE", long_help = settable_help())]
    pub set: Vec<String>,
    /// JSON list of `{"image": FILE, "prompt": TEXT, "answer": TEXT}` or `{"image": FILE, "caption": TEXT}`, in any order; with --data-root
    /// corpora: coco, vg, cc3m, easy-vqa, shapes, or several with commas
    #[arg(long, value_name = "FILE|CORPORA")]
    pub calibration: Option<String>,
    /// Root folder of corpora, as `data.root` of experiments
    #[arg(long, value_name = "DIR", requires = "calibration", requires = "samples", value_parser = path())]
    pub data_root: Option<PathBuf>,
    /// Use so many samples, drawn with the seed; corpora need a number [default: all that are listed]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub samples: Option<usize>,
    /// Inputs from pruned or from dense predecessors
    #[arg(long, value_name = "FLOW", default_value = "pruned")]
    pub propagate: FlowName,
    /// Seed of the draw and of random importance
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Limit of resident host memory, such as 4GiB or 900MB; a limit that cannot be kept is refused with what is needed
    #[arg(long, value_name = "SIZE", value_parser = super::size::size)]
    pub memory_limit: Option<u64>,
    /// Keep activations on the disk even where they fit into memory
    #[arg(long)]
    pub spill: bool,
    /// Activations up to this size stay on the GPU; larger ones are in host memory between two blocks
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = super::size::size)]
    pub device_activations: u64,
    /// Folder to write, absent or empty; an unfinished run is kept beside it, in DIR.partial
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub output: PathBuf,
    #[command(flatten)]
    pub machine: JobMachine,
}

/// Comparison groups that do not need a whole tower at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GroupName {
    /// Each output row for itself
    Row,
    /// The whole matrix
    Matrix,
}

impl From<GroupName> for Group {
    fn from(name: GroupName) -> Self {
        match name {
            GroupName::Row => Group::Row,
            GroupName::Matrix => Group::Matrix,
        }
    }
}

/// What a block sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowName {
    /// Outputs of pruned predecessors
    Pruned,
    /// Outputs of dense predecessors
    Dense,
}

impl From<FlowName> for Propagate {
    fn from(name: FlowName) -> Self {
        match name {
            FlowName::Pruned => Propagate::Pruned,
            FlowName::Dense => Propagate::Dense,
        }
    }
}

/// What `--set` takes, with what it means: the settings of experiments that a single pruning reads.
fn settable_help() -> String {
    let open = SETTINGS.iter().filter(|setting| settable(setting.path).is_ok());
    let mut text = "A setting by its name in experiment files, and again for more:\n".to_owned();
    open.for_each(|setting| text += &format!("\n{}\n    {}", setting.path, setting.doc));
    text
}

fn fraction(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|n| (0.0..1.0).contains(n))
        .ok_or_else(|| "expected a fraction from 0 to below 1".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number from 1 up".to_owned())
}

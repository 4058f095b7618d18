//! Options of the commands that look at model folders and write them.

use std::path::PathBuf;

use clap::Args;
use ressa_experiment::job::Container;

use super::path;

/// Options of `inspect`.
#[derive(Args, Debug)]
pub struct InspectOptions {
    /// Model folder, or one safetensors file
    #[arg(value_name = "DIR|FILE", value_parser = path())]
    pub folder: PathBuf,
    /// Read headers only: no zeros, no patterns, no reading of weights
    #[arg(long)]
    pub headers: bool,
    /// Every block on a line of its own (also with --verbose)
    #[arg(long)]
    pub layers: bool,
}

/// Options of `export`.
#[derive(Args, Debug)]
pub struct ExportOptions {
    /// Run or stage: first digits of its key, or words of a run's label
    #[arg(value_name = "RUN|KEY", required_unless_present = "model", conflicts_with = "model")]
    pub which: Option<String>,
    /// Folder to write; absent or empty
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub output: PathBuf,
    /// A model folder to write again, instead of a run
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub model: Option<PathBuf>,
    /// Maximum size of a file of weights, such as 5GB or 800MB; without it the files stay as in the source folder
    #[arg(long, value_name = "SIZE", value_parser = super::size::size)]
    pub max_shard_size: Option<u64>,
    /// Leave heads, channels and blocks that a step `structure` removed as zeros (queries cannot be); without it, the folder is that of the smaller model
    #[arg(long, conflicts_with = "model")]
    pub full_size: bool,
    /// How pruned linears are stored: dense, bitmask (values that are not zero, and a bit for every place) or 2:4 (for those that follow it; others
    /// stay dense)
    #[arg(long, value_name = "FORMAT", default_value = "dense", value_parser = |text: &str| text.parse::<Container>())]
    pub format: Container,
    #[command(flatten)]
    pub selection: super::Selection,
    #[command(flatten)]
    pub machine: super::model::JobMachine,
}

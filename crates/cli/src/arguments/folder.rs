//! Options of the commands that look at model folders and write them.

use std::path::PathBuf;

use clap::Args;

/// Options of `inspect`.
#[derive(Args, Debug)]
pub struct InspectOptions {
    /// Model folder, or one safetensors file
    #[arg(value_name = "DIR|FILE")]
    pub folder: PathBuf,
    /// Read headers only: no zeros, no patterns, no reading of weights
    #[arg(long)]
    pub headers: bool,
    /// Every block on a line of its own (also with --verbose)
    #[arg(long)]
    pub layers: bool,
}

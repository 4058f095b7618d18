//! Options of `bench-kernels`.

use std::path::PathBuf;

use clap::Args;
use ressa_experiment::job::Compute;

use super::{model::JobMachine, path};

/// Options of `bench-kernels`.
#[derive(Args, Debug)]
pub struct BenchKernelsOptions {
    /// Model folder, or a published shape such as `instructblip-flan-t5-xl`
    #[arg(value_name = "DIR|NAME", value_parser = path())]
    pub model: PathBuf,
    /// Columns that are multiplied at once: tokens of a batch
    #[arg(long = "batch", value_name = "N", value_delimiter = ',', default_values_t = [1, 8, 32, 128, 512],
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batches: Vec<u32>,
    /// Share of zeros, anywhere, for the kernel of compressed rows [default: two of every four, for the 2:4 kernels of a GPU too]
    #[arg(long, value_name = "S", value_parser = share)]
    pub sparsity: Option<f64>,
    /// Type of weights and inputs: float32, bfloat16 or float16 [default: float32 on a CPU, bfloat16 on a GPU]
    #[arg(long, value_name = "TYPE", value_parser = |text: &str| text.parse::<Compute>())]
    pub dtype: Option<Compute>,
    #[command(flatten)]
    pub machine: JobMachine,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| "expected a number from 0 to below 1".to_owned())
}

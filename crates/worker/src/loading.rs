//! What the command line says about loading.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};
use ressa_pipeline::Loading;
use ressa_store::Cache;

/// How data reaches the device.
#[derive(Args, Debug)]
pub struct LoadingArguments {
    /// Folder in which preprocessed pixels and image features of published data are kept for other runs.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Largest size of that folder, in bytes.
    #[arg(long, default_value_t = 20_000_000_000)]
    cache_bytes: u64,
    /// Training batches and loads of images made ahead.
    #[arg(long)]
    prefetch: Option<usize>,
    /// How prompts of an evaluation share batches.
    #[arg(long, value_parser = PossibleValuesParser::new(["exact", "padded"]))]
    batching: Option<String>,
}

impl From<LoadingArguments> for Loading {
    fn from(arguments: LoadingArguments) -> Self {
        Self {
            ahead: arguments.prefetch,
            padded: arguments.batching.map(|batching| batching == "padded"),
            cache: arguments.cache.map(|folder| Cache::new(folder, arguments.cache_bytes)),
        }
    }
}

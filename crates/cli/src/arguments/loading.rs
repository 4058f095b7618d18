//! How workers load data and what they keep of it.

use std::path::Path;

use clap::Args;

/// Options of loading.
#[derive(Args, Clone, Debug)]
pub struct LoadingOptions {
    /// Size limit of results/cache, such as 50GB, where preprocessed pixels and image features of published data, and
    /// outputs of distillation's teachers, are kept for other runs
    #[arg(long, value_name = "SIZE", default_value = "20GB", value_parser = super::size::cache_size)]
    pub cache: u64,
    /// Keep and use no such cache
    #[arg(long, conflicts_with = "cache")]
    pub no_cache: bool,
    /// Training batches and loads of images made ahead of the computation [default: 3 for a GPU, 0 for a CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub prefetch: Option<u16>,
    /// How prompts of an evaluation share batches: `exact` (equal lengths) or `padded` (full batches; answers may differ
    /// where rounding decides) [default: padded on a GPU, exact on a CPU]
    #[arg(long, value_name = "HOW", value_parser = ["exact", "padded"])]
    pub batching: Option<String>,
}

impl Default for LoadingOptions {
    /// As if nothing was said.
    fn default() -> Self {
        Self { cache: DEFAULT_CACHE, no_cache: false, prefetch: None, batching: None }
    }
}

impl LoadingOptions {
    /// The worker's arguments for these options. `results` is the folder of the cache's folder.
    pub fn worker_arguments(&self, results: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if !self.no_cache {
            add("--cache", results.join(CACHE).display().to_string());
            add("--cache-bytes", self.cache.to_string());
        }
        if let Some(prefetch) = self.prefetch {
            add("--prefetch", prefetch.to_string());
        }
        if let Some(batching) = &self.batching {
            add("--batching", batching.clone());
        }
        arguments
    }
}

/// Size limit of the cache in bytes, unless `--cache` says otherwise.
pub const DEFAULT_CACHE: u64 = 20_000_000_000;

/// The cache's folder in a results folder.
pub const CACHE: &str = "cache";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        loading: LoadingOptions,
    }

    fn arguments(line: &[&str]) -> Vec<String> {
        let line = Line::try_parse_from([&["sweep"][..], line].concat()).unwrap();
        line.loading.worker_arguments(Path::new("/results"))
    }

    #[test]
    fn nothing_said_is_the_default() {
        let line = Line::try_parse_from(["sweep"]).unwrap().loading;
        let default = LoadingOptions::default();
        assert_eq!(line.worker_arguments(Path::new("/r")), default.worker_arguments(Path::new("/r")));
    }

    #[test]
    fn the_worker_is_told_what_the_options_say() {
        assert_eq!(arguments(&[]), ["--cache", "/results/cache", "--cache-bytes", "20000000000"]);
        let all = ["--no-cache", "--prefetch", "0", "--batching", "padded"];
        assert_eq!(arguments(&all), all[1..]);
        assert!(Line::try_parse_from(["sweep", "--no-cache", "--cache", "1GB"]).is_err());
    }
}

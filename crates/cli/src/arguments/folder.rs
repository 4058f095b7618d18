//! Options of the commands that look at model folders and write them.

use std::path::PathBuf;

use clap::Args;

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
    /// Largest file of weights, such as 5GB or 800MB; without it the files stay as in the source folder
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub max_shard_size: Option<u64>,
    #[command(flatten)]
    pub selection: super::Selection,
    #[command(flatten)]
    pub machine: super::model::JobMachine,
}

/// A size in bytes with a unit as transformers reads it: powers of ten, or of two with an `i`.
fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let upper = text.trim().to_uppercase();
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(name, unit)| Some((upper.strip_suffix(name)?.trim(), unit)))
        .unwrap_or((upper.as_str(), 1));
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|&size| size > 0);
    size.ok_or_else(|| format!("`{text}` is not a size; write it as 5GB, 800MB or 2GiB"))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        let read = ["5GB", "800 mb", "2GiB", "17", "1.5GB", "0", "99999999999GB", "GB"].map(|text| bytes(text).ok());
        assert_eq!(read, [Some(5_000_000_000), Some(800_000_000), Some(2 << 30), Some(17), None, None, None, None]);
    }
}

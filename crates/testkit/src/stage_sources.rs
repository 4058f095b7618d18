//! Digests of the sources behind each stage, recorded beside the stages' versions.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

/// What was recorded for a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Version of the stage.
    pub version: u32,
    /// Digest of its sources.
    pub digest: String,
}

/// Files of `pipeline` behind every stage, beside the stage's own.
const SHARED: [&str; 9] = [
    "pipeline/src/calibration.rs",
    "pipeline/src/changes.rs",
    "pipeline/src/features.rs",
    "pipeline/src/resident.rs",
    "pipeline/src/samples.rs",
    "pipeline/src/samples/corpora.rs",
    "pipeline/src/samples/draw.rs",
    "pipeline/src/samples/world.rs",
    "pipeline/src/teaching.rs",
];

/// Crates whose sources decide a stage's numbers. `runtime` has the optimiser and the random streams; an evaluation merges again.
fn crates(stage: &str) -> &'static [&'static str] {
    match stage {
        "dense" => &["pretrain", "models", "data", "runtime"],
        "rescale" => &["checkpoint", "models", "runtime"],
        "prune" | "refine" | "sensitivity" | "statistics" | "structure" => &["prune", "models", "data", "runtime"],
        "reconstruct" => &["prune", "restore", "models", "data", "runtime"],
        "adapt" => &["restore", "models", "data", "runtime"],
        "merge" => &["restore", "models", "data"],
        _ => &["eval", "restore", "models", "data"],
    }
}

/// Digest of the sources behind a stage as they are now. Comments count too: the record is a question, not an answer.
pub fn current(stage: &str) -> String {
    let crates_folder = root().join("crates");
    let mut files: Vec<PathBuf> = crates(stage)
        .iter()
        .flat_map(|name| WalkDir::new(crates_folder.join(name).join("src")).into_iter().flatten())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    files.extend(SHARED.map(|file| crates_folder.join(file)));
    files.push(crates_folder.join(format!("pipeline/src/{stage}.rs")));
    // Where the budget is divided, where files are named, and where stored statistics are read.
    let beside: &[&str] = match stage {
        "prune" => &["sensitivity", "statistics"],
        "refine" => &["prune", "statistics"],
        "reconstruct" => &["prune"],
        _ => &[],
    };
    files.extend(beside.iter().map(|file| crates_folder.join(format!("pipeline/src/{file}.rs"))));
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.strip_prefix(&crates_folder).unwrap_or(&file).to_string_lossy().as_bytes());
        hasher.update(&fs::read(&file).unwrap_or_default());
    }
    hasher.finalize().to_hex().to_string()
}

/// What is recorded, by stage.
pub fn recorded() -> io::Result<BTreeMap<String, Recorded>> {
    let text = fs::read_to_string(path())?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

/// Records digests.
pub fn write(recorded: &BTreeMap<String, Recorded>) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(recorded).map_err(io::Error::other)?;
    text.push('\n');
    fs::write(path(), text)
}

fn path() -> PathBuf {
    root().join("crates/experiment/stage-sources.json")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

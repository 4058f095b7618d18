//! What a sweep needs and the disk does not have: files of checkpoints and benchmarks, one by one.

use std::path::Path;

use ressa_experiment::{Stage, config::DataSource};
use ressa_sweep::{Graph, Inventory};
use serde::Serialize;

/// A file or folder that is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// Its path.
    pub path: String,
    /// What it holds, and where it comes from.
    pub what: String,
}

/// What the stages still to be made lack. Relative paths start at `root`.
pub fn missing(graph: &Graph, inventory: &Inventory, root: &Path) -> Vec<Missing> {
    let mut list = Vec::new();
    for (stage, present) in graph.stages.iter().zip(&inventory.present) {
        if *present {
            continue;
        }
        match &stage.node.stage {
            Stage::Dense { checkpoint: Some(folder), .. } => checkpoint(&root.join(folder), &mut list),
            Stage::Evaluate { task, data, .. } if data.source == DataSource::Folder => match &data.root {
                None => list.push(Missing { path: "data.root".to_owned(), what: "root folder of the benchmarks".to_owned() }),
                Some(folder) => {
                    let folder = root.join(folder);
                    list.extend(ressa_data::published::missing(&folder, *task).into_iter().map(|file| Missing {
                        path: folder.join(file.path).display().to_string(),
                        what: format!("{task}: {}", file.holds),
                    }));
                }
            },
            _ => {}
        }
    }
    list.sort();
    list.dedup();
    list
}

/// What a Hugging Face checkpoint folder lacks.
fn checkpoint(folder: &Path, list: &mut Vec<Missing>) {
    let mut lacks = |name: &str, what: &str| {
        list.push(Missing { path: folder.join(name).display().to_string(), what: format!("checkpoint: {what}") });
    };
    for (name, what) in [
        ("config.json", "architecture"),
        ("preprocessor_config.json", "image preprocessing"),
        ("tokenizer.json", "tokenizer of the language model"),
        ("qformer_tokenizer/tokenizer.json", "tokenizer of the Q-Former"),
    ] {
        if !folder.join(name).is_file() {
            lacks(name, what);
        }
    }
    if folder.join("model.safetensors").is_file() {
        return;
    }
    let Ok(index) = std::fs::read(folder.join("model.safetensors.index.json")) else {
        let pickled = folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists();
        let hint = if pickled { "; the pickled weights beside it are not read" } else { "" };
        lacks("model.safetensors", &format!("weights (or model.safetensors.index.json and its shards{hint})"));
        return;
    };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap_or_default();
    let mut shards: Vec<&str> = index["weight_map"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_str()).collect();
    shards.sort_unstable();
    shards.dedup();
    if shards.is_empty() {
        lacks("model.safetensors.index.json", "the index names no shard");
    }
    for shard in shards {
        // A name from a file is never followed out of the folder.
        if Path::new(shard).components().count() != 1 || !folder.join(shard).is_file() {
            lacks(shard, "shard of the weights");
        }
    }
}

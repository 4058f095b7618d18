//! What a sweep needs and the disk does not have: files of checkpoints and benchmarks, one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use ressa_experiment::{Stage, config::DataSource};
use ressa_sweep::{Graph, Inventory};
use serde::Serialize;

/// A file or folder that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Its path, relative to the root where it lies below.
    pub path: String,
    /// Who needs it and what it holds.
    pub what: Vec<String>,
}

/// What the stages still to be made lack. Relative paths start at `root`.
pub fn missing(graph: &Graph, inventory: &Inventory, root: &Path) -> Vec<Missing> {
    let mut list = List { root, files: BTreeMap::new() };
    for (stage, present) in graph.stages.iter().zip(&inventory.present) {
        if *present {
            continue;
        }
        match &stage.node.stage {
            Stage::Dense { checkpoint: Some(folder), .. } => checkpoint(&root.join(folder), &mut list),
            Stage::Evaluate { task, data, .. } if data.source == DataSource::Folder => match &data.root {
                None => list.lacks(Path::new("data.root"), "the experiment names no root folder of the benchmarks"),
                Some(folder) => {
                    let folder = root.join(folder);
                    for file in ressa_data::published::missing(&folder, *task) {
                        list.lacks(&folder.join(file.path), &format!("{task}: {}", file.holds));
                    }
                }
            },
            _ => {}
        }
    }
    list.files.into_iter().map(|(path, what)| Missing { path, what: what.into_iter().collect() }).collect()
}

/// Missing files, each once however many stages need it.
struct List<'a> {
    root: &'a Path,
    files: BTreeMap<String, BTreeSet<String>>,
}

impl List<'_> {
    fn lacks(&mut self, path: &Path, what: &str) {
        let path = path.strip_prefix(self.root).unwrap_or(path).display().to_string();
        self.files.entry(path).or_default().insert(what.to_owned());
    }
}

/// What a Hugging Face checkpoint folder lacks.
fn checkpoint(folder: &Path, list: &mut List<'_>) {
    let mut lacks = |name: &str, what: &str| list.lacks(&folder.join(name), &format!("checkpoint: {what}"));
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
    let map = index["weight_map"].as_object();
    let shards: BTreeSet<&str> = map.into_iter().flatten().filter_map(|(_, shard)| shard.as_str()).collect();
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

//! What a sweep needs and the disk does not have: files of checkpoints and benchmarks, one by one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ressa_data::published;
use ressa_experiment::{
    Stage, Task,
    config::{CorporaConfig, DataConfig, DataSource},
    json::without_mark,
};
use ressa_sweep::{Graph, Inventory};
use serde::Serialize;

/// A file or folder that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Its absolute path, as it was looked for.
    pub path: String,
    /// Who needs it and what it holds.
    pub what: Vec<String>,
}

/// What the stages still to be made lack. Relative paths start at `root`.
pub fn missing(graph: &Graph, inventory: &Inventory, root: &Path) -> Vec<Missing> {
    let root = &std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let mut list = List { root, files: BTreeMap::new() };
    for (stage, present) in graph.stages.iter().zip(&inventory.present) {
        if *present {
            continue;
        }
        match &*stage.node.stage {
            Stage::Dense { checkpoint: Some(folder), .. } => checkpoint(&root.join(folder), "checkpoint", &mut list),
            Stage::Prune { data: Some(data), .. }
            | Stage::Sensitivity { data, .. }
            | Stage::Statistics { data, .. } => list.corpora(data, &data.calibration),
            Stage::Adapt { data, .. } => list.corpora(data, &data.restoration),
            Stage::Evaluate { task, data, retrieval, .. } => {
                if let Some(folder) = retrieval.as_ref().and_then(|retrieval| retrieval.checkpoint.as_ref()) {
                    checkpoint(&root.join(folder), "evaluate.retrieval.checkpoint", &mut list);
                }
                list.benchmark(data, *task);
            }
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
    /// The root of published data; nothing for the embedded world.
    fn folder(&mut self, data: &DataConfig) -> Option<PathBuf> {
        if data.source != DataSource::Folder {
            return None;
        }
        if data.root.is_none() {
            self.lacks(Path::new("data.root"), "the experiment names no root folder of the benchmarks");
        }
        data.root.as_ref().map(|folder| self.root.join(folder))
    }

    fn benchmark(&mut self, data: &DataConfig, task: Task) {
        let Some(folder) = self.folder(data) else { return };
        for file in published::missing(&folder, task) {
            self.lacks(&folder.join(file.path), &format!("{task}: {}", file.holds));
        }
    }

    fn corpora(&mut self, data: &DataConfig, config: &CorporaConfig) {
        let Some(folder) = self.folder(data) else { return };
        for corpus in &config.corpora {
            for file in published::missing_of_corpus(&folder, *corpus) {
                self.lacks(&folder.join(file.path), &format!("corpus {}: {}", corpus.name(), file.holds));
            }
        }
    }

    fn lacks(&mut self, path: &Path, what: &str) {
        self.files.entry(path.display().to_string()).or_default().insert(what.to_owned());
    }
}

/// What a Hugging Face checkpoint folder lacks; `who` needs it.
fn checkpoint(folder: &Path, who: &str, list: &mut List<'_>) {
    let mut lacks = |name: &str, what: &str| list.lacks(&folder.join(name), &format!("{who}: {what}"));
    for (name, what) in [
        ("config.json", "architecture"),
        ("preprocessor_config.json", "image preprocessing"),
        ("tokenizer.json", "tokenizer of the language model"),
    ] {
        if !folder.join(name).is_file() {
            lacks(name, what);
        }
    }
    // Only InstructBLIP's Q-Former reads text with a tokenizer of its own.
    const QFORMER: &str = "qformer_tokenizer/tokenizer.json";
    let config = std::fs::read(folder.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(without_mark(&config)).unwrap_or_default();
    if config["model_type"] == "instructblip" && !folder.join(QFORMER).is_file() {
        lacks(QFORMER, "tokenizer of the Q-Former");
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
    let index: serde_json::Value = serde_json::from_slice(without_mark(&index)).unwrap_or_default();
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

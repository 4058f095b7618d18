//! What a sweep needs and the disk does not have: files of checkpoints and benchmarks, one by one, and checkpoints that cannot be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use ressa_checkpoint::{CheckpointError, INDEX, SINGLE, WeightFiles, absent_pieces, companions, problems, read_config};
use ressa_contents::Contents;
use ressa_data::{Processor, pool, published};
use ressa_experiment::{
    Stage, Task,
    config::{CorporaConfig, DataConfig, DataSource},
};
use ressa_store::Store;
use ressa_sweep::{Graph, Inventory};
use serde::Serialize;

/// A file or folder that is not there.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// Its absolute path, as it was looked for.
    pub path: String,
    /// Who needs it and what it holds; what is wrong with a folder that is there.
    pub what: Vec<String>,
    /// Whether it is there and cannot be used.
    pub unusable: bool,
}

/// What the stages still to be made lack. Relative paths start at `root`.
pub fn missing(graph: &Graph, inventory: &Inventory, store: &Store, root: &Path) -> Vec<Missing> {
    let root = &std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
    let contents = Contents::new(store, root);
    let mut list = List {
        root,
        contents: &contents,
        files: BTreeMap::new(),
        unusable: BTreeMap::new(),
        seen: BTreeSet::new(),
        benchmarks: BTreeSet::new(),
    };
    for (stage, present) in graph.stages.iter().zip(&inventory.present) {
        if *present {
            continue;
        }
        match &*stage.node.stage {
            Stage::Dense { checkpoint: Some(folder), .. } => checkpoint(&root.join(folder), "checkpoint", &mut list),
            Stage::Prune { data: Some(data), .. }
            | Stage::Structure { data: Some(data), .. }
            | Stage::Sensitivity { data, .. }
            | Stage::Statistics { data, .. }
            | Stage::Refine { data, .. }
            | Stage::Reconstruct { data, .. } => list.corpora(data, &data.calibration),
            Stage::Adapt { data, training, .. } => {
                if let Some(folder) = training.distill.as_ref().and_then(|distill| distill.teacher.as_ref()) {
                    checkpoint(&root.join(folder), "restore.distill.teacher", &mut list);
                }
                list.corpora(data, &data.restoration);
            }
            Stage::Evaluate { task, data, retrieval, aids, .. } => {
                if let Some(folder) = retrieval.as_ref().and_then(|retrieval| retrieval.checkpoint.as_ref()) {
                    checkpoint(&root.join(folder), "evaluate.retrieval.checkpoint", &mut list);
                }
                let mut is_whole = true;
                if let Some(retrieved) = aids.as_ref().and_then(|aids| aids.retrieved.as_ref()) {
                    if let Some(folder) = &retrieved.checkpoint {
                        checkpoint(&root.join(folder), "evaluate.retrieved.checkpoint", &mut list);
                    }
                    is_whole = list.captions(data, &pool::corpora(retrieved));
                }
                match &data.text {
                    Some(text) if !root.join(text).is_file() => {
                        list.lacks(&root.join(text), &format!("{task}: the text"))
                    }
                    Some(_) => {}
                    None => list.benchmark(&stage.node.stage, data, *task, is_whole),
                }
            }
            _ => {}
        }
    }
    let told = |unusable: bool| {
        move |(path, what): (String, BTreeSet<String>)| Missing { path, what: what.into_iter().collect(), unusable }
    };
    list.files.into_iter().map(told(false)).chain(list.unusable.into_iter().map(told(true))).collect()
}

/// Missing files, each once however many stages need it.
struct List<'a> {
    root: &'a Path,
    contents: &'a Contents<'a>,
    files: BTreeMap<String, BTreeSet<String>>,
    /// Checkpoint folders that are complete and cannot be used.
    unusable: BTreeMap<String, BTreeSet<String>>,
    /// Checkpoint folders that were looked at, by who needs them.
    seen: BTreeSet<(PathBuf, &'static str)>,
    /// Benchmarks that were looked at: root, task, items.
    benchmarks: BTreeSet<(PathBuf, Task, u32)>,
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

    /// Files of a benchmark; its images only where `is_whole`: all annotations beside its own are there, with which they are looked for.
    fn benchmark(&mut self, stage: &Stage, data: &DataConfig, task: Task, is_whole: bool) {
        let Some(folder) = self.folder(data) else { return };
        let items = if let Stage::Evaluate { items, .. } = stage { *items } else { 0 };
        if is_whole && !self.benchmarks.insert((folder.clone(), task, items)) {
            return;
        }
        let missing = published::missing(&folder, task);
        for file in &missing {
            self.lacks(&folder.join(file.path), &format!("{task}: {}", file.holds));
        }
        if missing.is_empty() && is_whole {
            self.images(stage, &folder, task);
        }
    }

    /// Images of a benchmark whose annotations are there, each of them.
    fn images(&mut self, stage: &Stage, folder: &Path, task: Task) {
        /// Images that are named; of more, their number is said.
        const NAMED: usize = 4;
        match self.contents.missing(stage, folder) {
            Ok(absent) => {
                let rest = absent.len().saturating_sub(NAMED);
                for (number, path) in absent.iter().take(NAMED).enumerate() {
                    let more = if rest > 0 && number + 1 == NAMED {
                        format!("; {rest} more are missing")
                    } else {
                        String::new()
                    };
                    self.lacks(path, &format!("{task}: image{more}"));
                }
            }
            Err(error) => {
                let what = BTreeSet::from([format!("{task}: {error}")]);
                self.unusable.entry(folder.display().to_string()).or_default().extend(what);
            }
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

    /// Captions of corpora, which are read without their images; whether all are there.
    fn captions(&mut self, data: &DataConfig, config: &CorporaConfig) -> bool {
        let Some(folder) = self.folder(data) else { return true };
        let mut is_whole = true;
        for corpus in &config.corpora {
            for file in published::missing_annotations(&folder, *corpus) {
                is_whole = false;
                self.lacks(&folder.join(file.path), &format!("corpus {}: {}", corpus.name(), file.holds));
            }
        }
        is_whole
    }

    fn lacks(&mut self, path: &Path, what: &str) {
        self.files.entry(path.display().to_string()).or_default().insert(what.to_owned());
    }
}

/// What a Hugging Face checkpoint folder lacks, or what is wrong with one that lacks nothing; `who` needs it.
fn checkpoint(folder: &Path, who: &'static str, list: &mut List<'_>) {
    if !list.seen.insert((folder.to_owned(), who)) {
        return;
    }
    let before = list.files.len();
    let mut lacks = |name: &str, what: &str| list.lacks(&folder.join(name), &format!("{who}: {what}"));
    // A configuration that cannot be read is said below.
    let config = read_config(folder).ok();
    for file in companions(folder, config.as_ref()).into_iter().filter(|file| file.required && !file.present) {
        lacks(file.name, file.holds);
    }
    let absent = absent_pieces(folder);
    if !absent.is_empty() {
        absent.iter().for_each(|name| lacks(name, "shard of the weights"));
    } else if let Err(error) = WeightFiles::find(folder) {
        let (name, what) = match error {
            CheckpointError::File { path, reason } if path != folder => {
                (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), reason)
            }
            CheckpointError::File { reason, .. } if folder.is_dir() => {
                (SINGLE.to_owned(), format!("weights: {reason}"))
            }
            _ => (SINGLE.to_owned(), format!("weights (or {INDEX} and its shards)")),
        };
        lacks(&name, &what);
    }
    if list.files.len() == before {
        let texts = Processor::load(folder).err().map(|error| error.to_string());
        let problems = problems(folder).into_iter().chain(texts).map(|problem| format!("{who}: {problem}"));
        let problems: BTreeSet<String> = problems.collect();
        if !problems.is_empty() {
            list.unusable.entry(folder.display().to_string()).or_default().extend(problems);
        }
    }
}

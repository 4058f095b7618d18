//! What can be known of a sweep before it runs, beside files that are missing: settings that the model cannot follow, and fewer samples than are
//! asked for. Needs configurations, annotations and the headers of weights.

mod arithmetic;
mod model;
mod removal;
mod samples;
mod teaching;
mod widths;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Checkpoint, names, preset_config, published_config, read_config};
use ressa_contents::Contents;
use ressa_data::{Processor, perturb::sentinel};
use ressa_experiment::{Experiment, Stage, StageKey, expand::IdleStep};
use ressa_store::Store;
use ressa_sweep::{Graph, GraphStage, Inventory};
use serde::Serialize;

use crate::{
    exit::Exit,
    missing::Missing,
    text::{count, say},
};
use model::Network;

/// A setting that no stage could follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Its path in experiment files.
    pub setting: String,
    /// What is wrong, and what to do.
    pub what: String,
}

/// What is known before a sweep.
#[derive(Debug, Default)]
pub struct Preflight {
    /// What keeps it from running.
    pub problems: BTreeSet<Problem>,
    /// What it does otherwise than one might expect, by setting.
    pub notes: BTreeSet<Problem>,
}

impl Preflight {
    /// Looks at the stages that are still to be made. Relative paths start at `root`.
    pub fn of(graph: &Graph, inventory: &Inventory, store: &Store, root: &Path) -> Self {
        let mut found = Self::default();
        let mut networks: HashMap<StageKey, Option<Network>> = HashMap::new();
        let mut draws = BTreeMap::new();
        let mut gapless: HashMap<StageKey, bool> = HashMap::new();
        let mut compared = teaching::Compared::new();
        let mut headless: BTreeMap<PathBuf, bool> = BTreeMap::new();
        let contents = Contents::new(store, root);
        for (stage, _) in graph.stages.iter().zip(&inventory.present).filter(|(_, present)| !**present) {
            samples::look(&stage.node.stage, &contents, root, &mut draws, &mut found);
            for (setting, folder) in comparing(&stage.node.stage) {
                if *headless.entry(root.join(folder)).or_insert_with_key(|folder| is_headless(folder)) {
                    let what = format!(
                        "the model in `{}` has no head that compares images and texts (tensor `{}`); name the folder of a BLIP-2 image-text matching model",
                        folder.display(),
                        names::COMPARES
                    );
                    found.problem(setting, what);
                }
            }
            let Some(dense) = dense_of(graph, stage) else { continue };
            let network = networks.entry(dense.node.key).or_insert_with(|| network(dense, store, root));
            if let Some(network) = network {
                let removed = |tower| widths::removals(graph, stage, tower);
                network.look(&stage.node.stage, &removed, &mut found);
                removal::look(&stage.node.stage, &removed, network, &mut found);
                let denoises =
                    matches!(&*stage.node.stage, Stage::Evaluate { aids: Some(aids), .. } if aids.denoises());
                if denoises
                    && network.has_encoder()
                    && *gapless.entry(dense.node.key).or_insert_with(|| is_gapless(dense, root))
                {
                    let what = format!(
                        "the tokenizer of this model has no token `{}`, which stands for a gap that a T5 fills; set it to masked or removed",
                        sentinel(0)
                    );
                    found.problem("evaluate.smoothing.method", what);
                }
            }
            if let Stage::Adapt { training, .. } = &*stage.node.stage {
                teaching::teacher(training, dense, (store, root), &mut compared, &mut found);
            }
        }
        found
    }

    /// Notes listed steps that change nothing.
    pub fn note_steps(&mut self, experiments: &[Experiment]) {
        for IdleStep { name, why } in experiments.iter().flat_map(|experiment| &experiment.idle_steps) {
            self.note(format!("steps.{name}"), format!("this step changes nothing: {why}"));
        }
    }

    /// Notes what this machine's processor is slow at, where it is one of the `workers` (devices, by their names).
    pub fn note_arithmetic(&mut self, graph: &Graph, inventory: &Inventory, workers: &[String]) {
        if workers.iter().any(|device| device == "cpu") {
            arithmetic::look(graph, inventory, arithmetic::is_fast_in_two_bytes(), self);
        }
    }

    fn problem(&mut self, setting: impl Into<String>, what: impl Into<String>) {
        self.problems.insert(Problem { setting: setting.into(), what: what.into() });
    }

    fn note(&mut self, setting: impl Into<String>, what: impl Into<String>) {
        self.notes.insert(Problem { setting: setting.into(), what: what.into() });
    }

    /// Prints all of it.
    pub fn print(&self) {
        for (head, list) in [("\ncannot be run", &self.problems), ("\nnote", &self.notes)] {
            if !list.is_empty() {
                say(head);
            }
            list.iter().for_each(|Problem { setting, what }| say(format_args!("  {setting}: {what}")));
        }
    }
}

/// Why a sweep could not run, with the code that it would end with; `None` where it could.
pub fn refusal(lacking: &[Missing], preflight: &Preflight) -> Option<(Exit, String)> {
    if let Some(first) = lacking.first() {
        let (how, exit) = match first.unusable {
            false => ("is missing", Exit::MissingInput),
            true => ("cannot be used", Exit::Unusable),
        };
        let more = more(lacking.len(), "file");
        let what = first.what.join("; ");
        return Some((exit, format!("`{}` {how} ({what}){more}; `ressa plan` lists what a sweep needs", first.path)));
    }
    let Problem { setting, what } = preflight.problems.first()?;
    let more = more(preflight.problems.len(), "problem");
    Some((Exit::BadExperiment, format!("`{setting}`: {what}{more}; nothing was run")))
}

fn more(all: usize, what: &str) -> String {
    if all > 1 { format!(", and {} more", count(all - 1, what)) } else { String::new() }
}

/// The dense model behind a stage: trained, or a folder.
fn dense_of<'g>(graph: &'g Graph, stage: &'g GraphStage) -> Option<&'g GraphStage> {
    match &*stage.node.stage {
        Stage::Dense { .. } => Some(stage),
        _ => dense_of(graph, &graph.stages[graph.position(stage.node.inputs.dense.as_ref()?)?]),
    }
}

/// The models that compare images and texts beside the evaluated one, by their settings.
fn comparing(stage: &Stage) -> impl Iterator<Item = (&'static str, &PathBuf)> {
    let (retrieval, aids) = match stage {
        Stage::Evaluate { retrieval, aids, .. } => (retrieval.as_ref(), aids.as_ref()),
        _ => (None, None),
    };
    let retrieval = retrieval.and_then(|retrieval| retrieval.checkpoint.as_ref());
    let retrieved = aids.and_then(|aids| aids.checkpoint());
    let named = [("evaluate.retrieval.checkpoint", retrieval), ("evaluate.retrieved.checkpoint", retrieved)];
    named.into_iter().filter_map(|(setting, folder)| Some((setting, folder?)))
}

/// Whether the tensors of a folder are there, and none of them compares images and texts.
fn is_headless(folder: &Path) -> bool {
    Checkpoint::open(folder).is_ok_and(|tensors| tensors.get(names::COMPARES).is_none())
}

/// Whether the tokenizer of a published folder has no word for a gap in a text; one that cannot be read is said with the files.
fn is_gapless(dense: &GraphStage, root: &Path) -> bool {
    let Stage::Dense { checkpoint: Some(folder), .. } = &*dense.node.stage else { return false };
    Processor::load(&root.join(folder)).is_ok_and(|processor| processor.id(&sentinel(0)).is_none())
}

/// The network of a dense model: from its configuration, or where there is none from the name of its folder.
fn network(dense: &GraphStage, store: &Store, root: &Path) -> Option<Network> {
    let mut tensors = None;
    let config = match &*dense.node.stage {
        Stage::Dense { checkpoint: Some(folder), .. } => {
            let folder = root.join(folder);
            let name = folder.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            tensors = Checkpoint::open(&folder).ok();
            read_config(&folder).ok().or_else(|| published_config(&name))?
        }
        Stage::Dense { preset, .. } => {
            let trained = store.entry(&dense.node.key.hex()).ok().flatten();
            let trained = trained.and_then(|entry| read_config(&entry.folder().join("model")).ok());
            trained.or_else(|| preset.map(preset_config))?
        }
        _ => return None,
    };
    let head = tensors.map(|tensors| tensors.get(names::COMPARES).is_some());
    Some(Network::of(config)?.with_head(head))
}

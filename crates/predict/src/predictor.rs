//! From the stages of a plan to what each will take.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use ressa_experiment::{Stage, StageKey, StageNode, Tower, job::Compute};

use crate::{
    Card, Model, PredictError, Prediction,
    stage::{Subject, predict},
    work::Machine,
};

/// The machine around a card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// Cores of a worker.
    pub cores: u32,
    /// Whether products of f32 use TF32.
    pub tf32: bool,
}

/// Predicts stages of a plan. All that they read must be among its nodes.
pub struct Predictor<'a> {
    nodes: HashMap<&'a StageKey, &'a StageNode>,
    /// Models by their folders.
    models: HashMap<PathBuf, Model>,
    /// Folders of dense models by the keys of their stages.
    folders: HashMap<&'a StageKey, PathBuf>,
    root: &'a Path,
}

impl<'a> Predictor<'a> {
    /// A predictor of a plan's stages. Relative paths of checkpoints start at `root`; `trained` says where the folder of a trained dense model is, if
    /// it is anywhere.
    ///
    /// # Errors
    /// Checkpoints whose sizes are not known.
    pub fn new(
        nodes: impl IntoIterator<Item = &'a StageNode>,
        root: &'a Path,
        trained: impl Fn(&StageKey) -> Option<PathBuf>,
    ) -> Result<Self, PredictError> {
        let nodes: HashMap<_, _> = nodes.into_iter().map(|node| (&node.key, node)).collect();
        let mut own = Self { nodes, models: HashMap::new(), folders: HashMap::new(), root };
        let all: Vec<&StageNode> = own.nodes.values().copied().collect();
        for node in all {
            match &*node.stage {
                Stage::Dense { checkpoint: Some(folder), .. } => {
                    let folder = root.join(folder);
                    own.open(&folder)?;
                    own.folders.insert(&node.key, folder);
                }
                Stage::Dense { .. } => {
                    if let Some(folder) = trained(&node.key) {
                        own.open(&folder)?;
                        own.folders.insert(&node.key, folder);
                    }
                }
                Stage::Evaluate { retrieval: Some(retrieval), .. } => {
                    if let Some(folder) = &retrieval.checkpoint {
                        own.open(&root.join(folder))?;
                    }
                }
                _ => {}
            }
        }
        Ok(own)
    }

    fn open(&mut self, folder: &Path) -> Result<(), PredictError> {
        if !self.models.contains_key(folder) {
            self.models.insert(folder.to_owned(), Model::at(folder)?);
        }
        Ok(())
    }

    /// The dense stage behind a stage.
    fn dense(&self, node: &'a StageNode) -> Option<&'a StageNode> {
        match &*node.stage {
            Stage::Dense { .. } => Some(node),
            _ => self.dense(self.nodes.get(node.inputs.dense.as_ref()?)?),
        }
    }

    /// The folder of the dense model behind a stage; what tells models apart.
    pub fn folder(&self, node: &'a StageNode) -> Option<&Path> {
        self.folders.get(&self.dense(node)?.key).map(PathBuf::as_path)
    }

    /// What a stage will take on a card; `None` where nothing is known of its model, and for the training of a dense model.
    pub fn stage(&self, node: &'a StageNode, card: &Card, host: Host) -> Option<Prediction> {
        let dense = self.dense(node)?;
        let model = self.models.get(self.folders.get(&dense.key)?)?;
        let is_published = matches!(&*dense.stage, Stage::Dense { checkpoint: Some(_), .. });
        // Where nobody says how to compute: published weights in their type, trained ones in f32.
        let default = if is_published { model.stored } else { Compute::Float32 };
        let compute = node.stage.compute().unwrap_or(default);
        let cores = f64::from(host.cores.max(1));
        let machine = Machine { card, compute, tf32: host.tf32, cores };
        let subject = Subject { model, machine, pruned: self.pruned(node) };
        let matcher = match &*node.stage {
            Stage::Evaluate { retrieval: Some(retrieval), .. } => {
                retrieval.checkpoint.as_ref().and_then(|folder| self.models.get(&self.root.join(folder)))
            }
            _ => None,
        };
        predict(&node.stage, &node.inputs, &subject, matcher)
    }

    /// Towers that the masks behind a stage belong to.
    fn pruned(&self, node: &StageNode) -> Vec<Tower> {
        let merged = node.inputs.merge.as_ref().and_then(|key| self.nodes.get(key));
        let masks = merged.map_or(&node.inputs.masks, |merge| &merge.inputs.masks);
        let tower = |key: &StageKey| match &*self.nodes.get(key)?.stage {
            Stage::Prune { tower, .. } => Some(*tower),
            _ => None,
        };
        masks.iter().filter_map(tower).collect()
    }
}

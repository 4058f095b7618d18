//! From the stages of a plan to what each will take.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use ressa_experiment::{
    Stage, StageKey, StageNode, Tower, config::DataSource, job::Compute, stage::AdaptTraining, structure::remaining,
};

use crate::{
    Card, Model, PredictError, Prediction, Shared,
    evaluation::images_of,
    program::texts,
    shared::Known,
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
                stage @ Stage::Evaluate { .. } => {
                    if let Some(folder) = matcher_of(stage) {
                        own.open(&root.join(folder))?;
                    }
                }
                Stage::Adapt { training, .. } => {
                    if let Some(folder) = teacher(training) {
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

    /// What a stage will take on a card after those that have left `shared` behind; `None` where nothing is known of its model, and for the
    /// training of a dense model.
    pub fn stage(&self, node: &'a StageNode, card: &Card, host: Host, shared: &mut Shared) -> Option<Prediction> {
        let dense = self.dense(node)?;
        let whole = self.models.get(self.folders.get(&dense.key)?)?;
        let queries = self.queries(node, whole.queries);
        let fewer = (queries < whole.queries).then(|| Model { queries, ..whole.clone() });
        let model = fewer.as_ref().unwrap_or(whole);
        let is_published = matches!(&*dense.stage, Stage::Dense { checkpoint: Some(_), .. });
        // Where nobody says how to compute: published weights in their type, trained ones in f32.
        let default = if is_published { model.stored } else { Compute::Float32 };
        let compute = node.stage.compute().unwrap_or(default);
        let cores = f64::from(host.cores.max(1));
        let machine = Machine { card, compute, tf32: host.tf32, cores };
        let merged = node.inputs.merge.is_some();
        let subject = Subject { model, machine, pruned: self.pruned(node), merged };
        let other = match &*node.stage {
            Stage::Adapt { training, .. } => teacher(training),
            stage => matcher_of(stage),
        };
        let other = other.and_then(|folder| self.models.get(&self.root.join(folder)));
        let known = self.known(node, model, &machine, shared);
        predict(&node.stage, &node.inputs, &subject, other, known)
    }

    /// What a stage finds in the cache, which it leaves there for later ones: by what the program's own cache is keyed by.
    fn known(&self, node: &StageNode, model: &Model, machine: &Machine<'_>, shared: &mut Shared) -> Known {
        match &*node.stage {
            Stage::Evaluate { task, data, items, retrieval, compute, .. } if data.source == DataSource::Folder => {
                let (images, count) = images_of(*task, data.source, f64::from(*items));
                let pixels = shared.take(format!("pixels {:?} {images}", data.root), count * model.pixel_bytes());
                let bytes = count * model.feature_bytes(machine.bytes());
                let matched = retrieval.as_ref().is_some_and(|retrieval| retrieval.checkpoint.is_some());
                let encoder = self.encoder(node).filter(|_| !matched && shared.holds_features(bytes));
                let name = |encoder| format!("features {encoder} {compute:?} {:?} {images}", data.root);
                let features = encoder.is_some_and(|encoder| shared.take(name(encoder), bytes));
                Known { features, pixels, teacher: false }
            }
            Stage::Adapt { training, data, seed, compute, .. } => {
                let Some(distill) = &training.distill else { return Known::default() };
                if (data.source == DataSource::Folder && distill.top_k.is_none()) || distill.looks_inside() {
                    return Known::default();
                }
                if training.loading.is_on() {
                    return Known::default();
                }
                let AdaptTraining { batch, questions, samples, steps, contrastive, .. } = **training;
                let (top_k, dense) = (distill.top_k, &node.inputs.dense);
                let temperature = top_k.map(|_| distill.temperature);
                let of_batches = (data, seed, batch, questions, samples, steps, contrastive > 0.0);
                let other = &distill.teacher;
                let name = format!("teacher {dense:?} {other:?} {of_batches:?} {top_k:?} {temperature:?} {compute:?}");
                // Ids and logarithms of probabilities, or all logits.
                let each = top_k.map_or(model.words * machine.bytes(), |k| f64::from(k) * 12.0);
                let rows = f64::from(batch) * (f64::from(questions) * texts::ANSWER + texts::CAPTION);
                Known { teacher: shared.take(name, f64::from(steps) * rows * each), ..Known::default() }
            }
            _ => Known::default(),
        }
    }

    /// The stages whose merges and masks a stage reads, and those that they read in turn; the last first.
    fn behind(&self, node: &StageNode) -> Vec<&'a StageNode> {
        let mut all = Vec::new();
        let mut next = Some(&*node.inputs);
        while let Some(inputs) = next {
            all.extend(inputs.masks.iter().filter_map(|key| self.nodes.get(key)));
            let merge = inputs.merge.as_ref().and_then(|key| self.nodes.get(key));
            all.extend(merge);
            next = merge.map(|merge| &*merge.inputs);
        }
        all
    }

    /// Learned queries that the steps before a stage have left of so many: the language model reads an image as fewer tokens. Other removals are masks, which
    /// cost what whole layers do.
    fn queries(&self, node: &StageNode, whole: f64) -> f64 {
        let mut left = whole as u64;
        let mut seen = BTreeSet::new();
        let mut open: Vec<&StageKey> = node.inputs.iter().collect();
        while let Some(key) = open.pop() {
            let Some(stage) = self.nodes.get(key).filter(|_| seen.insert(key)) else { continue };
            if let Stage::Structure { tower: Tower::Connector, target, .. } = &*stage.stage {
                left = left.min(remaining(target.queries, whole as u64).unwrap_or(left));
            }
            open.extend(stage.inputs.iter());
        }
        left as f64
    }

    /// What tells the image encoder of an evaluation from others: dense model and vision masks; `None` where its run has trained it.
    fn encoder(&self, node: &StageNode) -> Option<String> {
        let behind = self.behind(node);
        let trains = |merge: &&StageNode| {
            let adapter = merge.inputs.adapter.as_ref().and_then(|key| self.nodes.get(key));
            adapter.is_some_and(|adapter| match &*adapter.stage {
                Stage::Adapt { training, .. } => training.vision.is_some(),
                _ => false,
            })
        };
        let masks = behind.iter().filter(|node| node.stage.masks() == Some(Tower::Vision)).map(|node| &node.key);
        (!behind.iter().any(trains)).then(|| format!("{:?} {:?}", node.inputs.dense, masks.collect::<Vec<_>>()))
    }

    /// Towers that the masks behind a stage belong to.
    fn pruned(&self, node: &StageNode) -> BTreeSet<Tower> {
        self.behind(node).into_iter().filter_map(|node| node.stage.masks()).collect()
    }
}

/// The folder of a training's teacher, where it is another model than the dense one.
fn teacher(training: &AdaptTraining) -> Option<&PathBuf> {
    training.distill.as_ref()?.teacher.as_ref()
}

/// The checkpoint that an evaluation compares images and texts with.
fn matcher_of(stage: &Stage) -> Option<&PathBuf> {
    let Stage::Evaluate { retrieval, aids, .. } = stage else { return None };
    let of_task = retrieval.as_ref().and_then(|retrieval| retrieval.checkpoint.as_ref());
    of_task.or_else(|| aids.as_ref()?.checkpoint())
}

//! The calibration loop: layers outside, samples inside, one tower at a time.
//!
//! Only the activations between two blocks are held, for all samples; a block is run over all of them before the next one is looked at.
//! Every sample runs alone. Its tokens are then all real, so statistics hold no padding, and since a sample's contribution
//! is added in sample order, masks cannot depend on a batch size.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    path::Path,
};

use ressa_experiment::{
    Tower,
    config::{Propagate, TokenConfig},
};
use ressa_models::{Flow, Sample, TensorMap, VisionLanguage, weights};
use tch::{Device, Kind, Tensor, no_grad};

use crate::{
    block::BlockObserver,
    error::PruneError,
    statistics::{ColumnStatistics, Needs},
    tokens::{TokenWeights, Visible},
};

/// The header entry of stored statistics: the layers of each group.
const LAYERS: &str = "ressa.statistics";

/// Statistics of one block's layers. Layers that read the same input, such as q, k and v, share theirs.
#[derive(Debug, Default)]
pub struct BlockStatistics {
    groups: Vec<(Vec<String>, ColumnStatistics)>,
}

impl BlockStatistics {
    /// Statistics with the layers that each is of.
    pub(crate) fn new(groups: Vec<(Vec<String>, ColumnStatistics)>) -> Self {
        Self { groups }
    }

    /// The statistics of a layer, by module path.
    pub fn get(&self, layer: &str) -> Option<&ColumnStatistics> {
        self.groups.iter().find(|(layers, _)| layers.iter().any(|name| name == layer)).map(|(_, statistics)| statistics)
    }

    /// Takes the statistics of other layers in.
    pub fn extend(&mut self, other: BlockStatistics) {
        self.groups.extend(other.groups);
    }

    /// For statistics that are read again and again: what methods make of them alone is kept with them, at the cost of its memory.
    pub fn remember(&mut self) {
        self.groups.iter_mut().for_each(|(_, statistics)| statistics.remember());
    }

    /// What is collected of every layer.
    pub fn collects(&self) -> Needs {
        self.groups.first().map_or(Needs::WEIGHT, |(_, statistics)| statistics.collects())
    }

    /// Writes the statistics: tensors of [`ColumnStatistics::to_tensors`] behind the group's number, the groups' layers in the header.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PruneError> {
        let mut tensors = TensorMap::new();
        let mut layers = Vec::new();
        for (group, (names, statistics)) in self.groups.iter().enumerate() {
            layers.push(names);
            tensors.extend(statistics.to_tensors().into_iter().map(|(name, t)| (format!("{group}.{name}"), t)));
        }
        let layers = serde_json::to_string(&layers).map_err(|e| PruneError::Statistics { reason: e.to_string() })?;
        Ok(weights::write(path, &tensors, (LAYERS, layers))?)
    }

    /// Reads what [`BlockStatistics::save`] wrote.
    ///
    /// # Errors
    /// A file of something else; statistics that do not fit together.
    pub fn load(path: &Path, device: Device) -> Result<Self, PruneError> {
        let broken = |reason: String| PruneError::Statistics { reason: format!("`{}`: {reason}", path.display()) };
        let (tensors, layers) = weights::read(path, LAYERS)?;
        let layers = layers.ok_or_else(|| broken("it holds none".to_owned()))?;
        let layers: Vec<Vec<String>> = serde_json::from_str(&layers).map_err(|e| broken(e.to_string()))?;
        let mut of_groups: Vec<BTreeMap<String, Tensor>> = layers.iter().map(|_| BTreeMap::new()).collect();
        for (name, tensor) in tensors {
            let (group, part) = name.split_once('.').unwrap_or((&name, ""));
            let group = group.parse::<usize>().ok().and_then(|group| of_groups.get_mut(group));
            let group = group.ok_or_else(|| broken(format!("`{name}` belongs to no group")))?;
            group.insert(part.to_owned(), tensor);
        }
        let groups = layers.into_iter().zip(of_groups).map(|(layers, tensors)| {
            let statistics = ColumnStatistics::from_tensors(tensors, device)?;
            if layers.is_empty() { Err(broken("a group has no layers".to_owned())) } else { Ok((layers, statistics)) }
        });
        Ok(Self { groups: groups.collect::<Result<_, PruneError>>()? })
    }

    /// As [`BlockStatistics::groups`], for those who let go of each as they go along.
    pub fn into_groups(self) -> Vec<(Vec<String>, ColumnStatistics)> {
        self.groups
    }

    /// Layers that read the same input, in the order in which they run, with what they see.
    pub fn groups(&self) -> impl Iterator<Item = (&[String], &ColumnStatistics)> {
        self.groups.iter().map(|(layers, statistics)| (layers.as_slice(), statistics))
    }
}

/// Activations of all samples on their way through a tower.
pub struct Calibration {
    tower: Tower,
    propagate: Propagate,
    needs: Needs,
    flows: Vec<Flow>,
    blocks: usize,
    tokens: TokenConfig,
    /// Of each sample, the visual tokens that count.
    visible: Vec<Visible>,
}

impl Calibration {
    /// Takes every sample to the entry of `tower`. The image encoder sees each distinct image once, however many samples ask about it.
    pub fn enter(
        model: &dyn VisionLanguage,
        tower: Tower,
        propagate: Propagate,
        needs: Needs,
        samples: &[Sample],
    ) -> Self {
        let flows = no_grad(|| match tower {
            Tower::Vision => distinct_images(samples).into_iter().map(|s| model.enter(tower, s)).collect(),
            Tower::Qformer | Tower::Language => samples.iter().map(|s| model.enter(tower, s)).collect(),
        });
        let (blocks, tokens) = (model.blocks(tower), TokenConfig::default());
        Self { tower, propagate, needs, flows, blocks, tokens, visible: Vec::new() }
    }

    /// The same calibration, in which kinds of tokens count differently.
    #[must_use]
    pub fn weighing(mut self, tokens: TokenConfig) -> Self {
        self.tokens = tokens;
        self
    }

    /// Runs `block` over all samples and returns what its layers saw. With [`Propagate::Dense`] the outputs go on to the next block.
    pub fn observe(&mut self, model: &dyn VisionLanguage, block: usize) -> Result<BlockStatistics, PruneError> {
        let flows = &self.flows;
        let mut flow = |at: usize| Ok::<_, PruneError>(flows[at].shallow_clone());
        TokenWeights::new(self.tokens).look(model, self.tower, block, flows.len(), &mut flow, &mut self.visible)?;
        let mut observer = BlockObserver::new(model, self.tower, block, self.needs).weighing(self.tokens);
        for (position, flow) in self.flows.iter_mut().enumerate() {
            let next = observer.run(flow, self.visible.get(position));
            if self.propagate == Propagate::Dense {
                *flow = next;
            }
        }
        observer.finish()
    }

    /// Whether blocks see what was done to their predecessors.
    pub fn propagates(&self) -> bool {
        self.propagate == Propagate::Pruned
    }

    /// After `block` has got its masks: runs it again with them, so that the next block sees pruned predecessors. Does nothing with
    /// [`Propagate::Dense`], nor after the last block.
    pub fn advance(&mut self, model: &dyn VisionLanguage, block: usize) {
        if self.propagate == Propagate::Pruned && block + 1 < self.blocks {
            no_grad(|| {
                for flow in &mut self.flows {
                    *flow = model.run_block(self.tower, block, flow);
                }
            });
        }
    }
}

/// The first sample of each distinct image, in order. Images are the same when all their pixels are.
fn distinct_images(samples: &[Sample]) -> Vec<&Sample> {
    let mut seen: HashMap<u64, Vec<&Sample>> = HashMap::new();
    let mut distinct = Vec::new();
    for sample in samples {
        let same = seen.entry(digest(&sample.pixels)).or_default();
        let known = |other: &&Sample| other.pixels.size() == sample.pixels.size() && other.pixels.equal(&sample.pixels);
        if !same.iter().any(known) {
            same.push(sample);
            distinct.push(sample);
        }
    }
    distinct
}

/// A digest that equal pixels share; unequal ones may collide.
fn digest(pixels: &Tensor) -> u64 {
    let mut hasher = DefaultHasher::new();
    for moment in [pixels.sum(Kind::Double), pixels.square().sum(Kind::Double)] {
        moment.double_value(&[]).to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

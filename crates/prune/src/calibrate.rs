//! The calibration loop: layers outside, samples inside, one tower at a time.
//!
//! Only the activations between two blocks are held, for all samples; a block is run over all of them before the next one is looked at.
//! Every sample runs alone. Its tokens are then all real, so statistics hold no padding, and since a sample's contribution
//! is added in sample order, masks cannot depend on a batch size.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use ressa_experiment::{Tower, config::Propagate};
use ressa_models::{Flow, LayerId, Observer, Sample, TapGuard, VisionLanguage};
use tch::{Kind, Tensor, no_grad};

use crate::{
    error::PruneError,
    statistics::{ColumnStatistics, Needs},
};

/// Statistics of one block's layers. Layers that read the same input, such as q, k and v, share theirs.
#[derive(Debug, Default)]
pub struct BlockStatistics {
    groups: Vec<(Vec<String>, ColumnStatistics)>,
}

impl BlockStatistics {
    /// The statistics of a layer, by module path.
    pub fn get(&self, layer: &str) -> Option<&ColumnStatistics> {
        self.groups.iter().find(|(layers, _)| layers.iter().any(|name| name == layer)).map(|(_, statistics)| statistics)
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
        Self { tower, propagate, needs, flows, blocks: model.blocks(tower) }
    }

    /// Runs `block` over all samples and returns what its layers saw. With [`Propagate::Dense`] the outputs go on to the next block.
    pub fn observe(&mut self, model: &dyn VisionLanguage, block: usize) -> Result<BlockStatistics, PruneError> {
        let (shared, guards) = tap(model, self.tower, block, self.needs);
        no_grad(|| {
            for flow in &mut self.flows {
                let next = model.run_block(self.tower, block, flow);
                shared.lock().unwrap_or_else(PoisonError::into_inner).end_sample();
                if self.propagate == Propagate::Dense {
                    *flow = next;
                }
            }
        });
        drop(guards);
        let groups = std::mem::take(&mut shared.lock().unwrap_or_else(PoisonError::into_inner).groups);
        for (layers, statistics) in &groups {
            if !statistics.is_finite() {
                return Err(PruneError::NotFiniteInput { layer: layers[0].clone() });
            }
        }
        Ok(BlockStatistics { groups })
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

/// What the layers of a block see. Which of them read the same tensor is a matter of the architecture: the first sample shows it.
#[derive(Debug, Default)]
struct Shared {
    needs: Needs,
    groups: Vec<(Vec<String>, ColumnStatistics)>,
    /// The input that each group has seen of the current sample. Held until the sample ends, so that its memory is not used for another one.
    inputs: Vec<Option<Tensor>>,
}

/// One layer's view of [`Shared`].
struct Tap {
    layer: String,
    shared: Arc<Mutex<Shared>>,
}

impl Observer for Tap {
    fn observe(&mut self, input: &Tensor) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).see(&self.layer, input);
    }
}

impl Shared {
    fn see(&mut self, layer: &str, input: &Tensor) {
        let known = self.groups.iter().position(|(layers, _)| layers.iter().any(|name| name == layer));
        let group = known.unwrap_or_else(|| {
            let shared = self.inputs.iter().position(|seen| seen.as_ref().is_some_and(|seen| is_same(seen, input)));
            let group = shared.unwrap_or_else(|| {
                let columns = input.size().last().copied().unwrap_or(0);
                self.groups.push((Vec::new(), ColumnStatistics::new(columns, self.needs, input.device())));
                self.inputs.push(None);
                self.groups.len() - 1
            });
            self.groups[group].0.push(layer.to_owned());
            group
        });
        let (layers, statistics) = &mut self.groups[group];
        if layers[0] == layer {
            statistics.observe(input);
            self.inputs[group] = Some(input.shallow_clone());
        }
    }

    fn end_sample(&mut self) {
        self.groups.iter_mut().for_each(|(_, statistics)| statistics.end_sample());
        self.inputs.fill_with(|| None);
    }
}

/// Whether two tensors that are both alive are one and the same.
fn is_same(left: &Tensor, right: &Tensor) -> bool {
    left.data_ptr() == right.data_ptr()
        && left.kind() == right.kind()
        && left.size() == right.size()
        && left.stride() == right.stride()
}

fn tap(model: &dyn VisionLanguage, tower: Tower, block: usize, needs: Needs) -> (Arc<Mutex<Shared>>, Vec<TapGuard>) {
    let shared = Arc::new(Mutex::new(Shared { needs, ..Shared::default() }));
    let in_block = |id: &LayerId| id.tower == tower && id.block == block;
    let layers = model.linears().into_iter().filter(|(id, _)| in_block(id));
    let guards = layers
        .map(|(id, linear)| {
            let tap = Tap { layer: id.name.clone(), shared: Arc::clone(&shared) };
            linear.tap(Arc::new(Mutex::new(tap)))
        })
        .collect();
    (shared, guards)
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

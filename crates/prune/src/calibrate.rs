//! The calibration loop: layers outside, samples inside, one tower at a time.
//!
//! Only the activations between two blocks are held, for all samples; a block is run over all of them before the next one is looked at.
//! Every sample runs alone. Its tokens are then all real, so statistics hold no padding, and since a sample's contribution
//! is added in sample order, masks cannot depend on a batch size.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
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

/// Statistics of one block's layers, by module path.
pub type BlockStatistics = BTreeMap<String, ColumnStatistics>;

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
        let taps = tap(model, self.tower, block, self.needs);
        no_grad(|| {
            for flow in &mut self.flows {
                let next = model.run_block(self.tower, block, flow);
                for tap in taps.values() {
                    tap.statistics.lock().unwrap_or_else(PoisonError::into_inner).end_sample();
                }
                if self.propagate == Propagate::Dense {
                    *flow = next;
                }
            }
        });
        let mut statistics = BlockStatistics::new();
        for (name, Tap { statistics: shared, guard }) in taps {
            drop(guard);
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = std::mem::replace(&mut *shared, ColumnStatistics::new(0, Needs::WEIGHT, tch::Device::Cpu));
            if !seen.is_finite() {
                return Err(PruneError::NotFiniteInput { layer: name });
            }
            statistics.insert(name, seen);
        }
        Ok(statistics)
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

/// A layer under observation.
struct Tap {
    statistics: Arc<Mutex<ColumnStatistics>>,
    guard: TapGuard,
}

fn tap(model: &dyn VisionLanguage, tower: Tower, block: usize, needs: Needs) -> BTreeMap<String, Tap> {
    let in_block = |id: &LayerId| id.tower == tower && id.block == block;
    let layers = model.linears().into_iter().filter(|(id, _)| in_block(id));
    layers
        .map(|(id, linear)| {
            let statistics = Arc::new(Mutex::new(ColumnStatistics::new(linear.shape().1, needs, linear.weight().device())));
            let observer: Arc<Mutex<dyn Observer>> = Arc::clone(&statistics) as _;
            (id.name.clone(), Tap { statistics, guard: linear.tap(observer) })
        })
        .collect()
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

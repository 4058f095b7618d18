//! One block under observation: what its layers see, those with the same input together.

use std::sync::{Arc, Mutex, PoisonError};

use ressa_models::{Flow, LayerId, Linear, Observer, TapGuard, Tower, VisionLanguage};
use tch::{Tensor, no_grad};

use crate::{
    error::PruneError,
    statistics::{ColumnStatistics, Needs},
};

/// Layers of a block that read the same input, and what it was like.
#[derive(Debug)]
pub struct InputGroup {
    /// Module paths, in the order of execution.
    pub layers: Vec<String>,
    /// Statistics of the input.
    pub statistics: ColumnStatistics,
}

/// Runs one block over samples and collects statistics, once for each input however many layers read it.
///
/// Which layers share an input is seen on the first sample: they were shown the very same tensors. Statistics are those that each layer would
/// have collected by itself.
pub struct BlockObserver<'a> {
    model: &'a dyn VisionLanguage,
    tower: Tower,
    block: usize,
    needs: Needs,
    watched: Option<Vec<Watched>>,
}

/// An input that is collected, tapped at its first reader.
struct Watched {
    layers: Vec<String>,
    statistics: Arc<Mutex<ColumnStatistics>>,
    _tap: TapGuard,
}

impl<'a> BlockObserver<'a> {
    /// An observer that has seen nothing.
    pub fn new(model: &'a dyn VisionLanguage, tower: Tower, block: usize, needs: Needs) -> Self {
        Self { model, tower, block, needs, watched: None }
    }

    /// Runs one sample and answers with what leaves the block.
    pub fn run(&mut self, flow: &Flow) -> Flow {
        no_grad(|| match &self.watched {
            None => {
                let (next, watched) = self.first(flow);
                self.watched = Some(watched);
                next
            }
            Some(watched) => {
                let next = self.model.run_block(self.tower, self.block, flow);
                for input in watched {
                    input.statistics.lock().unwrap_or_else(PoisonError::into_inner).end_sample();
                }
                next
            }
        })
    }

    /// Ends the observation.
    ///
    /// # Errors
    /// A layer that saw values that are not finite.
    pub fn finish(self) -> Result<Vec<InputGroup>, PruneError> {
        let mut groups = Vec::new();
        for Watched { layers, statistics, _tap } in self.watched.unwrap_or_default() {
            drop(_tap);
            let mut shared = statistics.lock().unwrap_or_else(PoisonError::into_inner);
            let statistics = std::mem::replace(&mut *shared, ColumnStatistics::new(0, Needs::WEIGHT, tch::Device::Cpu));
            if !statistics.is_finite() {
                return Err(PruneError::NotFiniteInput { layer: layers.join("`, `") });
            }
            groups.push(InputGroup { layers, statistics });
        }
        Ok(groups)
    }

    /// Runs the first sample with every layer's inputs kept, groups the layers, and taps the first of each group.
    fn first(&self, flow: &Flow) -> (Flow, Vec<Watched>) {
        let layers: Vec<(&LayerId, &Linear)> = layers_of(self.model, self.tower, self.block).collect();
        let kept: Vec<Arc<Mutex<Kept>>> = layers.iter().map(|_| Arc::default()).collect();
        let tap = |((_, linear), kept): (&(&LayerId, &Linear), &Arc<Mutex<Kept>>)| linear.tap(Arc::clone(kept) as _);
        let taps: Vec<TapGuard> = layers.iter().zip(&kept).map(tap).collect();
        let next = self.model.run_block(self.tower, self.block, flow);
        drop(taps);
        let kept: Vec<Kept> =
            kept.iter().map(|kept| std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))).collect();
        let mut grouped: Vec<(usize, Vec<String>)> = Vec::new();
        for (at, (id, _)) in layers.iter().enumerate() {
            match grouped.iter_mut().find(|(leader, _)| kept[*leader].is_same(&kept[at])) {
                Some((_, members)) => members.push(id.name.clone()),
                None => grouped.push((at, vec![id.name.clone()])),
            }
        }
        let watch = |(leader, layers_here): (usize, Vec<String>)| {
            let linear = layers[leader].1;
            let mut statistics = ColumnStatistics::new(linear.shape().1, self.needs, kept[leader].device());
            kept[leader].0.iter().for_each(|input| statistics.observe(input));
            statistics.end_sample();
            let statistics = Arc::new(Mutex::new(statistics));
            let tap = linear.tap(Arc::clone(&statistics) as _);
            Watched { layers: layers_here, statistics, _tap: tap }
        };
        (next, grouped.into_iter().map(watch).collect())
    }
}

/// Layers of a block, in the order of execution.
pub fn layers_of(model: &dyn VisionLanguage, tower: Tower, block: usize) -> impl Iterator<Item = (&LayerId, &Linear)> {
    model.linears().into_iter().filter(move |(id, _)| id.tower == tower && id.block == block)
}

/// The inputs of a layer during one run, held so that no two of them can have lain at the same place.
#[derive(Default)]
struct Kept(Vec<Tensor>);

impl Kept {
    /// Whether both saw the very same tensors, at least one.
    fn is_same(&self, other: &Kept) -> bool {
        let same = |(a, b): (&Tensor, &Tensor)| {
            a.data_ptr() == b.data_ptr() && a.kind() == b.kind() && a.size() == b.size() && a.stride() == b.stride()
        };
        !self.0.is_empty() && self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    fn device(&self) -> tch::Device {
        self.0.first().map_or(tch::Device::Cpu, Tensor::device)
    }
}

impl Observer for Kept {
    fn observe(&mut self, input: &Tensor) {
        self.0.push(input.detach());
    }
}

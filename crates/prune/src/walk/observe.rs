//! One block under observation: what its layers see, those with the same input together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ressa_models::{Flow, LayerId, Linear, Observer, TapGuard, VisionLanguage};
use ressa_runtime::is_finite;
use tch::{Tensor, no_grad};

use super::{Look, Place};
use crate::{
    error::PruneError,
    statistics::{BlockStatistics, ColumnStatistics, Needs, all_finite},
    tokens::{TokenWeights, Visible},
};

/// Runs one block over samples and collects statistics, once for each input however many layers read it.
///
/// Which layers share an input is a matter of the architecture: the first sample shows it. Statistics are those that each layer would have
/// collected by itself.
pub struct BlockObserver<'a> {
    model: &'a dyn VisionLanguage,
    place: Place,
    weights: TokenWeights,
    shared: Arc<Mutex<Shared>>,
    taps: Vec<TapGuard>,
}

impl<'a> BlockObserver<'a> {
    /// An observer that has seen nothing.
    pub fn new(model: &'a dyn VisionLanguage, place: Place, look: Look) -> Self {
        let shared = Arc::new(Mutex::new(Shared { needs: look.needs, ..Shared::default() }));
        let tap = |(id, linear): (&LayerId, &Linear)| {
            linear.tap(Arc::new(Mutex::new(Tap { layer: id.name.clone(), shared: Arc::clone(&shared) })))
        };
        let taps = layers_of(model, place).map(tap).collect();
        Self { model, place, weights: look.into(), shared, taps }
    }

    /// Runs one sample, or several as the rows of one flow, and answers with what leaves the block. `numbers` are the places of the samples in the
    /// order in which their sums are added, nothing where they come in that order one by one; `visible` says which visual tokens count of a sample
    /// that runs alone.
    pub fn run(&mut self, flow: &Flow, numbers: Option<&[usize]>, visible: Option<&Visible>) -> Flow {
        let Place { tower, block } = self.place;
        no_grad(|| {
            {
                let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                shared.numbers = numbers.map(<[usize]>::to_vec);
                if !self.weights.are_one() {
                    shared.weights = self.weights.of_block(self.model, self.place, flow, visible);
                }
            }
            let next = self.model.run_block(tower, block, flow);
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).end_samples();
            next
        })
    }

    /// Ends the observation.
    ///
    /// # Errors
    /// A layer that saw values that are not finite, or the one before it that made them.
    pub fn finish(self) -> Result<BlockStatistics, PruneError> {
        drop(self.taps);
        let mut groups = std::mem::take(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner).groups);
        groups.iter_mut().for_each(|(_, statistics)| statistics.settle());
        if all_finite(groups.iter().map(|(_, statistics)| statistics)) {
            return Ok(BlockStatistics::new(groups));
        }
        let sick = groups.iter().find(|(_, statistics)| !statistics.is_finite());
        let layers = sick.map(|(layers, _)| layers.as_slice()).unwrap_or_default();
        match layers_of(self.model, self.place).find(|(_, linear)| !is_finite(linear.weight())) {
            Some((id, _)) => Err(PruneError::NotFiniteWeight { layer: id.name.clone() }),
            None => Err(PruneError::NotFiniteInput { layer: layers.join("`, `") }),
        }
    }
}

/// Layers of a block, in the order of execution.
pub fn layers_of(model: &dyn VisionLanguage, place: Place) -> impl Iterator<Item = (&LayerId, &Linear)> {
    model.linears().into_iter().filter(move |(id, _)| id.tower == place.tower && id.block == place.block)
}

/// What the layers of a block see. Which of them read the same tensor is a matter of the architecture: the first sample shows it.
#[derive(Debug, Default)]
struct Shared {
    needs: Needs,
    /// Places of the samples that run together.
    numbers: Option<Vec<usize>>,
    groups: Vec<(Vec<String>, ColumnStatistics)>,
    /// The input that each group has seen of the current sample. Held until the sample ends, so that its memory is not used for another one.
    inputs: Vec<Option<Tensor>>,
    /// What the tokens count that a layer sees of the current sample, f32 `[tokens]`; layers that are not here count each as one.
    weights: HashMap<String, Tensor>,
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
            match (self.weights.get(layer), &self.numbers) {
                (None, Some(numbers)) => statistics.observe_rows(input, numbers),
                (None, None) => statistics.observe(input),
                (Some(weights), _) => statistics.observe_weighted(input, weights),
            }
            self.inputs[group] = Some(input.shallow_clone());
        }
    }

    fn end_samples(&mut self) {
        let samples = self.numbers.as_ref().map_or(1, Vec::len) as u64;
        self.groups.iter_mut().for_each(|(_, statistics)| statistics.end_samples(samples));
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

//! The gradient of everything that trains, in one tensor.

use std::{collections::HashMap, ops::Range};

use ressa_models::{
    Flow, Tower, VisionLanguage,
    blocks::{FlowGradient, Sink},
};
use tch::{Kind, Tensor, no_grad};

/// A flat gradient that is added to, with the place of every parameter in it.
pub(crate) struct FlatGradient<'a> {
    /// The parameters, by position.
    parameters: &'a [Tensor],
    places: &'a Places,
    flat: Tensor,
}

/// Which parameters a block of a tower has, and where each parameter's gradient goes.
pub(crate) struct Places {
    of_block: HashMap<(Tower, usize), Vec<usize>>,
    /// Those that belong to no block.
    between: Vec<usize>,
    ranges: Vec<Range<i64>>,
}

impl Places {
    /// For `parameters` of the weights called `weights` (one name per parameter) of a model.
    pub fn new(model: &dyn VisionLanguage, weights: &[String], parameters: &[Tensor]) -> Self {
        let blocks = Tower::ALL.into_iter().flat_map(|tower| (0..model.blocks(tower)).map(move |block| (tower, block)));
        let of_weight: HashMap<&str, (Tower, usize)> = blocks
            .flat_map(|(tower, block)| {
                model.block_weights(tower, block).into_iter().map(move |weight| (weight.key(), (tower, block)))
            })
            .collect();
        let (mut of_block, mut between) = (HashMap::<_, Vec<usize>>::new(), Vec::new());
        for (at, weight) in weights.iter().enumerate() {
            match of_weight.get(weight.as_str()) {
                Some(block) => of_block.entry(*block).or_default().push(at),
                None => between.push(at),
            }
        }
        let mut end = 0;
        let range = |parameter: &Tensor| {
            let start = end;
            end += parameter.numel() as i64;
            start..end
        };
        Self { of_block, between, ranges: parameters.iter().map(range).collect() }
    }
}

impl<'a> FlatGradient<'a> {
    /// No gradient yet.
    pub fn new(parameters: &'a [Tensor], places: &'a Places, zeros: Tensor) -> Self {
        Self { parameters, places, flat: zeros }
    }

    /// Adds the gradient of a scalar with respect to every parameter. Frees the scalar's autograd graph.
    pub fn add_all(&mut self, total: &Tensor) {
        let found = Tensor::run_backward(&[total], self.parameters, false, false);
        let rows: Vec<Tensor> = found
            .iter()
            .zip(self.parameters)
            .map(|(gradient, parameter)| {
                if gradient.defined() {
                    gradient.reshape([-1]).to_kind(Kind::Float)
                } else {
                    parameter.detach().zeros_like().reshape([-1])
                }
            })
            .collect();
        no_grad(|| {
            let _ = self.flat.g_add_(&Tensor::cat(&rows, 0));
        });
    }

    /// As [`FlatGradient::add_all`], and answers with the gradient of `leaf`, if it has one.
    pub fn add_all_and(&mut self, total: &Tensor, leaf: &Tensor) -> Option<Tensor> {
        let leaves = leaf.requires_grad().then_some(leaf);
        let wanted: Vec<&Tensor> = self.parameters.iter().chain(leaves).collect();
        let mut found = Tensor::run_backward(&[total], &wanted, false, false);
        let of_leaf = found.split_off(self.parameters.len()).pop().filter(Tensor::defined);
        for (at, gradient) in found.iter().enumerate() {
            self.add_at(at, gradient);
        }
        of_leaf
    }

    /// Adds the gradient of a scalar with respect to what belongs to no block, and answers with the gradients of `leaves`; undefined
    /// tensors where there is none.
    pub fn add_between(&mut self, total: &Tensor, leaves: &[Tensor]) -> Vec<Tensor> {
        let between = &self.places.between;
        let wanted: Vec<&Tensor> = between.iter().map(|&at| &self.parameters[at]).chain(leaves).collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        let mut found = Tensor::run_backward(&[total], &wanted, false, false);
        let of_leaves = found.split_off(between.len());
        for (&at, gradient) in between.iter().zip(&found) {
            self.add_at(at, gradient);
        }
        of_leaves
    }

    /// Adds the gradient of a scalar with respect to what trains in a block, and answers with those of what entered it.
    pub fn add_block(&mut self, total: &Tensor, (tower, block): (Tower, usize), entered: &Flow) -> FlowGradient {
        let mut wanted = self.parameters(tower, block);
        let parameters = wanted.len();
        wanted.extend(entered.wanting().map(Tensor::shallow_clone));
        if wanted.is_empty() {
            return FlowGradient::default();
        }
        let mut found = Tensor::run_backward(&[total], &wanted, false, false);
        let mut of_leaves = found.split_off(parameters).into_iter();
        self.add(tower, block, found);
        FlowGradient::of(entered, &mut of_leaves)
    }

    fn add_at(&mut self, at: usize, gradient: &Tensor) {
        if gradient.defined() {
            let Range { start, end } = self.places.ranges[at];
            no_grad(|| {
                let _ = self.flat.narrow(0, start, end - start).g_add_(&gradient.reshape([-1]));
            });
        }
    }

    /// The gradient, f32, flat, in the parameters' order.
    pub fn into_flat(self) -> Tensor {
        self.flat
    }
}

impl Sink for FlatGradient<'_> {
    fn parameters(&self, tower: Tower, block: usize) -> Vec<Tensor> {
        let of_block = self.places.of_block.get(&(tower, block));
        of_block.into_iter().flatten().map(|&at| self.parameters[at].shallow_clone()).collect()
    }

    fn add(&mut self, tower: Tower, block: usize, gradients: Vec<Tensor>) {
        let places = self.places;
        let of_block = places.of_block.get(&(tower, block)).into_iter().flatten();
        for (&at, gradient) in of_block.zip(&gradients) {
            self.add_at(at, gradient);
        }
    }
}

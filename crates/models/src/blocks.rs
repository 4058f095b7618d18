//! A tower's blocks one after the other with a gradient, at the memory of one block: only what enters each block is kept, and a block is
//! computed again when its gradient is asked for.
//!
//! Method: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174. tch has no custom gradient functions, so the
//! backward pass is driven from here, block by block, instead of from inside libtorch.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad, with_grad};

use crate::{Flow, InBlocks, Tower, flow::is_same};

/// What trains, block by block, and where gradients go.
pub trait Sink {
    /// What trains in a block of a tower.
    fn parameters(&self, tower: Tower, block: usize) -> Vec<Tensor>;

    /// Adds gradients of [`Sink::parameters`], in their order; undefined tensors are zero.
    fn add(&mut self, tower: Tower, block: usize, gradients: Vec<Tensor>);
}

/// Gradients of the two tensors of a flow that can depend on what trains; nothing where there is none.
#[derive(Debug, Default)]
pub struct FlowGradient {
    /// Of the hidden states.
    pub hidden: Option<Tensor>,
    /// Of the companion that depends on earlier towers or blocks: image features, encoder output.
    pub carried: Option<Tensor>,
}

impl FlowGradient {
    /// From gradients of [`Flow::wanting`], in that order; undefined tensors are nothing.
    pub fn of(flow: &Flow, found: &mut dyn Iterator<Item = Tensor>) -> Self {
        let mut take = |wanted: bool| wanted.then(|| found.next()).flatten().filter(Tensor::defined);
        let hidden = take(flow.hidden.requires_grad());
        Self { hidden, carried: take(flow.carried().is_some_and(Tensor::requires_grad)) }
    }

    /// Adds those of another scalar.
    pub fn add(&mut self, more: Self) {
        self.hidden = sum(self.hidden.take(), more.hidden);
        self.carried = sum(self.carried.take(), more.carried);
    }
}

/// A tower that has run without a gradient and can be run again with one.
#[derive(Debug)]
pub struct Chain {
    tower: Tower,
    /// What entered each block.
    flows: Vec<Flow>,
    /// Whether what entered each block depends on what trains: hidden states, companion.
    depends: Vec<(bool, bool)>,
}

impl Chain {
    /// Runs every block of `tower` on `entry`, whose tensors require gradients where they depend on what trains. Answers with what left the
    /// last block: leaves that require gradients where they depend on what trains.
    pub fn run(model: &dyn InBlocks, tower: Tower, entry: &Flow, sink: &dyn Sink) -> (Self, Flow) {
        let blocks = model.blocks(tower);
        let (mut flows, mut depends) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
        let mut now = (entry.hidden.requires_grad(), entry.carried().is_some_and(Tensor::requires_grad));
        let mut flow = entry.detached();
        for block in 0..blocks {
            let next = no_grad(|| model.run_block(tower, block, &flow));
            let trains = !sink.parameters(tower, block).is_empty();
            depends.push(now);
            // A companion that is new was made of the hidden states; hidden states are made of everything.
            let made = now.0 || now.1 || trains;
            let handed_on = is_same(flow.carried(), next.carried());
            let restarts = !handed_on && next.carried().is_some();
            now = (made && !restarts, if handed_on { now.1 } else { made && next.carried().is_some() });
            flows.push(std::mem::replace(&mut flow, next));
        }
        (Self { tower, flows, depends }, flow.leaf(now))
    }

    /// What entered a block; nothing behind the last.
    pub fn entered(&self, block: usize) -> Option<&Flow> {
        self.flows.get(block)
    }

    /// [`Chain::entered`] as leaves, that require gradients where they depend on what trains.
    pub fn leaf(&self, block: usize) -> Option<Flow> {
        Some(self.flows.get(block)?.leaf(*self.depends.get(block)?))
    }

    /// From gradients of what left the last block to those of what entered the first one. Parameters' gradients go to `sink` on the way; each
    /// block's activations live only while it has its turn.
    pub fn backward(self, model: &dyn InBlocks, last: FlowGradient, sink: &mut dyn Sink) -> FlowGradient {
        self.backward_with(model, last, BTreeMap::new(), sink)
    }

    /// [`Chain::backward`] where what entered some blocks has gradients of its own, beside those that come through the block.
    pub fn backward_with(
        mut self,
        model: &dyn InBlocks,
        last: FlowGradient,
        mut own: BTreeMap<usize, FlowGradient>,
        sink: &mut dyn Sink,
    ) -> FlowGradient {
        let mut gradient = last;
        while let (Some(flow), Some(depends)) = (self.flows.pop(), self.depends.pop()) {
            let block = self.flows.len();
            let parameters = sink.parameters(self.tower, block);
            let nothing_below = !depends.0 && !depends.1 && parameters.is_empty();
            let nothing_comes = gradient.hidden.is_none() && gradient.carried.is_none();
            let more = own.remove(&block).unwrap_or_default();
            if nothing_below || (nothing_comes && own.is_empty() && more.hidden.is_none() && more.carried.is_none()) {
                return FlowGradient::default();
            }
            let input = flow.leaf(depends);
            drop(flow);
            let (total, passed) = with_grad(|| self.weighed(model, block, &input, &mut gradient));
            let leaves: Vec<Tensor> = input.wanting().map(Tensor::shallow_clone).collect();
            let wanted: Vec<Tensor> = parameters.iter().chain(&leaves).map(Tensor::shallow_clone).collect();
            let mut found = match total {
                Some(total) if !wanted.is_empty() => Tensor::run_backward(&[total], &wanted, false, false),
                _ => wanted.iter().map(|_| Tensor::new()).collect(),
            };
            let mut of_leaves = found.split_off(parameters.len()).into_iter();
            let mut take = |depends: bool| depends.then(|| of_leaves.next()).flatten().filter(Tensor::defined);
            gradient.hidden = sum(take(depends.0), more.hidden);
            gradient.carried = sum(sum(take(depends.1), passed), more.carried);
            if !parameters.is_empty() {
                sink.add(self.tower, block, found);
            }
        }
        gradient
    }

    /// What has the wanted gradient: the sum of outputs times their gradients, which is taken out of `gradient`. A companion that is handed
    /// on as it is hands its gradient on.
    fn weighed(
        &self,
        model: &dyn InBlocks,
        block: usize,
        input: &Flow,
        gradient: &mut FlowGradient,
    ) -> (Option<Tensor>, Option<Tensor>) {
        let out = model.run_block(self.tower, block, input);
        let mut passed = None;
        let hidden = gradient.hidden.take().and_then(|g| product(&out.hidden, &g));
        let carried = gradient.carried.take().and_then(|g| {
            if is_same(input.carried(), out.carried()) {
                passed = Some(g);
                return None;
            }
            out.carried().and_then(|carried| product(carried, &g))
        });
        (sum(hidden, carried), passed)
    }
}

/// The scalar whose gradient with respect to `output` is `gradient`; nothing where `output` depends on nothing that trains.
pub fn product(output: &Tensor, gradient: &Tensor) -> Option<Tensor> {
    output.requires_grad().then(|| (output * gradient).sum(Kind::Float))
}

fn sum(left: Option<Tensor>, right: Option<Tensor>) -> Option<Tensor> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left + right),
        (left, right) => left.or(right),
    }
}

//! How long what is left takes.
//!
//! Estimates get better with every stage that ends, so seconds cannot be summed once. What is kept up to date is how many stages are left of
//! each shape: a sort of stage with the shapes of what waits for it. A million stages of a grid have a few dozen shapes.

use std::collections::{BTreeSet, HashMap};

use super::{State, costs::Costs};
use crate::{Estimates, Graph};

/// No shape: the stage was there from the start.
const NONE: u32 = u32::MAX;

/// What is left to do, by shape.
#[derive(Debug)]
pub(super) struct Remaining {
    costs: Costs,
    /// By stage.
    shape: Vec<u32>,
    /// Every shape comes after those that it contains.
    shapes: Vec<Shape>,
    running: BTreeSet<usize>,
}

/// A sort of stage, and the shapes that wait for one of its stages.
#[derive(Debug)]
struct Shape {
    sort: u32,
    below: Vec<u32>,
    /// Stages of this shape that wait or are ready.
    open: usize,
}

impl Remaining {
    /// What is left where `present` says what is there.
    pub fn new(graph: &Graph, present: &[bool], costs: Costs) -> Self {
        let mut shape = vec![NONE; graph.stages.len()];
        let mut shapes: Vec<Shape> = Vec::new();
        let mut known: HashMap<(u32, Vec<u32>), u32> = HashMap::new();
        for (position, stage) in graph.stages.iter().enumerate().rev().filter(|(position, _)| !present[*position]) {
            let open = stage.dependents.iter().map(|&dependent| shape[dependent]).filter(|&shape| shape != NONE);
            let below: BTreeSet<u32> = open.collect();
            let key = (costs.sort[position], below.into_iter().collect());
            let at = *known.entry(key).or_insert_with_key(|(sort, below)| {
                shapes.push(Shape { sort: *sort, below: below.clone(), open: 0 });
                shapes.len() as u32 - 1
            });
            shapes[at as usize].open += 1;
            shape[position] = at;
        }
        Self { costs, shape, shapes, running: BTreeSet::new() }
    }

    /// Follows a stage.
    pub fn changed(&mut self, position: usize, old: State, new: State) {
        if old == State::Running {
            self.running.remove(&position);
        }
        if new == State::Running {
            self.running.insert(position);
        }
        if let Some(shape) = self.shapes.get_mut(self.shape[position] as usize) {
            let is_left = |state: State| usize::from(matches!(state, State::Waiting | State::Ready));
            shape.open = shape.open + is_left(new) - is_left(old);
        }
    }

    /// Expected seconds of what waits or is ready, one stage after the other, by what `of` says of a stage of each sort.
    pub fn work(&self, graph: &Graph, estimates: &Estimates, of: impl Fn(usize) -> usize, parts: usize) -> Vec<f64> {
        let seconds = self.costs.seconds(graph, estimates);
        let mut work = vec![0.0; parts];
        for shape in self.shapes.iter().filter(|shape| shape.open > 0) {
            let sort = shape.sort as usize;
            work[of(self.costs.example[sort])] += shape.open as f64 * seconds[sort];
        }
        work
    }

    /// Expected seconds with `slots` workers: the larger of total work and longest chain. A chain ends where a stage fails; what else waits
    /// for a skipped stage still counts it, which nobody would notice.
    pub fn seconds(&self, graph: &Graph, estimates: &Estimates, slots: usize, fraction: impl Fn(usize) -> f64) -> f64 {
        let seconds = self.costs.seconds(graph, estimates);
        let (mut work, mut longest) = (0.0, 0.0_f64);
        // Of each shape, with what waits for it and without the stage itself.
        let (mut chain, mut below) = (Vec::with_capacity(self.shapes.len()), Vec::with_capacity(self.shapes.len()));
        for shape in &self.shapes {
            let own = seconds[shape.sort as usize];
            below.push(shape.below.iter().map(|&shape| chain[shape as usize]).fold(0.0, f64::max));
            chain.push(own + below[below.len() - 1]);
            if shape.open > 0 {
                work += own * shape.open as f64;
                longest = longest.max(chain[chain.len() - 1]);
            }
        }
        for &position in &self.running {
            let left = self.costs.of(position, &seconds) * (1.0 - fraction(position).clamp(0.0, 1.0));
            work += left;
            longest = longest.max(left + below.get(self.shape[position] as usize).copied().unwrap_or_default());
        }
        (work / slots.max(1) as f64).max(longest)
    }
}

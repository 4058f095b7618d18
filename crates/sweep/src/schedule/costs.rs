//! Stages that take the same time, as far as an estimate can tell: a graph has few kinds of them, however many stages it has.

use std::{collections::HashMap, sync::Arc};

use crate::{Estimates, Graph, detail, estimate::default_seconds};

/// The sort of every stage.
#[derive(Debug)]
pub(super) struct Costs {
    /// By stage.
    pub sort: Vec<u32>,
    /// One stage of each sort.
    pub example: Vec<usize>,
}

impl Costs {
    pub fn new(graph: &Graph) -> Self {
        let mut known = HashMap::new();
        let mut example = Vec::new();
        let sorts = graph.stages.iter().enumerate().map(|(position, stage)| {
            let kind = &stage.node.stage;
            // Stages of one dense model share its name.
            let model = Arc::as_ptr(&stage.model).cast::<u8>();
            let sort = (model, kind.kind(), detail(kind), default_seconds(kind).to_bits());
            *known.entry(sort).or_insert_with(|| {
                example.push(position);
                example.len() as u32 - 1
            })
        });
        let sort = sorts.collect();
        Self { sort, example }
    }

    /// Expected seconds of each sort.
    pub fn seconds(&self, graph: &Graph, estimates: &Estimates) -> Vec<f64> {
        self.example.iter().map(|&stage| estimates.seconds(&graph.stages[stage])).collect()
    }

    /// Expected seconds of a stage, from those of its sort.
    pub fn of(&self, position: usize, seconds: &[f64]) -> f64 {
        seconds[self.sort[position] as usize]
    }
}

//! The stages of a step `structure`: one for each tower that loses something.

use std::sync::Arc;

use super::{Doing, Done, Planner};
use crate::{Stage, stage::Inputs};

impl Planner {
    /// Removes heads, channels and blocks of the towers of a state, each as the state has it.
    pub(super) fn structure(&mut self, Doing { run, dense, .. }: Doing<'_>, state: u32, number: u32) -> Done {
        let config = self.structures.value(number);
        let before = self.states.all[state as usize].clone();
        let mut after = before.clone();
        let mut nodes = Vec::new();
        for tower in config.towers() {
            let calibrated = config.calibrates_tower(tower);
            let node = Stage::Structure {
                tower,
                target: *config.tower(tower),
                score: config.score_of(tower),
                block_score: config.block_score_of(tower),
                calibration: calibrated.then(|| config.calibration.config()),
                data: calibrated.then(|| run.data.for_calibration()),
                seed: (calibrated || config.draws_tower(tower)).then_some(run.seed),
                compute: run.model.compute,
            };
            // A gradient sees every tower, activations come from those before this one, and weights are its own.
            let sees = |other| match calibrated {
                true => config.differentiates(tower) || other <= tower,
                false => other == tower,
            };
            let (masks, merge) = (before.masks(sees), before.merge);
            let inputs = Inputs { dense: Some(dense), masks, merge, ..Inputs::default() };
            let node = node.node_with(inputs, &mut self.buffer);
            after.change(tower, node.key);
            nodes.push(Arc::new(node));
        }
        Done { nodes, state: self.states.number(after) }
    }
}

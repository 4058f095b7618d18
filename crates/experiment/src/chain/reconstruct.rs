//! The stages of a step `reconstruct`: one for each tower, in the order in which they run.

use std::sync::Arc;

use super::{Doing, Done, Planner};
use crate::{Stage, Tower, reconstruct::WindowInputs, stage::Inputs};

impl Planner {
    /// Reconstructs the towers that steps have changed, and those that read what has changed where that is to be made good.
    pub(super) fn reconstruct(&mut self, Doing { run, dense, .. }: Doing<'_>, state: u32, number: u32) -> Done {
        let config = self.reconstructs.value(number);
        let before = self.states.all[state as usize].clone();
        let mut after = before.clone();
        let mut nodes = Vec::new();
        let sees_changes = config.inputs == WindowInputs::Changed;
        for tower in Tower::ALL.into_iter().filter(|&tower| config.tower(tower).tune) {
            let changed = |other| before.merge.is_some() || after.masks.iter().any(|masked| masked.tower == other);
            if !config.is_due(tower, changed) {
                continue;
            }
            // What enters a window of the dense model depends on no other tower.
            let masks = after.masks(|other| if sees_changes { other <= tower } else { other == tower });
            let node = Stage::Reconstruct {
                tower,
                training: Box::new(config.training()),
                calibration: config.calibration(tower),
                data: run.data.for_calibration(),
                seed: run.seed,
                compute: run.model.compute,
            }
            .node_with(
                Inputs { dense: Some(dense), masks, merge: before.merge, ..Inputs::default() },
                &mut self.buffer,
            );
            after.change(tower, node.key);
            nodes.push(Arc::new(node));
        }
        Done { nodes, state: self.states.number(after) }
    }
}

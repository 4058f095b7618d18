//! Samples that go through a tower one by one.

use ressa_experiment::Tower;
use ressa_models::{Flow, Sample, VisionLanguage};
use tch::no_grad;

use crate::{
    error::PruneError,
    walk::{Blocks, Flows, InMemory, Listed, Shown, Together, Walk},
};

/// Runs samples through the blocks of a tower, each alone; `enter` sees what enters a block, by its number, before it runs.
pub(super) fn alone(
    model: &dyn VisionLanguage,
    tower: Tower,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
    enter: &mut dyn FnMut(usize, &Flow),
) -> Result<(), PruneError> {
    no_grad(|| {
        let blocks = Shown(model);
        let flows = InMemory::new(blocks.device());
        let mut walk = Walk::new(blocks, flows);
        walk.arrive_in(tower, &Listed::new(samples), Together::Alone)?;
        let blocks = model.blocks(tower);
        for block in 0..blocks {
            for at in 0..walk.flows.len() {
                let flow = walk.flows.get(at)?;
                enter(block, &flow);
                walk.flows.put(at, &flow, model.run_block(tower, block, &flow))?;
            }
            walk.flows.turn()?;
            progress((block + 1) as f64 / blocks as f64);
        }
        Ok(())
    })
}

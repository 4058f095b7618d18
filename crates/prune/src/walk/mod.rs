//! The walk through the blocks of a model: layers outside, samples inside, one tower after the other.
//!
//! Only the activations between two blocks are held, for all samples; a block runs over all of them before the next one is looked at. What the
//! walk is for decides the caller: to collect statistics, to prune, or only to get to the next tower. Two traits say where things are:
//! [`Blocks`] where a block's weights come from and go to (a resident model, or a folder of which one block at a time is brought to the
//! device), [`Flows`] where activations live (memory or files).
//!
//! Samples of one shape run together ([`Together`]), others apart. So all tokens are real, and statistics hold no padding. What a sample adds is
//! summed over its own tokens, and on a CPU added in the order of the samples: statistics are then those of samples that run alone, to the bit as far
//! as the product of several rows is that of each, which is what `MKL_CBWR` makes sure of. On another device they are added as they come, with the
//! rounding of that device's products.

mod blocks;
mod enter;
mod flows;
mod observe;
mod solve;

use ressa_experiment::{Tower, config::TokenConfig};
use tch::no_grad;

pub use blocks::{Blocks, Outcome, Resident, Shown};
pub(crate) use enter::Listed;
pub use enter::{CalibrationSet, Layout, Together};
pub use flows::{Flows, InMemory};
pub use observe::{BlockObserver, layers_of};
pub use solve::{Asking, solve};

use crate::{
    statistics::{BlockStatistics, Needs},
    tokens::TokenWeights,
};

/// A block of a tower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The tower.
    pub tower: Tower,
    /// Number of the block in the order of execution.
    pub block: usize,
}

/// What is looked at in a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Statistics that are collected of every input.
    pub needs: Needs,
    /// What each kind of token counts in them.
    pub tokens: TokenConfig,
}

/// Which activations enter the next block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// None: no later block is run.
    Nowhere,
    /// What the block gives with the weights that it came with.
    Before,
    /// What it gives with those that it was left with: it runs a second time.
    After,
}

/// What is done with a block and with what its layers have seen.
pub type Visit<'a, B> = dyn FnMut(&mut B, BlockStatistics) -> Result<(), <B as Blocks>::Error> + 'a;

/// A walk under way.
pub struct Walk<B, F> {
    /// The weights.
    pub blocks: B,
    /// The activations at the entry of the next block.
    pub flows: F,
    layout: Layout,
}

impl<B: Blocks, F: Flows<Error = B::Error>> Walk<B, F> {
    /// A walk that has not entered a tower.
    pub fn new(blocks: B, flows: F) -> Self {
        Self { blocks, flows, layout: Layout::default() }
    }

    /// A walk that continues with the activations of an earlier process.
    pub fn resume(blocks: B, flows: F, layout: Layout) -> Self {
        Self { blocks, flows, layout }
    }

    /// How the samples are distributed among the activations.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Does a block: runs all samples through it, shows `visit` the weights and what the layers have seen (nothing without `look`, or
    /// without samples), and hands on what `onward` asks for.
    ///
    /// # Errors
    /// Activations or weights that cannot be read or written or are not finite; those of `visit`.
    pub fn block(
        &mut self,
        place: Place,
        look: Option<Look>,
        onward: Onward,
        visit: &mut Visit<'_, B>,
    ) -> Result<(), B::Error> {
        no_grad(|| {
            self.blocks.bring(place)?;
            let statistics = match look {
                Some(look) => self.observe(place, look, onward == Onward::Before)?,
                None => {
                    if onward == Onward::Before {
                        self.run(place)?;
                    }
                    BlockStatistics::default()
                }
            };
            visit(&mut self.blocks, statistics)?;
            if onward == Onward::After {
                self.run(place)?;
            }
            self.blocks.leave(place)?;
            if onward != Onward::Nowhere {
                self.flows.turn()?;
            }
            Ok(())
        })
    }

    /// Runs a tower from its entry to its end without looking.
    ///
    /// # Errors
    /// As [`Walk::block`].
    pub fn pass(&mut self, tower: Tower) -> Result<(), B::Error> {
        let blocks = self.blocks.model().blocks(tower);
        (0..blocks).try_for_each(|block| self.block(Place { tower, block }, None, Onward::Before, &mut |_, _| Ok(())))
    }

    fn run(&mut self, place: Place) -> Result<(), B::Error> {
        for at in 0..self.flows.len() {
            let flow = self.flows.get(at)?;
            let next = self.blocks.model().run_block(place.tower, place.block, &flow);
            self.flows.put(at, &flow, next)?;
        }
        Ok(())
    }

    fn observe(&mut self, place: Place, look: Look, hands_on: bool) -> Result<BlockStatistics, B::Error> {
        if self.flows.len() == 0 {
            return Ok(BlockStatistics::default());
        }
        let (model, flows) = (self.blocks.model(), &mut self.flows);
        let mut flow = |at: usize| flows.get(at);
        let samples = flows.len();
        TokenWeights::new(look.tokens).look(model, place, samples, &mut flow, &mut self.layout.visible)?;
        let mut observer = BlockObserver::new(model, place, look);
        for at in 0..flows.len() {
            let flow = flows.get(at)?;
            let next = observer.run(&flow, self.layout.numbers(at), self.layout.visible.get(at));
            if hands_on {
                flows.put(at, &flow, next)?;
            }
        }
        Ok(observer.finish()?)
    }
}

impl From<Look> for TokenWeights {
    fn from(look: Look) -> Self {
        TokenWeights::new(look.tokens)
    }
}

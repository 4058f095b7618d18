//! What stands between an image encoder and a language model.

use tch::Tensor;

use crate::{
    Attended, BlockGroups, Feed, Flow, LayerId, Linear, ModelError, Mosaic, Prompts, TokenKind, Weight, layers::Parts,
    qformer::QFormer,
};

/// From image features to image positions of a language model.
///
/// The parts that it shows are prunable; [`Connector::projections`] are not, until [`Connector::join_projection`].
pub(crate) trait Connector: Parts + Send {
    /// Tokens that an image of the configured size takes in the language model.
    fn image_tokens(&self) -> usize;

    /// Linears of each block, in the order of execution.
    fn by_block(&self) -> Vec<Vec<&Linear>>;

    /// Weights that [`Connector::run_block`] reads.
    fn block_weights(&self, block: usize) -> Vec<&Weight>;

    /// Norms whose outputs are read by prunable linears and by nothing else.
    fn feeds(&self) -> Vec<Feed> {
        Vec::new()
    }

    /// What of a block can be removed as a whole.
    fn groups(&self, block: usize) -> BlockGroups {
        let _ = block;
        BlockGroups::default()
    }

    /// What enters the first block, from features `[images, tokens, width]` and the instructions about them.
    fn enter(&self, features: &Tensor, prompts: &Prompts) -> Flow;

    /// Runs one block.
    fn run_block(&self, block: usize, flow: &Flow) -> Flow;

    /// Parts of a block with a residual connection each.
    fn parts(&self, _block: usize) -> usize {
        1
    }

    /// Runs one part of a block.
    fn run_part(&self, block: usize, _part: usize, flow: &Flow) -> Flow {
        self.run_block(block, flow)
    }

    /// Heads of each attention of a block, see [`crate::InBlocks::attention_heads`].
    fn attention_heads(&self, block: usize) -> Vec<i64> {
        let _ = block;
        Vec::new()
    }

    /// What the attentions of a block look at where `flow` enters it.
    fn attended(&self, block: usize, flow: &Flow) -> Vec<Attended> {
        let _ = (block, flow);
        Vec::new()
    }

    /// What the last block leaves for the projection, `[rows, tokens, width]`.
    fn leave(&self, flow: &Flow) -> Tensor;

    /// Into the language model's embedding space; nothing to do where the last block ends there.
    fn project(&self, states: &Tensor) -> Tensor {
        states.shallow_clone()
    }

    /// What the language model reads of the features of an image's tiles, `[rows, tokens, width]` in its embedding space; all of them where a
    /// family has no tiles.
    fn lay(&self, states: &Tensor, mosaic: &Mosaic) -> Tensor {
        let _ = mosaic;
        states.shallow_clone()
    }

    /// What the language model reads, from what left the last block.
    fn language_input(&self, flow: &Flow) -> Tensor {
        self.project(&self.leave(flow))
    }

    /// [`Connector::enter`], all blocks, [`Connector::leave`].
    fn forward(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        let entry = self.enter(features, prompts);
        self.leave(&(0..self.by_block().len()).fold(entry, |flow, block| self.run_block(block, &flow)))
    }

    /// Flows at the first block as the rows of one, where their shapes are the same.
    fn stack(&self, flows: &[Flow]) -> Option<Flow>;

    /// What the tokens are that enter a block with `flow`.
    fn token_kinds(&self, flow: &Flow) -> Vec<TokenKind>;

    /// What the tokens are that a layer reads when its block runs on `flow`.
    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        let _ = layer;
        self.token_kinds(flow)
    }

    /// Linears that are not pruned and can be updated.
    fn projections(&self) -> Vec<&Linear> {
        Vec::new()
    }

    /// Makes the projection the last block, prunable like those before it. Answers whether there is one.
    fn join_projection(&mut self) -> bool {
        false
    }

    /// Whether the projection is the last block.
    fn has_joined(&self) -> bool {
        false
    }

    /// Learned queries `[1, queries, width]`, where it has some.
    fn queries(&self) -> Option<&Weight> {
        None
    }

    /// Leaves some of the learned queries, i64 in ascending order; nothing to do where there are none.
    fn keep_queries(&mut self, kept: &Tensor) {
        let _ = kept;
    }

    /// Every weight, to change: of the prunable parts, and of the projections with the learned queries behind them.
    fn all_weights_mut(&mut self) -> (Vec<&mut Weight>, Vec<&mut Weight>) {
        (self.weights_mut(), Vec::new())
    }

    /// Whether instructions fit into the positions that it has.
    ///
    /// # Errors
    /// How many tokens there are, and how many there may be.
    fn check_prompts(&self, _prompts: &Prompts) -> Result<(), ModelError> {
        Ok(())
    }

    /// The Q-Former, where it is one: retrieval looks at its queries.
    fn qformer(&self) -> Option<&QFormer> {
        None
    }
}

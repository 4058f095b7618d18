//! What an image encoder does for a vision-language model.

use tch::Tensor;

use crate::{Attended, BlockGroups, Feed, Flow, Linear, TensorMap, Weight, layers::Parts};

/// From pixels to image features, block by block.
pub(crate) trait ImageEncoder: Parts + Send {
    /// Linears of each block, in the order of execution.
    fn by_block(&self) -> Vec<Vec<&Linear>>;

    /// Weights that [`ImageEncoder::run_block`] reads.
    fn block_weights(&self, block: usize) -> Vec<&Weight>;

    /// Norms whose outputs are read by prunable linears and by nothing else.
    fn feeds(&self) -> Vec<Feed>;

    /// What of a block can be removed as a whole.
    fn groups(&self, block: usize) -> BlockGroups {
        let _ = block;
        BlockGroups::default()
    }

    /// What enters the first block, from pixels `[images, 3, height, width]`.
    fn enter(&self, pixels: &Tensor) -> Flow;

    /// The same from patches `[1, patches, values]` of one image, in so many rows and columns, in the order in which the encoder's family has
    /// them; nothing where the encoder cuts images itself.
    fn enter_patches(&self, patches: &Tensor, grid: [i64; 2]) -> Option<Flow> {
        let _ = (patches, grid);
        None
    }

    /// What enters the first block from tiles `[tiles, 3, side, side]`, of each of which so many rows and columns of patches are no padding;
    /// nothing where the encoder reads images whole.
    fn enter_tiles(&self, tiles: &Tensor, real: &[[i64; 2]]) -> Option<Flow> {
        let _ = (tiles, real);
        None
    }

    /// Flows at the first block as the rows of one, where their shapes are the same.
    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        Flow::stack(flows, 0)
    }

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

    /// Image features `[images, tokens, width]` from what left the last block.
    fn leave(&self, flow: &Flow) -> Tensor;

    /// Number of blocks that features follow from; those behind are in the checkpoint and change nothing.
    fn needed(&self) -> usize {
        self.by_block().len()
    }

    /// Image features `[images, tokens, width]`.
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let flow = (0..self.needed()).fold(self.enter(pixels), |flow, block| self.run_block(block, &flow));
        self.leave(&flow)
    }

    /// Makes tensors of an encoder of the same shape for another image size fit this one.
    fn refit(&self, tensors: &mut TensorMap) {
        let _ = tensors;
    }
}

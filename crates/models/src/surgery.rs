//! Looking at the weights of a model and changing them: masks, updates, other values, other parts.

use tch::Tensor;

use crate::{BlockGroups, LayerId, Linear, ModelError, TensorMap, Tower, VisionLanguage, Weight};

/// A model whose weights can be reached by name and place.
pub trait Surgery {
    /// This model with the image encoder of another one, as that one computes with masks and adapters applied; its positions are
    /// interpolated to this model's image size. Shares all other weights with this model.
    ///
    /// # Errors
    /// An image encoder of another shape, or a model that takes none.
    fn with_vision_of(&self, other: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, ModelError> {
        let _ = other;
        Err(ModelError::Config("this model cannot take another image encoder".to_owned()))
    }

    /// Every prunable linear with its place, in the order of execution: vision blocks, Q-Former layers, language blocks.
    fn linears(&self) -> Vec<(&LayerId, &Linear)>;

    /// The same, to change masks, adapters or weights.
    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)>;

    /// Makes the projection into the language model a layer of the connector, its last block: prunable, and pruned by masks that name it. Answers
    /// whether there is one that was not prunable before; a connector may end in prunable layers.
    fn join_projection(&mut self) -> bool {
        false
    }

    /// What of a block can be removed as a whole.
    fn groups(&self, tower: Tower, block: usize) -> BlockGroups {
        let _ = (tower, block);
        BlockGroups::default()
    }

    /// Linears between the towers that are not pruned and can be updated: the projection into the language model, heads of retrieval.
    fn connectors(&self) -> Vec<&Linear> {
        Vec::new()
    }

    /// The learned queries of the connector `[1, queries, width]`; `None` where it has none.
    fn queries(&self) -> Option<&Weight> {
        None
    }

    /// Leaves some of the learned queries, i64 in ascending order: the model reads an image as fewer tokens from then on. Their updates are dropped.
    ///
    /// # Errors
    /// A model without queries, or one that has fewer.
    fn keep_queries(&mut self, kept: &Tensor) -> Result<(), ModelError> {
        let _ = kept;
        Err(ModelError::Config("this model has no learned queries".to_owned()))
    }

    /// Every weight that masks or updates can sit on: of prunable linears, of norms, of what connects the towers, learned queries; biases
    /// among them.
    fn weights(&self) -> Vec<&Weight> {
        self.linears().into_iter().flat_map(|(_, linear)| linear.weights()).collect()
    }

    /// Gains and shifts of a tower's norms, those before its first block and after its last among them.
    fn norms(&self, tower: Tower) -> Vec<&Weight> {
        let _ = tower;
        Vec::new()
    }

    /// Weights that [`crate::InBlocks::run_block`] reads: of the block's linears and norms, biases among them. T5's last encoder block also runs the
    /// encoder's last norm.
    fn block_weights(&self, tower: Tower, block: usize) -> Vec<&Weight> {
        let linears = self.linears().into_iter().filter(|(id, _)| (id.tower, id.block) == (tower, block));
        linears.flat_map(|(_, linear)| linear.weights()).collect()
    }

    /// The same, to change.
    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        self.linears_mut().into_iter().flat_map(|(_, linear)| linear.weights_mut()).collect()
    }

    /// A second model over the same weights, with its own masks, adapters and taps.
    fn shallow_clone(&self) -> Box<dyn VisionLanguage>;

    /// Every tensor by its name in the checkpoint, sharing storage. Linears give their own weight, without mask and adapter.
    fn tensors(&self) -> TensorMap;
}

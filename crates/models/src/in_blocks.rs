//! Running a model a block at a time.

use tch::Tensor;

use crate::{AnswerBatch, Attended, Flow, Infer, LayerId, Prompts, Sample, TextBatch, TokenKind, Tower};

/// What a tower is entered with.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// The image encoder: pixels `[images, 3, height, width]`.
    Pixels(&'a Tensor),
    /// The connector: image features `[images, tokens, width]` and the instructions about them.
    Features {
        /// What left the image encoder.
        features: &'a Tensor,
        /// The instructions.
        prompts: &'a Prompts,
    },
    /// The language model: the visual prefix `[rows, queries, language width]`, the instructions, and the answers that are forced.
    Prefix {
        /// What left the connector.
        prefix: &'a Tensor,
        /// The instructions as the language model reads them.
        prompt: &'a TextBatch,
        /// The answers.
        answers: AnswerBatch<'a>,
    },
}

/// Target tokens of a batch.
#[derive(Debug)]
pub struct Targets {
    /// Target ids, i64 `[rows, tokens]`: the answer and its end token, padded.
    pub ids: Tensor,
    /// True where a target counts, bool `[rows, tokens]`.
    pub mask: Tensor,
}

/// A model whose towers are entered, run block by block, and left.
pub trait InBlocks: Infer {
    /// Blocks of a tower, in the order they run (T5: encoder, then decoder).
    fn blocks(&self, tower: Tower) -> usize;

    /// The first block of the language model that reads answers alone, behind those of its encoder; nothing where every block reads the answer
    /// behind the prompt.
    fn answers_from(&self) -> Option<usize> {
        None
    }

    /// What enters the first block of a tower for a sample. Runs the towers below with their current weights.
    fn enter(&self, tower: Tower, sample: &Sample) -> Flow {
        let Sample { pixels, prompt, answer } = sample;
        if tower == Tower::Vision {
            return self.enter_from(Entry::Pixels(pixels));
        }
        let features = self.encode_images(pixels);
        if tower == Tower::Connector {
            return self.enter_from(Entry::Features { features: &features, prompts: prompt });
        }
        let prefix = self.visual_prefix(&features, prompt);
        let answers = AnswerBatch::whole(std::slice::from_ref(answer));
        self.enter_from(Entry::Prefix { prefix: &prefix, prompt: &prompt.language, answers })
    }

    /// What enters the first block of a tower, from what [`InBlocks::leave`] gave for the tower below. Differentiable in what it is
    /// made of.
    fn enter_from(&self, entry: Entry<'_>) -> Flow;

    /// What leaves a tower, from what left its last block: image features, the language model's prefix (the queries' outputs where there is
    /// none), logits of the answers. Differentiable.
    fn leave(&self, tower: Tower, flow: &Flow) -> Tensor;

    /// Flows at the entry of the same tower as one flow whose rows do not see each other; `None` where their shapes differ.
    fn stack(&self, tower: Tower, flows: &[Flow]) -> Option<Flow> {
        let _ = (tower, flows);
        None
    }

    /// What the logits that the language model leaves with are to predict.
    fn targets(&self, answers: &AnswerBatch<'_>) -> Targets;

    /// Runs one block of a tower. Calling it with a live tap shows the tap this block's inputs.
    fn run_block(&self, tower: Tower, block: usize, flow: &Flow) -> Flow;

    /// What a block leaves of the tokens that enter it `[rows, tokens, width]`, before anything that follows a stack of blocks.
    fn residual(&self, tower: Tower, block: usize, flow: &Flow) -> Tensor {
        self.run_block(tower, block, flow).hidden
    }

    /// Parts of a block that follow each other, each with a residual connection of its own: attention, then the feed-forward layer. 1 for a block
    /// that is not divided.
    fn parts(&self, tower: Tower, block: usize) -> usize {
        let _ = (tower, block);
        1
    }

    /// Runs one part of a block; all of them in their order are [`InBlocks::run_block`].
    fn run_part(&self, tower: Tower, block: usize, part: usize, flow: &Flow) -> Flow {
        let _ = part;
        self.run_block(tower, block, flow)
    }

    /// Heads of each attention of a block whose distribution can be looked at: that over the block's own tokens, then that over another tower's or
    /// stack's; nothing for a block without attention, one that nothing follows from, and architectures that do not say.
    fn attention_heads(&self, tower: Tower, block: usize) -> Vec<i64> {
        let _ = (tower, block);
        Vec::new()
    }

    /// What the attentions of a block look at where `flow` enters it, in the order of [`InBlocks::attention_heads`]. Differentiable.
    fn attended(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<Attended> {
        let _ = (tower, block, flow);
        Vec::new()
    }

    /// What the tokens are that enter a block with `flow`.
    fn token_kinds(&self, tower: Tower, block: usize, flow: &Flow) -> Vec<TokenKind> {
        let _ = (tower, block);
        TokenKind::parts(&[(TokenKind::Text, flow.hidden.size()[1])])
    }

    /// What the tokens are that a layer reads when its block runs on `flow`: all that enter the block, some of them, or, where it looks at
    /// something else, that (image features, encoder memory).
    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        self.token_kinds(layer.tower, layer.block, flow)
    }
}

//! Forward and backward passes of a model over a batch, in operations, bytes and memory.

use ressa_experiment::{Tower, search};

use crate::{
    model::{BlockKind, Layer, Model, Reads, Stack},
    program::{block_cost, evaluation, training},
    work::{Machine, Work},
};

/// A batch by its lengths; all rows are as long as the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Batch {
    /// Images that the rows are about.
    pub images: f64,
    /// Rows of text.
    pub rows: f64,
    /// Tokens that the connector reads, for each row.
    pub instruction: f64,
    /// Tokens of the prompt.
    pub prompt: f64,
    /// Tokens of the answer.
    pub answer: f64,
}

impl Batch {
    /// Tokens that run through layers of a kind.
    pub fn tokens(&self, model: &Model, reads: Reads) -> f64 {
        let instruction = if model.reads_instruction { self.instruction } else { 0.0 };
        match reads {
            Reads::Patches => self.images * model.patches,
            Reads::QueriesAndText => self.rows * (model.queries + instruction),
            Reads::Queries => self.rows * model.queries,
            Reads::Text => self.rows * instruction,
            Reads::Sequence => self.rows * self.sequence(model),
            Reads::Answer => self.rows * self.answer,
        }
    }

    /// Tokens of a row in an encoder, or in a decoder-only model.
    fn sequence(&self, model: &Model) -> f64 {
        model.queries + self.prompt + if model.has_decoder() { 0.0 } else { self.answer }
    }

    /// Tokens of a stack's residual stream.
    fn stream(&self, model: &Model, kind: BlockKind) -> f64 {
        self.tokens(
            model,
            match kind {
                BlockKind::Vision => Reads::Patches,
                BlockKind::Qformer => Reads::QueriesAndText,
                BlockKind::T5Decoder => Reads::Answer,
                BlockKind::T5Encoder | BlockKind::Llama | BlockKind::Opt => Reads::Sequence,
            },
        )
    }

    /// Pairs of queries and keys in the attention of one block, all rows together.
    fn pairs(&self, model: &Model, kind: BlockKind) -> f64 {
        let instruction = if model.reads_instruction { self.instruction } else { 0.0 };
        match kind {
            BlockKind::Vision => self.images * model.patches.powi(2),
            // Every other block looks at the image as well.
            BlockKind::Qformer => {
                self.rows * ((model.queries + instruction).powi(2) + model.queries * model.patches / 2.0)
            }
            BlockKind::T5Decoder => self.rows * self.answer * (self.answer + self.sequence(model)),
            BlockKind::T5Encoder | BlockKind::Llama | BlockKind::Opt => self.rows * self.sequence(model).powi(2),
        }
    }
}

/// Whether the weight of a layer gets a gradient.
pub(crate) type Tuned<'a> = &'a dyn Fn(&Layer) -> bool;

/// A model, a card and a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub machine: &'a Machine<'a>,
    pub batch: Batch,
}

impl Pass<'_> {
    /// The forward pass of some towers.
    pub fn forward(&self, runs: impl Fn(Tower) -> bool) -> Work {
        let mut work: Work =
            self.model.stacks.iter().filter(|stack| runs(stack.kind.tower())).map(|stack| self.stack(stack)).sum();
        if runs(Tower::Language) {
            work += self.head();
        }
        work
    }

    /// The image encoder alone.
    pub fn vision(&self) -> Work {
        self.forward(|tower| tower == Tower::Vision)
    }

    /// Connector and language model up to the first step of a search, for features that are there. Of a decoder that looks at an encoder's states,
    /// only the keys and values of these are made.
    pub fn reading(&self) -> Work {
        let runs = |kind: BlockKind| kind != BlockKind::Vision && kind != BlockKind::T5Decoder;
        let stacks = self.model.stacks.iter().filter(|stack| runs(stack.kind));
        let read: Work = stacks.map(|stack| self.stack_moving(stack, evaluation::READ_SHARE)).sum();
        let memory = |layer: &&Layer| layer.kind == BlockKind::T5Decoder && layer.reads == Reads::Sequence;
        let tokens = self.batch.tokens(self.model, Reads::Sequence);
        let made = |layer: &Layer| self.machine.product(tokens, layer.inputs, layer.outputs, 1.0);
        [read, self.model.layers.iter().filter(memory).map(made).sum()].into_iter().sum()
    }

    fn stack(&self, stack: &Stack) -> Work {
        self.stack_moving(stack, 1.0)
    }

    /// A stack that moves a share of the bytes that its blocks move in a training.
    fn stack_moving(&self, stack: &Stack, share: f64) -> Work {
        let cost = block_cost(stack.kind);
        let mut work = self.products(stack);
        let issued = work.launches;
        let pairs = self.batch.pairs(self.model, stack.kind);
        work += self.machine.attention(4.0 * pairs * stack.attention, stack.blocks);
        let bytes = self.moved(stack, cost.forward_widths, cost.forward_inners);
        let rest = cost.forward_launches * stack.blocks - issued - stack.blocks;
        work += self.machine.traffic(bytes * stack.blocks * share, rest.max(stack.blocks));
        work
    }

    fn products(&self, stack: &Stack) -> Work {
        let layers = self.model.layers.iter().filter(|layer| layer.kind == stack.kind);
        let one = |layer: &Layer| {
            let tokens = self.batch.tokens(self.model, layer.reads);
            self.machine.product(tokens, layer.inputs, layer.outputs, 1.0)
        };
        layers.map(one).sum()
    }

    /// Bytes that one block moves outside matrix products.
    fn moved(&self, stack: &Stack, widths: f64, inners: f64) -> f64 {
        let tokens = self.batch.stream(self.model, stack.kind);
        tokens * (widths * stack.width + inners * stack.inner) * self.machine.bytes()
    }

    /// The logits of the answers.
    fn head(&self) -> Work {
        if self.model.words == 0.0 {
            return Work::default();
        }
        let Model { words, word_width, .. } = *self.model;
        self.machine.product(self.batch.rows * self.batch.answer, word_width, words, 1.0)
    }

    /// The backward pass: gradients of the activations from the answers down to the lowest layer that gets a gradient, and of the weights asked for.
    pub fn backward(&self, tuned: Tuned<'_>) -> Work {
        let lowest = self.lowest(tuned);
        let mut work = self.head();
        for (position, stack) in self.model.stacks.iter().enumerate() {
            if lowest.is_none_or(|lowest| position < lowest) {
                continue;
            }
            let cost = block_cost(stack.kind);
            let mut own = self.products(stack);
            let pairs = self.batch.pairs(self.model, stack.kind);
            // The fused kernel computes the weights again.
            let factor = if cost.kept_map_bytes == 0.0 { 10.0 } else { 8.0 };
            own += self.machine.attention(factor * pairs * stack.attention, stack.blocks);
            for layer in self.model.layers.iter().filter(|layer| layer.kind == stack.kind && tuned(layer)) {
                let tokens = self.batch.tokens(self.model, layer.reads);
                own += self.machine.product(layer.outputs, tokens, layer.inputs, 1.0);
            }
            let bytes = self.moved(stack, cost.backward_widths, cost.backward_inners);
            let rest = cost.backward_launches * stack.blocks - own.launches;
            own += self.machine.traffic(bytes * stack.blocks, rest.max(stack.blocks));
            work += own;
        }
        work
    }

    /// Position of the first stack with a gradient.
    fn lowest(&self, tuned: Tuned<'_>) -> Option<usize> {
        let has = |stack: &Stack| self.model.layers.iter().any(|layer| layer.kind == stack.kind && tuned(layer));
        self.model.stacks.iter().position(has)
    }

    /// Bytes that a forward pass keeps for its backward pass. With `recompute`: the inputs of the blocks, and one block's inside.
    pub fn kept(&self, tuned: Tuned<'_>, recompute: bool) -> f64 {
        let Some(lowest) = self.lowest(tuned) else { return 0.0 };
        let bytes = self.machine.bytes();
        let inside = |stack: &Stack| {
            let cost = block_cost(stack.kind);
            let maps = self.batch.pairs(self.model, stack.kind) * stack.heads * cost.kept_map_bytes;
            self.moved(stack, cost.kept_widths, cost.kept_inners) + maps
        };
        let stacks = &self.model.stacks[lowest..];
        if !recompute {
            return stacks.iter().map(|stack| inside(stack) * stack.blocks).sum();
        }
        let inputs = |stack: &Stack| self.batch.stream(self.model, stack.kind) * stack.width * bytes * stack.blocks;
        stacks.iter().map(inputs).sum::<f64>() + stacks.iter().map(inside).fold(0.0, f64::max)
    }

    /// Bytes of activations that exist at once in a pass without gradients.
    pub fn live(&self, runs: impl Fn(Tower) -> bool) -> f64 {
        let of = |stack: &Stack| {
            // The bytes of one attention map where it is written out: logits and weights.
            let maps = self.batch.pairs(self.model, stack.kind) * stack.heads * block_cost(stack.kind).kept_map_bytes;
            self.moved(stack, search::LIVE_WIDTHS as f64, search::LIVE_INNERS as f64) + maps
        };
        self.model.stacks.iter().filter(|stack| runs(stack.kind.tower())).map(of).fold(0.0, f64::max)
    }

    /// Probabilities of the attention of a stack's blocks.
    pub fn probabilities(&self, stack: &Stack) -> f64 {
        self.batch.pairs(self.model, stack.kind) * stack.heads * stack.blocks
    }

    /// The comparison of a stack's attention with a teacher's: products of queries and keys of both, and for the student's gradient two more.
    pub fn maps(&self, stack: &Stack) -> Work {
        let pairs = self.batch.pairs(self.model, stack.kind);
        let mut work = self.machine.attention(8.0 * pairs * stack.attention * stack.blocks, stack.blocks);
        let bytes = self.probabilities(stack) * training::MAP_TRAFFIC;
        work += self.machine.traffic(bytes, training::MAP_LAUNCHES * stack.blocks);
        work
    }

    /// Bytes that the comparison keeps of a stack: queries and keys of both, with the student's gradients in f32.
    pub fn compared(&self, stack: &Stack) -> f64 {
        let tokens = self.batch.stream(self.model, stack.kind);
        tokens * 2.0 * stack.attention * (2.0 * self.machine.bytes() + 4.0) * stack.blocks
    }

    /// Bytes of the features of the batch's images.
    pub fn features(&self) -> f64 {
        self.batch.images * self.model.feature_bytes(self.machine.bytes())
    }

    /// Logits of the answers, as many as there are.
    pub fn logits(&self) -> f64 {
        self.batch.rows * self.batch.answer * self.model.words
    }
}

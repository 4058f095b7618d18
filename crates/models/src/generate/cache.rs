//! Keys and values that a decoder has already computed.
//!
//! A row and all its beams share one list of slots: the prompt's, then one per beam for every step. Nothing is ever moved when beams change
//! their order. Which slots a beam descends from is told by a bias on the attention's logits, the same for all blocks; it is all that a
//! change of order touches. The beams of a row are then simply the queries of one attention over the row's slots.

use ressa_experiment::search::room;
use tch::{Kind, Tensor};

/// Keys and values `[rows, slots, heads, width]`, with room for more slots.
pub(crate) struct Slots {
    key: Tensor,
    value: Tensor,
}

impl Slots {
    /// No slots, for keys `[rows, heads, tokens, width]` like these. A view of none of their tokens would keep the memory of all.
    fn none(like: &Tensor) -> Self {
        let size = like.size();
        let none = || Tensor::empty([size[0], 0, size[1], size[3]], (like.kind(), like.device()));
        Self { key: none(), value: none() }
    }

    /// From the prompt's keys and values `[rows, heads, tokens, width]`.
    pub fn new(key: &Tensor, value: &Tensor) -> Self {
        Self { key: key.transpose(1, 2).contiguous(), value: value.transpose(1, 2).contiguous() }
    }

    /// Keys and values `[rows, heads, tokens, width]` of all slots, views.
    fn views(&self, count: i64) -> (Tensor, Tensor) {
        let view = |of: &Tensor| of.narrow(1, 0, count).transpose(1, 2);
        (view(&self.key), view(&self.value))
    }

    fn each(&mut self, change: impl Fn(&Tensor) -> Tensor) {
        self.key = change(&self.key);
        self.value = change(&self.value);
    }
}

/// One block's memory.
pub(crate) struct BlockCache {
    /// What a decoder attends to of its own sequence.
    own: Slots,
    /// What it attends to of an encoder's output; no slots in a decoder-only model.
    memory: Slots,
}

impl BlockCache {
    /// A decoder-only block that has read a prompt: keys and values `[rows, heads, tokens, width]`.
    pub fn after_prompt(key: &Tensor, value: &Tensor) -> Self {
        Self { own: Slots::new(key, value), memory: Slots::none(key) }
    }

    /// A block of an encoder-decoder that has written nothing: keys and values `[rows, heads, tokens, width]` of the encoder's output.
    pub fn over_memory(key: &Tensor, value: &Tensor) -> Self {
        Self { own: Slots::none(key), memory: Slots::new(key, value) }
    }

    /// Attention of one new token per beam over what its beam has read and written, itself included. `query`, `key`, `value`
    /// `[rows * beams, heads, 1, width]`; `[rows * beams, 1, heads * width]`.
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, turn: &Turn, scale: f64) -> Tensor {
        let size = self.own.key.size();
        let put = |slots: &Tensor, new: &Tensor| {
            let mut place = slots.narrow(1, turn.from, turn.slots - turn.from);
            place.copy_(&new.reshape([size[0], -1, size[2], size[3]]));
        };
        put(&self.own.key, key);
        put(&self.own.value, value);
        let (key, value) = self.own.views(turn.slots);
        over_slots(query, &key, &value, &turn.bias, scale)
    }

    /// Attention of one new token per beam over the encoder's output; shapes as in [`BlockCache::attend`].
    pub fn attend_memory(&self, query: &Tensor, turn: &Turn, scale: f64) -> Tensor {
        let (key, value) = self.memory.views(self.memory.key.size()[1]);
        over_slots(query, &key, &value, &turn.memory_bias, scale)
    }
}

/// The beams of a row as queries of one attention.
fn over_slots(query: &Tensor, key: &Tensor, value: &Tensor, bias: &Tensor, scale: f64) -> Tensor {
    let (rows, size) = (key.size()[0], query.size());
    let (all, heads, width) = (size[0], size[1], size[3]);
    let query = query.view([rows, all / rows, heads, width]).transpose(1, 2);
    let mixed = Tensor::scaled_dot_product_attention(&query, key, value, Some(bias), 0.0, false, scale, false);
    mixed.transpose(1, 2).reshape([all, 1, heads * width])
}

/// One step's place in the memory, the same for all blocks.
pub(crate) struct Turn {
    /// First slot of this step's tokens.
    from: i64,
    /// Slots up to and including this step's.
    slots: i64,
    /// What is added to the logits over the slots, `[rows, 1 or heads, beams, slots]`: hides other beams' slots and padding.
    pub bias: Tensor,
    /// What is added to the logits over an encoder's output, `[rows, 1, 1, tokens]`.
    memory_bias: Tensor,
    /// Steps made before this one.
    pub step: i64,
    /// Beams of each row.
    pub beams: i64,
}

/// A decoder's memory.
pub(crate) struct Cache {
    /// By block.
    pub blocks: Vec<BlockCache>,
    /// Real positions before the first step, i64 `[rows]`.
    pub lengths: Tensor,
    /// What the positions of new tokens are ahead of their number.
    pub offset: i64,
    /// Position biases `[1, heads, 1, steps]` of the steps so far, the farthest first, where a decoder has them.
    pub relative: Option<Tensor>,
    memory_bias: Tensor,
    /// Very negative where a beam must not look, 0 elsewhere, `[rows, beams, capacity]`.
    hidden: Tensor,
    slots: i64,
    steps: i64,
}

impl Cache {
    /// A decoder-only memory of prompts `[rows, tokens]` of `lengths` real tokens each (i64 `[rows]`). `prompt_bias`
    /// `[rows, 1, 1, tokens]` hides padding.
    pub fn after_prompt(blocks: Vec<BlockCache>, prompt_bias: &Tensor, lengths: Tensor) -> Self {
        let hidden = prompt_bias.squeeze_dim(1);
        let slots = hidden.size()[2];
        Self {
            blocks,
            lengths,
            offset: 0,
            relative: None,
            memory_bias: prompt_bias.shallow_clone(),
            hidden,
            slots,
            steps: 0,
        }
    }

    /// An encoder-decoder's memory. `memory_bias` `[rows, 1, 1, tokens]` hides the encoder's padding.
    pub fn over_memory(blocks: Vec<BlockCache>, memory_bias: Tensor) -> Self {
        let rows = memory_bias.size()[0];
        let hidden = Tensor::zeros([rows, 1, 0], (memory_bias.kind(), memory_bias.device()));
        let lengths = Tensor::zeros([rows], (Kind::Int64, memory_bias.device()));
        Self { blocks, lengths, offset: 0, relative: None, memory_bias, hidden, slots: 0, steps: 0 }
    }

    /// A memory without blocks, for a decoder that needs none.
    #[cfg(test)]
    pub fn empty(rows: i64) -> Self {
        Self::over_memory(Vec::new(), Tensor::zeros([rows, 1, 1, 1], (Kind::Float, tch::Device::Cpu)))
    }

    /// Beams of each row.
    pub fn beams(&self) -> i64 {
        self.hidden.size()[1]
    }

    /// Makes room for one token per beam.
    pub fn advance(&mut self) -> Turn {
        let (beams, from) = (self.beams(), self.slots);
        self.slots += beams;
        self.reserve();
        // Beam `b` of a row sees slot `b` of the step.
        let _ = self.hidden.narrow(2, from, beams).diagonal(0, 1, 2).fill_(0.0);
        let step = self.steps;
        self.steps += 1;
        let bias = self.hidden.narrow(2, 0, self.slots).unsqueeze(1);
        Turn { from, slots: self.slots, bias, memory_bias: self.memory_bias.shallow_clone(), step, beams }
    }

    fn reserve(&mut self) {
        if self.slots <= self.hidden.size()[2] {
            return;
        }
        let missing = room(self.slots as u64, self.beams() as u64) as i64 - self.hidden.size()[2];
        self.hidden = self.hidden.constant_pad_nd([0, missing]).contiguous();
        // Infinite, unlike padding's: every beam sees at least its own newest slot, and half precision has no number so small.
        let _ = self.hidden.narrow(2, self.hidden.size()[2] - missing, missing).fill_(f64::NEG_INFINITY);
        for block in &mut self.blocks {
            block.own.each(|slots| slots.constant_pad_nd([0, 0, 0, 0, 0, missing]));
        }
    }

    /// Makes `beams` equal beams of each row's one.
    pub fn widen(&mut self, beams: i64) {
        self.hidden = self.hidden.expand([-1, beams, -1], false).contiguous();
    }

    /// Keeps these rows only, in this order.
    pub fn keep_rows(&mut self, rows: &[i64]) {
        let index = Tensor::from_slice(rows).to_device(self.lengths.device());
        let pick = |tensor: &Tensor| tensor.index_select(0, &index);
        self.lengths = pick(&self.lengths);
        self.memory_bias = pick(&self.memory_bias);
        self.hidden = pick(&self.hidden);
        for block in &mut self.blocks {
            block.own.each(pick);
            block.memory.each(pick);
        }
    }

    /// Lets beam `i` go on from what beam `from[i]` has written. Beams are numbered over all rows; none moves to another row.
    pub fn reorder(&mut self, from: &[i64]) {
        let index = Tensor::from_slice(from).to_device(self.lengths.device());
        let size = self.hidden.size();
        self.hidden = self.hidden.view([size[0] * size[1], size[2]]).index_select(0, &index).view(size.as_slice());
    }
}

//! Keys and values that a decoder has already computed.
//!
//! What all beams of a row share (a T5 encoder's output, a LLaMA prompt) is kept once per row; what a beam has written itself is kept per
//! beam. Beams therefore never copy the long part, and changing their order moves only the few tokens they have written.

use tch::{Kind, Tensor};

/// Keys and values `[rows, heads, tokens, width]`.
pub(crate) struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

impl KeyValue {
    fn index(&mut self, rows: &Tensor) {
        self.key = self.key.index_select(0, rows);
        self.value = self.value.index_select(0, rows);
    }
}

/// One block's memory.
pub(crate) struct BlockCache {
    /// Per row.
    pub shared: KeyValue,
    /// Per row and beam.
    pub own: Written,
}

impl BlockCache {
    pub fn new(key: Tensor, value: Tensor) -> Self {
        Self { shared: KeyValue { key, value }, own: Written::default() }
    }
}

/// What the beams have written themselves; nothing before the first step.
#[derive(Default)]
pub(crate) struct Written(Option<KeyValue>);

impl Written {
    /// Appends a step's key and value `[rows * beams, heads, 1, width]`.
    pub fn push(&mut self, key: Tensor, value: Tensor) -> &KeyValue {
        let grown = match self.0.take() {
            None => KeyValue { key, value },
            Some(own) => KeyValue { key: Tensor::cat(&[own.key, key], 2), value: Tensor::cat(&[own.value, value], 2) },
        };
        self.0.insert(grown)
    }
}

/// A decoder's memory.
pub(crate) struct Cache {
    /// By block.
    pub blocks: Vec<BlockCache>,
    /// Hides shared positions that are padding, `[rows, 1, 1, tokens]`.
    pub shared_bias: Tensor,
    /// Real tokens before the first step, i64 `[rows]`.
    pub lengths: Tensor,
    /// Steps made.
    pub steps: i64,
}

impl Cache {
    /// Keeps these rows only, in this order; `beams` of each. `rows` is i64 on the host.
    pub fn keep_rows(&mut self, rows: &[i64], beams: i64) {
        let device = self.lengths.device();
        let index = Tensor::from_slice(rows).to_device(device);
        self.shared_bias = self.shared_bias.index_select(0, &index);
        self.lengths = self.lengths.index_select(0, &index);
        for block in &mut self.blocks {
            block.shared.index(&index);
        }
        let own: Vec<i64> = rows.iter().flat_map(|row| (0..beams).map(move |beam| row * beams + beam)).collect();
        self.reorder(&own);
    }

    /// Lets beam `i` go on from what beam `from[i]` has written. Also widens one beam per row to several.
    pub fn reorder(&mut self, from: &[i64]) {
        let index = Tensor::from_slice(from).to_device(self.lengths.device());
        for own in self.blocks.iter_mut().filter_map(|block| block.own.0.as_mut()) {
            own.index(&index);
        }
    }
}

/// Attention of one new token per beam, `q` `[rows * beams, heads, 1, width]`, over its row's shared positions and the beam's own;
/// `[rows * beams, heads, 1, width]`. Logits of both parts meet in one softmax.
pub(crate) fn attend_both(q: &Tensor, block: &KeyValue, own: &KeyValue, shared_bias: &Tensor, scale: f64) -> Tensor {
    let (rows, shared_tokens) = (block.key.size()[0], block.key.size()[2]);
    let size = q.size();
    let (all, heads, width) = (size[0], size[1], size[3]);
    let beams = all / rows;
    let q = q * scale;
    // Beams of a row become the queries of one attention over the row's shared keys.
    let grouped = q.view([rows, beams, heads, width]).transpose(1, 2);
    let over_shared = grouped.matmul(&block.key.transpose(-2, -1)) + shared_bias;
    let over_shared = over_shared.transpose(1, 2).reshape([all, heads, 1, shared_tokens]);
    let over_own = q.matmul(&own.key.transpose(-2, -1));
    let weights = Tensor::cat(&[over_shared, over_own], -1).softmax(-1, None::<Kind>);
    let own_tokens = own.key.size()[2];
    let shared_weights =
        weights.narrow(-1, 0, shared_tokens).reshape([rows, beams, heads, shared_tokens]).transpose(1, 2);
    let from_shared = shared_weights.matmul(&block.value).transpose(1, 2).reshape([all, heads, 1, width]);
    from_shared + weights.narrow(-1, shared_tokens, own_tokens).matmul(&own.value)
}

/// Attention of one new token per beam over its row's shared positions only; shapes as in [`attend_both`].
pub(crate) fn attend_shared(q: &Tensor, block: &KeyValue, shared_bias: &Tensor, scale: f64) -> Tensor {
    let rows = block.key.size()[0];
    let size = q.size();
    let (all, heads, width) = (size[0], size[1], size[3]);
    let grouped = (q * scale).view([rows, all / rows, heads, width]).transpose(1, 2);
    let weights = (grouped.matmul(&block.key.transpose(-2, -1)) + shared_bias).softmax(-1, None::<Kind>);
    weights.matmul(&block.value).transpose(1, 2).reshape([all, heads, 1, width])
}

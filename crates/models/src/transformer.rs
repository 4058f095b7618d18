//! The block that image encoders are stacks of: a norm before attention, a norm before the feed-forward layer, a residual around each.
//!
//! Reference: `CLIPEncoderLayer`, `SiglipEncoderLayer`, `InstructBlipEncoderLayer` and `Dinov2Layer` in transformers: one block under several
//! names, of which DINOv2's also scales what it adds to the residual.

use tch::Tensor;

use crate::{
    Attended, Feed, GroupSet, Linear, ModelError, Scope, Unit,
    layers::{Activation, Attend, LayerNorm, attention, parts, split_heads},
};

/// What a checkpoint calls the parts of a block.
pub(crate) struct Names {
    /// The norms before attention and before the feed-forward layer.
    pub norms: [&'static str; 2],
    /// The projections of queries, keys and values, or one for all three.
    pub attention: &'static [&'static str],
    /// The projection behind attention.
    pub projection: &'static str,
    /// The feed-forward layer's linears.
    pub feed_forward: [&'static str; 2],
    /// The factors of what attention and feed-forward layer add, where there are some.
    pub scales: Option<[&'static str; 2]>,
}

/// Names of most encoders.
pub(crate) const PLAIN: Names = Names {
    norms: ["layer_norm1", "layer_norm2"],
    attention: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    projection: "self_attn.out_proj",
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: None,
};

/// Sizes of a block, and what it has.
#[derive(Clone, Copy)]
pub(crate) struct BlockShape {
    pub width: i64,
    /// Width of the feed-forward layer.
    pub inner: i64,
    pub heads: i64,
    /// Between the feed-forward layer's linears; nothing where half of the first one's outputs, through SiLU, are the gate of the others.
    pub activation: Option<Activation>,
    /// Added to the variance in norms.
    pub eps: f64,
    /// Whether the projections of queries, keys and values have biases.
    pub bias: bool,
}

struct Attention {
    /// One for all three, or three.
    qkv: Vec<Linear>,
    projection: Linear,
    heads: i64,
}

struct FeedForward {
    first: Linear,
    second: Linear,
    activation: Option<Activation>,
}

/// A block.
pub(crate) struct Block {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    scales: Option<[Tensor; 2]>,
}

parts!(Attention: qkv, projection);
parts!(FeedForward: first, second);
parts!(Block: norm1, attention, norm2, feed_forward);

impl Attention {
    fn load(scope: &Scope<'_>, names: &Names, shape: BlockShape) -> Result<Self, ModelError> {
        let BlockShape { width, heads, bias, .. } = shape;
        let outputs = 3 / names.attention.len() as i64 * width;
        let load = |name: &&str| Linear::load(&scope.at(*name), outputs, width, bias);
        Ok(Self {
            qkv: names.attention.iter().map(load).collect::<Result<_, _>>()?,
            projection: Linear::load(&scope.at(names.projection), width, width, true)?,
            heads,
        })
    }

    /// Queries, keys and values `[images, heads, tokens, width]`, and the factor on products of the first two.
    fn project(&self, x: &Tensor) -> ([Tensor; 3], f64) {
        let size = x.size();
        let width = size[2] / self.heads;
        let parts = match self.qkv.as_slice() {
            // One by one, each part's gradient would be put into zeros of the whole.
            [all] => {
                let all = all.forward(x).view([size[0], size[1], 3, self.heads, width]);
                all.permute([2, 0, 3, 1, 4]).unbind(0)
            }
            apart => apart.iter().map(|linear| split_heads(&linear.forward(x), self.heads)).collect(),
        };
        (parts.try_into().expect("queries, keys and values"), (width as f64).powf(-0.5))
    }

    fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let ([q, k, v], scale) = self.project(x);
        let attend = Attend { scale, bias, causal: false, rounded: false };
        self.projection.forward(&attention(&q, &k, &v, attend))
    }
}

impl FeedForward {
    fn load(scope: &Scope<'_>, names: &Names, shape: BlockShape) -> Result<Self, ModelError> {
        let BlockShape { width, inner, activation, .. } = shape;
        let outputs = if activation.is_some() { inner } else { 2 * inner };
        let [first, second] = names.feed_forward;
        Ok(Self {
            first: Linear::load(&scope.at(first), outputs, width, true)?,
            second: Linear::load(&scope.at(second), width, inner, true)?,
            activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let inner = self.first.forward(x);
        let inner = match self.activation {
            Some(activation) => activation.forward(&inner),
            None => {
                let halves = inner.chunk(2, -1);
                Activation::Silu.forward(&halves[0]) * &halves[1]
            }
        };
        self.second.forward(&inner)
    }
}

impl Block {
    pub fn load(scope: &Scope<'_>, names: &Names, shape: BlockShape) -> Result<Self, ModelError> {
        let norm = |name: &str| LayerNorm::load(&scope.at(name), shape.width, shape.eps);
        let [norm1, norm2] = names.norms;
        let scale = |name: &str| scope.tensor(name, &[shape.width]);
        Ok(Self {
            norm1: norm(norm1)?,
            attention: Attention::load(scope, names, shape)?,
            norm2: norm(norm2)?,
            feed_forward: FeedForward::load(scope, names, shape)?,
            scales: names
                .scales
                .map(|[of_attention, behind]| Ok::<_, ModelError>([scale(of_attention)?, scale(behind)?]))
                .transpose()?,
        })
    }

    /// What its norms feed.
    pub fn feeds(&self) -> impl Iterator<Item = Feed> {
        let readers: Vec<&Linear> = self.attention.qkv.iter().collect();
        [self.norm1.feeds(&readers), self.norm2.feeds(&[&self.feed_forward.first])].into_iter().flatten()
    }

    /// Its heads and channels.
    pub fn groups(&self) -> Vec<GroupSet> {
        let Attention { qkv, projection, heads } = &self.attention;
        let FeedForward { first, second, activation } = &self.feed_forward;
        let made: Vec<&Linear> = qkv.iter().collect();
        let heads = GroupSet::new(Unit::Heads, *heads).made_by(&made, 3 / made.len() as i64).read_by(projection);
        let halves = if activation.is_some() { 1 } else { 2 };
        vec![heads, GroupSet::new(Unit::Channels, second.shape().1).made_by(&[first], halves).read_by(second)]
    }

    /// Its heads.
    pub fn heads(&self) -> i64 {
        self.attention.heads
    }

    /// What its attention looks at in `[images, tokens, width]`.
    pub fn attended(&self, x: &Tensor, bias: Option<&Tensor>) -> Attended {
        let ([queries, keys, _], scale) = self.attention.project(&self.norm1.forward(x));
        Attended { queries, keys, scale, bias: bias.map(Tensor::shallow_clone), causal: false }
    }

    /// `[images, tokens, width]` to the same. What `bias` says of keys is added to attention's logits.
    pub fn forward(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.feed(&self.attend(x, bias))
    }

    /// The first half of [`Block::forward`].
    pub fn attend(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        x + self.scaled(self.attention.forward(&self.norm1.forward(x), bias), 0)
    }

    /// The second half.
    pub fn feed(&self, x: &Tensor) -> Tensor {
        x + self.scaled(self.feed_forward.forward(&self.norm2.forward(x)), 1)
    }

    fn scaled(&self, added: Tensor, which: usize) -> Tensor {
        match &self.scales {
            Some(scales) => added * &scales[which],
            None => added,
        }
    }
}

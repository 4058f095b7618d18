//! The interface between the two models: learned queries that read an instruction and look at image features.
//!
//! Reference: `InstructBlipQFormerModel` in transformers, `modeling_instructblip.py` (a post-norm BERT with cross-attention and a feed-forward
//! layer of their own for the queries).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use crate::{
    Linear, ModelError, Scope, TextBatch,
    config::{at_least_one, divides},
    layers::{Activation, Attend, Embedding, LayerNorm, attention, key_bias, linears, prefixed, split_heads},
};

/// `qformer_config` of a checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QFormerConfig {
    /// Tokens of the instruction's vocabulary.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Longest instruction.
    pub max_position_embeddings: i64,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Every so many layers, beginning with the first, look at the image.
    pub cross_attention_frequency: usize,
    /// Width of the image features.
    pub encoder_hidden_size: i64,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for QFormerConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: Activation::Gelu,
            max_position_embeddings: 512,
            layer_norm_eps: 1e-12,
            cross_attention_frequency: 2,
            encoder_hidden_size: 1408,
            rest: Map::new(),
        }
    }
}

impl QFormerConfig {
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        at_least_one("qformer_config.vocab_size", self.vocab_size)?;
        at_least_one("qformer_config.intermediate_size", self.intermediate_size)?;
        at_least_one("qformer_config.max_position_embeddings", self.max_position_embeddings)?;
        at_least_one("qformer_config.cross_attention_frequency", self.cross_attention_frequency as i64)?;
        divides("qformer_config.hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
    }
}

/// `embeddings`: words and positions of the instruction behind the queries, normalised together.
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    layernorm: LayerNorm,
}

impl Embeddings {
    fn load(scope: &Scope<'_>, c: &QFormerConfig) -> Result<Self, ModelError> {
        let d = c.hidden_size;
        Ok(Self {
            word_embeddings: Embedding::load(&scope.at("word_embeddings"), c.vocab_size, d)?,
            position_embeddings: Embedding::load(&scope.at("position_embeddings"), c.max_position_embeddings, d)?,
            layernorm: LayerNorm::load(&scope.at("layernorm"), d, c.layer_norm_eps)?,
        })
    }

    /// `[rows, queries + tokens, width]`.
    fn forward(&self, queries: Option<&Tensor>, text: Option<&TextBatch>) -> Tensor {
        let words = text.map(|text| {
            let positions = self.position_embeddings.weight.narrow(0, 0, text.ids.size()[1]);
            self.word_embeddings.forward(&text.ids) + positions
        });
        let parts: Vec<&Tensor> = queries.into_iter().chain(words.as_ref()).collect();
        self.layernorm.forward(&Tensor::cat(&parts, 1))
    }
}

/// `attention` or `crossattention`: `attention.{query,key,value}` and `output.{dense,LayerNorm}` with the residual inside.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    layer_norm: LayerNorm,
    heads: i64,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &QFormerConfig, key_width: i64) -> Result<Self, ModelError> {
        let d = c.hidden_size;
        let (inner, output) = (scope.at("attention"), scope.at("output"));
        Ok(Self {
            query: Linear::load(&inner.at("query"), d, d, true)?,
            key: Linear::load(&inner.at("key"), d, key_width, true)?,
            value: Linear::load(&inner.at("value"), d, key_width, true)?,
            dense: Linear::load(&output.at("dense"), d, d, true)?,
            layer_norm: LayerNorm::load(&output.at("LayerNorm"), d, c.layer_norm_eps)?,
            heads: c.num_attention_heads,
        })
    }

    /// Over the hidden states themselves.
    fn over_self(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        self.mix(x, &self.key.forward(x), &self.value.forward(x), bias)
    }

    /// Over image features `[images, tokens, width]`, of which row `r` looks at image `rows[r]`. Keys and values are computed once per image.
    fn over_images(&self, x: &Tensor, features: &Tensor, rows: &Tensor) -> Tensor {
        let of_row = |images: Tensor| images.index_select(0, rows);
        self.mix(x, &of_row(self.key.forward(features)), &of_row(self.value.forward(features)), None)
    }

    fn mix(&self, x: &Tensor, key: &Tensor, value: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let query = split_heads(&self.query.forward(x), self.heads);
        let scale = (query.size()[3] as f64).powf(-0.5);
        let (key, value) = (split_heads(key, self.heads), split_heads(value, self.heads));
        let mixed = attention(&query, &key, &value, Attend { scale, bias, causal: false });
        self.layer_norm.forward(&(self.dense.forward(&mixed) + x))
    }
}

/// `intermediate` and `output`, or `intermediate_query` and `output_query`, with the residual inside.
struct FeedForward {
    intermediate: Linear,
    output: Linear,
    layer_norm: LayerNorm,
    activation: Activation,
}

impl FeedForward {
    fn load(scope: &Scope<'_>, c: &QFormerConfig, suffix: &str) -> Result<Self, ModelError> {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        let output = scope.at(format_args!("output{suffix}"));
        Ok(Self {
            intermediate: Linear::load(&scope.at(format_args!("intermediate{suffix}.dense")), f, d, true)?,
            output: Linear::load(&output.at("dense"), d, f, true)?,
            layer_norm: LayerNorm::load(&output.at("LayerNorm"), d, c.layer_norm_eps)?,
            activation: c.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.activation.forward(&self.intermediate.forward(x));
        self.layer_norm.forward(&(self.output.forward(&hidden) + x))
    }
}

/// What the queries look at.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    /// `[images, tokens, width]`.
    pub features: &'a Tensor,
    /// i64 `[rows]`.
    pub rows: &'a Tensor,
}

/// `encoder.layer.i`: self-attention of queries and instruction together, then each part by itself.
pub(crate) struct Layer {
    attention: Attention,
    crossattention: Option<Attention>,
    query_feed_forward: FeedForward,
    text_feed_forward: FeedForward,
}

linears!(Attention: query, key, value, dense);
linears!(FeedForward: intermediate, output);
linears!(Layer: attention, crossattention, query_feed_forward, text_feed_forward);

impl Layer {
    fn load(scope: &Scope<'_>, c: &QFormerConfig, index: usize) -> Result<Self, ModelError> {
        let crossattention = if index.is_multiple_of(c.cross_attention_frequency) {
            Some(Attention::load(&scope.at("crossattention"), c, c.encoder_hidden_size)?)
        } else {
            None
        };
        Ok(Self {
            attention: Attention::load(&scope.at("attention"), c, c.hidden_size)?,
            crossattention,
            query_feed_forward: FeedForward::load(scope, c, "_query")?,
            text_feed_forward: FeedForward::load(scope, c, "")?,
        })
    }

    /// `[rows, queries + tokens, width]` to the same. `images` is needed where there are queries.
    pub fn forward(&self, x: &Tensor, queries: i64, bias: Option<&Tensor>, images: Option<Images<'_>>) -> Tensor {
        let x = self.attention.over_self(x, bias);
        let tokens = x.size()[1] - queries;
        if queries == 0 {
            return self.text_feed_forward.forward(&x);
        }
        let mut q = x.narrow(1, 0, queries);
        if let (Some(crossattention), Some(images)) = (&self.crossattention, images) {
            q = crossattention.over_images(&q, images.features, images.rows);
        }
        let q = self.query_feed_forward.forward(&q);
        if tokens == 0 {
            return q;
        }
        let t = self.text_feed_forward.forward(&x.narrow(1, queries, tokens));
        Tensor::cat(&[q, t], 1)
    }
}

/// `qformer`, with the `query_tokens` that the checkpoint keeps beside it.
pub(crate) struct QFormer {
    query_tokens: Tensor,
    embeddings: Embeddings,
    pub layers: Vec<Layer>,
}

impl QFormer {
    /// `queries` is the number of learned queries; `scope` is the checkpoint's root.
    pub fn load(scope: &Scope<'_>, c: &QFormerConfig, queries: i64) -> Result<Self, ModelError> {
        let query_tokens = scope.tensor("query_tokens", &[1, queries, c.hidden_size])?;
        let scope = scope.at("qformer");
        let layers = scope.at("encoder.layer");
        Ok(Self {
            query_tokens,
            embeddings: Embeddings::load(&scope.at("embeddings"), c)?,
            layers: (0..c.num_hidden_layers).map(|i| Layer::load(&layers.at(i), c, i)).collect::<Result<_, _>>()?,
        })
    }

    /// Number of learned queries.
    pub fn queries(&self) -> i64 {
        self.query_tokens.size()[1]
    }

    /// What enters the first layer, and the bias that hides padding.
    pub fn embed(&self, rows: i64, text: Option<&TextBatch>) -> (Tensor, Option<Tensor>) {
        let queries = self.query_tokens.expand([rows, -1, -1], false);
        let bias = text.map(|text| key_bias(&prefixed(&text.mask, self.queries())));
        (self.embeddings.forward(Some(&queries), text), bias)
    }

    /// The queries' last states `[rows, queries, width]`, with an instruction or without.
    pub fn forward(&self, images: Images<'_>, text: Option<&TextBatch>) -> Tensor {
        let (x, bias) = self.embed(images.rows.size()[0], text);
        let n = self.queries();
        let run = |x: Tensor, layer: &Layer| layer.forward(&x, n, bias.as_ref(), Some(images));
        self.layers.iter().fold(x, run).narrow(1, 0, n)
    }

    /// The first token's last state `[texts, width]` of a text read without queries and without an image.
    pub fn forward_text(&self, text: &TextBatch) -> Tensor {
        let bias = key_bias(&text.mask);
        let x = self.embeddings.forward(None, Some(text));
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(&x, 0, Some(&bias), None));
        x.select(1, 0)
    }

    /// Row numbers for features that are looked at once each.
    pub fn each(images: i64, device: tch::Device) -> Tensor {
        Tensor::arange(images, (Kind::Int64, device))
    }
}

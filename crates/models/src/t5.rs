//! T5: an encoder that reads image positions and instruction, a decoder that writes the answer.
//!
//! Reference: `T5ForConditionalGeneration` in transformers, `modeling_t5.py` (version 1.1: gated feed-forward layers, attention without
//! scaling, separate output head).

mod language;

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::{
    Attended, BlockGroups, Feed, GroupSet, Linear, ModelError, Scope, TextBatch, Unit,
    config::{Ids, at_least_one, flag, layers, positive},
    generate::cache::{BlockCache, Cache, Turn},
    layers::{Activation, Attend, Embedding, RmsNorm, attention, hidden, key_bias, parts, prefixed, split_heads},
};

/// `text_config` of a T5 checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// Tokens.
    pub vocab_size: i64,
    /// Width.
    pub d_model: i64,
    /// Width of a head. Heads times this need not be `d_model`.
    pub d_kv: i64,
    /// Width of the feed-forward layers.
    pub d_ff: i64,
    /// Encoder blocks.
    pub num_layers: usize,
    /// Decoder blocks; as many as the encoder's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decoder_layers: Option<usize>,
    /// Heads.
    pub num_heads: i64,
    /// Distances that have a bias of their own, both directions together.
    pub relative_attention_num_buckets: i64,
    /// From this distance on all share the last bias.
    pub relative_attention_max_distance: i64,
    /// Added to the mean square in norms.
    pub layer_norm_epsilon: f64,
    /// Form of the feed-forward layers: `gated-` and the activation.
    pub feed_forward_proj: String,
    /// Overrides the activation in `feed_forward_proj`; published folders say `gelu` there and mean the exact one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_act_fn: Option<Activation>,
    /// Fills rows up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<i64>,
    /// Ends an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<Ids>,
    /// Given to the decoder before the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_start_token_id: Option<i64>,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
            dense_act_fn: None,
            pad_token_id: None,
            eos_token_id: None,
            decoder_start_token_id: None,
            rest: Map::new(),
        }
    }
}

impl T5Config {
    /// Decoder blocks.
    pub fn decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ] {
            at_least_one(&format!("text_config.{field}"), value)?;
        }
        layers("text_config.num_layers", self.num_layers)?;
        layers("text_config.num_decoder_layers", self.decoder_layers())?;
        positive("text_config.layer_norm_epsilon", self.layer_norm_epsilon)?;
        let buckets = self.relative_attention_num_buckets;
        if buckets < 4 || self.relative_attention_max_distance <= buckets / 2 {
            return Err(ModelError::Config(format!(
                "`text_config.relative_attention_num_buckets` is {buckets}; it must be at least 4 and less than twice `relative_attention_max_distance`"
            )));
        }
        self.activation().map(|_| ())
    }

    fn activation(&self) -> Result<Activation, ModelError> {
        let unknown = || {
            let form = &self.feed_forward_proj;
            ModelError::Config(format!(
                "`text_config.feed_forward_proj` is `{form}`; only gated forms such as `gated-gelu` are supported"
            ))
        };
        let written = self.feed_forward_proj.strip_prefix("gated-").ok_or_else(unknown)?;
        match (self.dense_act_fn, written) {
            (Some(activation), _) => Ok(activation),
            (None, "gelu") => Ok(Activation::GeluNew),
            (None, "silu") => Ok(Activation::Silu),
            (None, "relu") => Ok(Activation::Relu),
            _ => Err(unknown()),
        }
    }
}

/// The bucket of the distance from a query to a key, `key - query`: exact up close, logarithmic up to `max_distance`, one bucket beyond.
/// In an encoder half of the buckets are for keys after the query; a decoder sees none.
pub fn bucket(distance: i64, bidirectional: bool, buckets: i64, max_distance: i64) -> i64 {
    let (buckets, offset, distance) = if bidirectional {
        (buckets / 2, if distance > 0 { buckets / 2 } else { 0 }, distance.abs())
    } else {
        (buckets, 0, (-distance).max(0))
    };
    let exact = buckets / 2;
    if distance < exact {
        return offset + distance;
    }
    // In f32, as the reference computes it: the truncation below depends on it.
    let ratio = (distance as f32 / exact as f32).ln() / (max_distance as f64 / exact as f64).ln() as f32;
    offset + (exact + (ratio * (buckets - exact) as f32) as i64).min(buckets - 1)
}

/// `relative_attention_bias`, kept by the first block of a stack and used by all.
struct RelativeBias {
    table: Embedding,
    /// Name of the table.
    name: String,
    bidirectional: bool,
    max_distance: i64,
    /// Buckets by query and key, i64 `[n, n]` where the table is, for the longest sequence so far.
    buckets: Mutex<Option<Tensor>>,
}

impl RelativeBias {
    fn load(scope: &Scope<'_>, c: &T5Config, bidirectional: bool) -> Result<Self, ModelError> {
        let scope = scope.at("block.0.layer.0.SelfAttention.relative_attention_bias");
        let table = Embedding::load(&scope, c.relative_attention_num_buckets, c.num_heads)?;
        let (buckets, name) = (Mutex::default(), scope.at("weight").path().to_owned());
        Ok(Self { table, name, bidirectional, max_distance: c.relative_attention_max_distance, buckets })
    }

    /// `[1, heads, queries, keys]` for the queries at `positions` and the keys from the first on.
    fn forward(&self, positions: std::ops::Range<i64>, keys: i64) -> Tensor {
        let index = self.buckets(positions.end.max(keys));
        let index = index.narrow(0, positions.start, positions.end - positions.start).narrow(1, 0, keys);
        self.table.forward(&index).permute([2, 0, 1]).unsqueeze(0)
    }

    /// The table of buckets for at least `tokens` tokens. Made rarely: it holds for every shorter sequence.
    fn buckets(&self, tokens: i64) -> Tensor {
        let mut known = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.size()[0] >= tokens) {
            return known.shallow_clone();
        }
        let (size, buckets) = ((tokens as u64).next_power_of_two().max(64) as i64, self.table.weight.size()[0]);
        let of_distance: Vec<i64> =
            (1 - size..size).map(|d| bucket(d, self.bidirectional, buckets, self.max_distance)).collect();
        let index: Vec<i64> = (0..size)
            .flat_map(|q| (0..size).map(move |k| (k - q + size - 1) as usize))
            .map(|d| of_distance[d])
            .collect();
        let made = Tensor::from_slice(&index).view([size, size]).to_device(self.table.weight.device());
        *known = Some(made.shallow_clone());
        made
    }
}

/// `SelfAttention` or `EncDecAttention`: no biases, no scaling.
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
    fused: bool,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &T5Config) -> Result<Self, ModelError> {
        let (d, inner) = (c.d_model, c.num_heads * c.d_kv);
        Ok(Self {
            q: Linear::load(&scope.at("q"), inner, d, false)?,
            k: Linear::load(&scope.at("k"), inner, d, false)?,
            v: Linear::load(&scope.at("v"), inner, d, false)?,
            o: Linear::load(&scope.at("o"), d, inner, false)?,
            heads: c.num_heads,
            fused: scope.fused(),
        })
    }

    fn inputs(&self) -> [&Linear; 3] {
        [&self.q, &self.k, &self.v]
    }

    fn groups(&self) -> GroupSet {
        GroupSet::new(Unit::Heads, self.heads).made_by(&self.inputs(), 1).read_by(&self.o)
    }

    fn query(&self, x: &Tensor) -> Tensor {
        split_heads(&self.q.forward(x), self.heads)
    }

    fn key_value(&self, x: &Tensor) -> (Tensor, Tensor) {
        (split_heads(&self.k.forward(x), self.heads), split_heads(&self.v.forward(x), self.heads))
    }

    /// What `x` `[rows, queries, width]` looks at of `memory` `[rows, keys, width]`.
    fn attended(&self, x: &Tensor, memory: &Tensor, bias: &Tensor) -> Attended {
        let (queries, keys) = (self.query(x), split_heads(&self.k.forward(memory), self.heads));
        Attended { queries, keys, scale: 1.0, bias: Some(bias.shallow_clone()), causal: false }
    }

    /// `x` `[rows, queries, width]` over `memory` `[rows, keys, width]`.
    fn forward(&self, x: &Tensor, memory: &Tensor, bias: &Tensor) -> Tensor {
        let q = self.query(x);
        let (k, v) = self.key_value(memory);
        let attend = Attend { scale: 1.0, bias: Some(bias), causal: false, rounded: !self.fused };
        self.o.forward(&attention(&q, &k, &v, attend))
    }
}

/// `DenseReluDense`, gated.
struct FeedForward {
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
    activation: Activation,
    /// Type in which `wo` computes: f32 where the rest computes in f16.
    wide: Kind,
}

impl FeedForward {
    fn load(scope: &Scope<'_>, c: &T5Config) -> Result<Self, ModelError> {
        Ok(Self {
            wi_0: Linear::load(&scope.at("wi_0"), c.d_ff, c.d_model, false)?,
            wi_1: Linear::load(&scope.at("wi_1"), c.d_ff, c.d_model, false)?,
            wo: Linear::load(&scope.at("wo").wide(), c.d_model, c.d_ff, false)?,
            activation: c.activation()?,
            wide: scope.wide().kind(),
        })
    }

    fn inputs(&self) -> [&Linear; 2] {
        [&self.wi_0, &self.wi_1]
    }

    fn groups(&self) -> GroupSet {
        GroupSet::new(Unit::Channels, self.wo.shape().1).made_by(&self.inputs(), 1).read_by(&self.wo)
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.activation.forward(&self.wi_0.forward(x)) * self.wi_1.forward(x);
        self.wo.forward(&hidden.to_kind(self.wide))
    }
}

/// Keeps what f16 cannot hold from becoming infinite, as the reference does after each attention.
fn bounded(x: Tensor) -> Tensor {
    const LARGEST: f64 = 65504.0 - 1000.0;
    if x.kind() == Kind::Half { x.clamp(-LARGEST, LARGEST) } else { x }
}

/// `encoder.block.i`: `layer.0` attends, `layer.1` feeds forward; each has its norm before.
pub(crate) struct EncoderBlock {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl EncoderBlock {
    fn load(scope: &Scope<'_>, c: &T5Config) -> Result<Self, ModelError> {
        let (first, second) = (scope.at("layer.0"), scope.at("layer.1"));
        Ok(Self {
            attention_norm: RmsNorm::load(&first.at("layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            attention: Attention::load(&first.at("SelfAttention"), c)?,
            feed_forward_norm: RmsNorm::load(&second.at("layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            feed_forward: FeedForward::load(&second.at("DenseReluDense"), c)?,
        })
    }

    /// What its norms feed.
    fn feeds(&self) -> impl Iterator<Item = Feed> {
        let attention = self.attention_norm.feeds(&self.attention.inputs());
        [attention, self.feed_forward_norm.feeds(&self.feed_forward.inputs())].into_iter().flatten()
    }

    /// `[rows, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        self.feed(&self.attend(x, bias))
    }

    fn attend(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let normed = self.attention_norm.forward(x);
        bounded(x + self.attention.forward(&normed, &normed, bias))
    }

    fn feed(&self, x: &Tensor) -> Tensor {
        x + self.feed_forward.forward(&self.feed_forward_norm.forward(x))
    }
}

/// `decoder.block.i`: `layer.0` attends to the answer so far, `layer.1` to the encoder's output, `layer.2` feeds forward.
pub(crate) struct DecoderBlock {
    attention_norm: RmsNorm,
    attention: Attention,
    cross_norm: RmsNorm,
    cross: Attention,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

parts!(Attention: q, k, v, o);
parts!(FeedForward: wi_0, wi_1, wo);
parts!(EncoderBlock: attention_norm, attention, feed_forward_norm, feed_forward);
parts!(DecoderBlock: attention_norm, attention, cross_norm, cross, feed_forward_norm, feed_forward);
parts!(T5: encoder, encoder_norm, decoder, decoder_norm);

impl DecoderBlock {
    fn load(scope: &Scope<'_>, c: &T5Config) -> Result<Self, ModelError> {
        let (first, second, third) = (scope.at("layer.0"), scope.at("layer.1"), scope.at("layer.2"));
        Ok(Self {
            attention_norm: RmsNorm::load(&first.at("layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            attention: Attention::load(&first.at("SelfAttention"), c)?,
            cross_norm: RmsNorm::load(&second.at("layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            cross: Attention::load(&second.at("EncDecAttention"), c)?,
            feed_forward_norm: RmsNorm::load(&third.at("layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            feed_forward: FeedForward::load(&third.at("DenseReluDense"), c)?,
        })
    }

    /// What its norms feed. Keys and values of the cross-attention read the encoder's last norm.
    fn feeds(&self) -> impl Iterator<Item = Feed> {
        let attention = self.attention_norm.feeds(&self.attention.inputs());
        let cross = self.cross_norm.feeds(&[&self.cross.q]);
        [attention, cross, self.feed_forward_norm.feeds(&self.feed_forward.inputs())].into_iter().flatten()
    }

    /// `[rows, answer tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor, bias: &Tensor, memory: &Tensor, memory_bias: &Tensor) -> Tensor {
        self.feed(&self.look(&self.attend(x, bias), memory, memory_bias))
    }

    fn attend(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let normed = self.attention_norm.forward(x);
        bounded(x + self.attention.forward(&normed, &normed, bias))
    }

    /// Cross-attention.
    fn look(&self, x: &Tensor, memory: &Tensor, memory_bias: &Tensor) -> Tensor {
        bounded(x + self.cross.forward(&self.cross_norm.forward(x), memory, memory_bias))
    }

    fn feed(&self, x: &Tensor) -> Tensor {
        x + self.feed_forward.forward(&self.feed_forward_norm.forward(x))
    }

    /// One token per beam, `[rows * beams, 1, width]` to the same.
    fn step(&self, x: &Tensor, cache: &BlockCache, turn: &Turn) -> Tensor {
        let normed = self.attention_norm.forward(x);
        let (key, value) = self.attention.key_value(&normed);
        let mixed = cache.attend(&self.attention.query(&normed), &key, &value, turn, 1.0);
        let x = bounded(x + self.attention.o.forward(&mixed));
        let mixed = cache.attend_memory(&self.cross.query(&self.cross_norm.forward(&x)), turn, 1.0);
        let x = bounded(&x + self.cross.o.forward(&mixed));
        &x + self.feed_forward.forward(&self.feed_forward_norm.forward(&x))
    }
}

/// The encoder's output and the bias that hides its padding.
pub(crate) struct Memory {
    pub states: Tensor,
    pub bias: Tensor,
}

/// `language_model`.
pub(crate) struct T5 {
    shared: Embedding,
    encoder_bias: RelativeBias,
    pub encoder: Vec<EncoderBlock>,
    pub encoder_norm: RmsNorm,
    decoder_bias: RelativeBias,
    pub decoder: Vec<DecoderBlock>,
    decoder_norm: RmsNorm,
    pub head: Linear,
    /// Factor before the head: 1 where it is separate, `d_model^-1/2` where it is the embedding.
    head_scale: f64,
    kind: Kind,
}

impl T5 {
    pub fn load(scope: &Scope<'_>, c: &T5Config) -> Result<Self, ModelError> {
        let shared = Embedding::load(&scope.at("shared"), c.vocab_size, c.d_model)?;
        // Newer exporters write `tie_word_embeddings: true` although the head is separate, so the tensors decide: a head that differs from
        // the embedding is separate. One that equals it may be a copy of a tied one, which the configuration tells.
        let tied = flag(&c.rest, "tie_word_embeddings", true);
        let there = scope.contains("lm_head.weight");
        let separate = there && !(tied && scope.same("lm_head.weight", "shared.weight"));
        let scaled = flag(&c.rest, "scale_decoder_outputs", tied && !separate);
        let head_scale = if scaled { (c.d_model as f64).powf(-0.5) } else { 1.0 };
        let head = if separate {
            Linear::load(&scope.at("lm_head"), c.vocab_size, c.d_model, false)?
        } else if tied {
            Linear::new(scope.at("lm_head").path(), shared.weight.shallow_clone(), None)
        } else {
            return Err(ModelError::Missing(format!("{}.weight", scope.at("lm_head").path())));
        };
        let (encoder, decoder) = (scope.at("encoder"), scope.at("decoder"));
        let (encoders, decoders) = (encoder.at("block"), decoder.at("block"));
        Ok(Self {
            shared,
            encoder_bias: RelativeBias::load(&encoder, c, true)?,
            encoder: (0..c.num_layers).map(|i| EncoderBlock::load(&encoders.at(i), c)).collect::<Result<_, _>>()?,
            encoder_norm: RmsNorm::load(&encoder.at("final_layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            decoder_bias: RelativeBias::load(&decoder, c, false)?,
            decoder: (0..c.decoder_layers())
                .map(|i| DecoderBlock::load(&decoders.at(i), c))
                .collect::<Result<_, _>>()?,
            decoder_norm: RmsNorm::load(&decoder.at("final_layer_norm"), c.d_model, c.layer_norm_epsilon)?,
            head,
            head_scale,
            kind: scope.kind(),
        })
    }

    fn device(&self) -> Device {
        self.shared.weight.device()
    }

    /// Of the first block that writes: what makes keys, and the first feed-forward layer.
    pub fn writing_linears(&self) -> [&Linear; 2] {
        let block = &self.decoder[0];
        [&block.attention.k, &block.feed_forward.wi_0]
    }

    /// Norms that only prunable linears read. The decoder's last one feeds the head.
    pub fn feeds(&self) -> Vec<Feed> {
        let memory: Vec<&Linear> = self.decoder.iter().flat_map(|block| [&block.cross.k, &block.cross.v]).collect();
        let encoder = self.encoder.iter().flat_map(EncoderBlock::feeds).chain(self.encoder_norm.feeds(&memory));
        encoder.chain(self.decoder.iter().flat_map(DecoderBlock::feeds)).collect()
    }

    /// What of a block can be removed, encoder blocks before decoder blocks. A stack has position biases for the heads of all its blocks, those of
    /// self-attention; cross-attention has none.
    pub fn groups(&self, block: usize) -> BlockGroups {
        let (sets, bias) = match block.checked_sub(self.encoder.len()) {
            None => {
                let EncoderBlock { attention, feed_forward, .. } = &self.encoder[block];
                (vec![attention.groups().tied(), feed_forward.groups()], &self.encoder_bias)
            }
            Some(block) => {
                let DecoderBlock { attention, cross, feed_forward, .. } = &self.decoder[block];
                (vec![attention.groups().tied(), cross.groups(), feed_forward.groups()], &self.decoder_bias)
            }
        };
        BlockGroups { sets, is_removable: true, tables: vec![bias.name.clone()], place: None }
    }

    /// What enters the encoder, `[rows, prefix + tokens, width]`, its position bias with padding hidden, and the memory's bias.
    pub fn embed(&self, prefix: Option<&Tensor>, prompt: &TextBatch) -> (Tensor, Tensor, Tensor) {
        let words = self.shared.forward(&prompt.ids);
        let (x, before) = match prefix {
            Some(prefix) => (Tensor::cat(&[prefix, &words], 1), prefix.size()[1]),
            None => (words, 0),
        };
        let tokens = x.size()[1];
        let (bias, memory_bias) = self.biases(&prefixed(&prompt.mask, before), tokens);
        (x, bias, memory_bias)
    }

    /// The encoder's position bias with padding hidden, and the bias that hides it from the decoder, for a mask `[rows, tokens]`.
    pub fn biases(&self, mask: &Tensor, tokens: i64) -> (Tensor, Tensor) {
        let memory_bias = key_bias(mask, self.kind);
        (self.encoder_bias.forward(0..tokens, tokens) + &memory_bias, memory_bias)
    }

    /// Word embeddings `[rows, tokens, width]` of ids.
    pub fn words(&self, ids: &Tensor) -> Tensor {
        self.shared.forward(ids)
    }

    /// The encoder's output for what enters it `[rows, tokens, width]`, with its mask `[rows, tokens]`.
    pub fn read(&self, x: Tensor, mask: &Tensor) -> Memory {
        let (bias, memory_bias) = self.biases(mask, x.size()[1]);
        let x = self.encoder.iter().fold(x, |x, block| block.forward(&x, &bias));
        Memory { states: self.finish_encoder(&x), bias: memory_bias }
    }

    /// The norm after the last encoder block.
    pub fn finish_encoder(&self, x: &Tensor) -> Tensor {
        self.encoder_norm.forward(x)
    }

    /// Reads image positions and instruction. `states[i]` is what left encoder block `i`.
    pub fn encode(&self, prefix: Option<&Tensor>, prompt: &TextBatch, mut states: Option<&mut Vec<Tensor>>) -> Memory {
        let (mut x, bias, memory_bias) = self.embed(prefix, prompt);
        for block in &self.encoder {
            x = block.forward(&x, &bias);
            if let Some(states) = states.as_deref_mut() {
                states.push(x.shallow_clone());
            }
        }
        Memory { states: self.finish_encoder(&x), bias: memory_bias }
    }

    /// What enters the decoder for its input ids `[rows, tokens]`, and its position bias with later tokens hidden.
    pub fn embed_answer(&self, ids: &Tensor) -> (Tensor, Tensor) {
        let tokens = ids.size()[1];
        let device = self.device();
        let later = Tensor::ones([tokens, tokens], (Kind::Bool, device)).triu(1);
        let bias = self.decoder_bias.forward(0..tokens, tokens).masked_fill(&later, hidden(self.kind));
        (self.shared.forward(ids), bias)
    }

    /// Logits from what left the last decoder block.
    pub fn finish_decoder(&self, x: &Tensor) -> Tensor {
        let x = self.decoder_norm.forward(x);
        self.head.forward(&if self.head_scale == 1.0 { x } else { x * self.head_scale })
    }

    /// Logits `[rows, tokens, vocabulary]` for decoder input ids `[rows, tokens]`.
    pub fn decode(&self, ids: &Tensor, memory: &Memory) -> Tensor {
        let (x, bias) = self.embed_answer(ids);
        let run = |x: Tensor, block: &DecoderBlock| block.forward(&x, &bias, &memory.states, &memory.bias);
        self.finish_decoder(&self.decoder.iter().fold(x, run))
    }

    /// Everything that generation computes once per row.
    pub fn begin(&self, prefix: &Tensor, prompt: &TextBatch) -> Cache {
        let memory = self.encode(Some(prefix), prompt, None);
        let of = |block: &DecoderBlock| {
            let (key, value) = block.cross.key_value(&memory.states);
            BlockCache::over_memory(&key, &value)
        };
        Cache::over_memory(self.decoder.iter().map(of).collect(), memory.bias)
    }

    /// Logits `[rows * beams, vocabulary]` after each beam's newest token, i64 `[rows * beams]`.
    pub fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        let mut turn = cache.advance();
        // Distances grow by one with every step, so only the farthest is new. The first slot is of the start token, one for all beams.
        let farthest = self.decoder_bias.forward(turn.step..turn.step + 1, 1);
        let relative = match cache.relative.take() {
            Some(nearer) => Tensor::cat(&[farthest, nearer], -1),
            None => farthest,
        };
        let wide = relative.repeat_interleave_self_int(turn.beams, 3, None);
        let slots = turn.bias.size()[3];
        let bias = &turn.bias + wide.narrow(3, wide.size()[3] - slots, slots);
        turn.bias = bias;
        cache.relative = Some(relative);
        let mut x = self.shared.forward(&tokens.unsqueeze(1));
        for (block, memory) in self.decoder.iter().zip(&cache.blocks) {
            x = block.step(&x, memory, &turn);
        }
        self.finish_decoder(&x).squeeze_dim(1)
    }
}

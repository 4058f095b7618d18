//! OPT: one decoder that reads image positions, instruction and answer as one sequence, at learned positions.
//!
//! Reference: `OPTForCausalLM` in transformers, `modeling_opt.py`. Differs: in training and generation rows are packed without padding
//! between instruction and answer, so that positions count real tokens and a causal mask is all that is needed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::{
    BlockGroups, Feed, GroupSet, Linear, ModelError, Scope, Unit,
    causal::{CausalBlock, CausalNetwork, KeysValues, Positions},
    config::{Ids, at_least_one, divides, flag, layers},
    generate::cache::{BlockCache, Turn},
    layers::{Activation, Attend, Embedding, LayerNorm, attention, parts, split_heads},
};

/// Rows of the position table before the first position; a rule of the architecture, not a setting.
const OFFSET: i64 = 2;
/// Added to the variance in norms. The class leaves it at the library's default.
const NORM_EPS: f64 = 1e-5;

/// `text_config` of an OPT checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptConfig {
    /// Tokens.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Width of the feed-forward layers.
    pub ffn_dim: i64,
    /// Longest sequence that has positions.
    pub max_position_embeddings: i64,
    /// Whether norms come before attention and feed-forward layer or after them.
    pub do_layer_norm_before: bool,
    /// Whether the norm after the last block is left out although norms come before.
    #[serde(rename = "_remove_final_layer_norm")]
    pub remove_final_layer_norm: bool,
    /// Width of the word embeddings; `hidden_size` if absent. Where they differ, a projection leads in and another out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_embed_proj_dim: Option<i64>,
    /// Heads.
    pub num_attention_heads: i64,
    /// Activation of the feed-forward layer.
    pub activation_function: Activation,
    /// Whether linears have biases.
    pub enable_bias: bool,
    /// Whether norms scale and shift.
    pub layer_norm_elementwise_affine: bool,
    /// Fills rows up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<i64>,
    /// Ends an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<Ids>,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for OptConfig {
    fn default() -> Self {
        Self {
            vocab_size: 50272,
            hidden_size: 768,
            num_hidden_layers: 12,
            ffn_dim: 3072,
            max_position_embeddings: 2048,
            do_layer_norm_before: true,
            remove_final_layer_norm: false,
            word_embed_proj_dim: None,
            num_attention_heads: 12,
            activation_function: Activation::Relu,
            enable_bias: true,
            layer_norm_elementwise_affine: true,
            pad_token_id: None,
            eos_token_id: None,
            rest: Map::new(),
        }
    }
}

impl OptConfig {
    /// Width of the word embeddings: what image positions are projected to.
    pub fn word_width(&self) -> i64 {
        self.word_embed_proj_dim.unwrap_or(self.hidden_size)
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        layers("text_config.num_hidden_layers", self.num_hidden_layers)?;
        at_least_one("text_config.vocab_size", self.vocab_size)?;
        at_least_one("text_config.ffn_dim", self.ffn_dim)?;
        at_least_one("text_config.max_position_embeddings", self.max_position_embeddings)?;
        at_least_one("text_config.word_embed_proj_dim", self.word_width())?;
        divides("text_config.hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
    }

    fn norm(&self, scope: &Scope<'_>) -> Result<LayerNorm, ModelError> {
        if self.layer_norm_elementwise_affine {
            LayerNorm::load(scope, self.hidden_size, NORM_EPS)
        } else {
            Ok(LayerNorm::plain(self.hidden_size, NORM_EPS))
        }
    }
}

/// `self_attn`.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
    scale: f64,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &OptConfig) -> Result<Self, ModelError> {
        let linear = |name: &str| Linear::load(&scope.at(name), c.hidden_size, c.hidden_size, c.enable_bias);
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            heads: c.num_attention_heads,
            scale: ((c.hidden_size / c.num_attention_heads) as f64).powf(-0.5),
        })
    }

    /// Queries, keys and values `[rows, heads, tokens, width]`; the queries scaled, as in the reference, before the products.
    fn project(&self, x: &Tensor) -> (Tensor, Tensor, Tensor) {
        let heads = |x: Tensor| split_heads(&x, self.heads);
        let q = self.q_proj.forward(x) * self.scale;
        (heads(q), heads(self.k_proj.forward(x)), heads(self.v_proj.forward(x)))
    }
}

/// `model.decoder.layers.i`.
pub(crate) struct Block {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
    activation: Activation,
    before: bool,
}

parts!(Attention: q_proj, k_proj, v_proj, out_proj);
parts!(Block: self_attn, self_attn_layer_norm, fc1, fc2, final_layer_norm);
parts!(Opt: blocks, final_layer_norm);

impl Block {
    fn load(scope: &Scope<'_>, c: &OptConfig) -> Result<Self, ModelError> {
        Ok(Self {
            self_attn: Attention::load(&scope.at("self_attn"), c)?,
            self_attn_layer_norm: c.norm(&scope.at("self_attn_layer_norm"))?,
            fc1: Linear::load(&scope.at("fc1"), c.ffn_dim, c.hidden_size, c.enable_bias)?,
            fc2: Linear::load(&scope.at("fc2"), c.hidden_size, c.ffn_dim, c.enable_bias)?,
            final_layer_norm: c.norm(&scope.at("final_layer_norm"))?,
            activation: c.activation_function,
            before: c.do_layer_norm_before,
        })
    }

    fn before_attention(&self, x: &Tensor) -> Tensor {
        if self.before { self.self_attn_layer_norm.forward(x) } else { x.shallow_clone() }
    }

    /// What the attention over `x`, whose heads are joined in `mixed`, makes of it.
    fn attended(&self, x: &Tensor, mixed: &Tensor) -> Tensor {
        let x = x + self.self_attn.out_proj.forward(mixed);
        if self.before { x } else { self.self_attn_layer_norm.forward(&x) }
    }
}

impl CausalBlock for Block {
    /// Norms behind their layers are read by the residual too: nothing.
    fn feeds(&self) -> Vec<Feed> {
        let Attention { q_proj, k_proj, v_proj, .. } = &self.self_attn;
        let attention = self.self_attn_layer_norm.feeds(&[q_proj, k_proj, v_proj]);
        let all = [attention, self.final_layer_norm.feeds(&[&self.fc1])];
        all.into_iter().flatten().filter(|_| self.before).collect()
    }

    /// Behind norms of residuals, a block does not pass on what it reads.
    fn groups(&self) -> BlockGroups {
        let Attention { q_proj, k_proj, v_proj, out_proj, heads, .. } = &self.self_attn;
        let heads = GroupSet::new(Unit::Heads, *heads).made_by(&[q_proj, k_proj, v_proj], 1).read_by(out_proj);
        let channels = GroupSet::new(Unit::Channels, self.fc2.shape().1).made_by(&[&self.fc1], 1).read_by(&self.fc2);
        BlockGroups { sets: vec![heads, channels], is_removable: self.before, ..BlockGroups::default() }
    }

    fn writing_linears(&self) -> [&Linear; 2] {
        [&self.self_attn.k_proj, &self.fc1]
    }

    fn heads(&self) -> i64 {
        self.self_attn.heads
    }

    /// Queries are scaled already.
    fn queries_and_keys(&self, x: &Tensor, _shared: &[Tensor]) -> (Tensor, Tensor, f64) {
        let (q, k, _) = self.self_attn.project(&self.before_attention(x));
        (q, k, 1.0)
    }

    fn attend_behind(
        &self,
        x: &Tensor,
        _shared: &[Tensor],
        before: Option<&KeysValues>,
        bias: Option<&Tensor>,
    ) -> (Tensor, KeysValues) {
        let (q, keys, values) = self.self_attn.project(&self.before_attention(x));
        let kept = KeysValues { keys, values }.behind(before);
        let attend = Attend { scale: 1.0, bias, causal: bias.is_none(), rounded: false };
        let mixed = attention(&q, &kept.keys, &kept.values, attend);
        (self.attended(x, &mixed), kept)
    }

    fn feed(&self, x: &Tensor) -> Tensor {
        let inner = |x: &Tensor| self.fc2.forward(&self.activation.forward(&self.fc1.forward(x)));
        if self.before {
            return x + inner(&self.final_layer_norm.forward(x));
        }
        self.final_layer_norm.forward(&(x + inner(x)))
    }

    fn step(&self, x: &Tensor, _shared: &[Tensor], cache: &BlockCache, turn: &Turn) -> Tensor {
        let (q, k, v) = self.self_attn.project(&self.before_attention(x));
        self.feed(&self.attended(x, &cache.attend(&q, &k, &v, turn, 1.0)))
    }
}

/// `language_model`.
pub(crate) struct Opt {
    embed_tokens: Embedding,
    embed_positions: Embedding,
    project_in: Option<Linear>,
    blocks: Vec<Block>,
    final_layer_norm: Option<LayerNorm>,
    project_out: Option<Linear>,
    head: Linear,
    kind: Kind,
}

impl Opt {
    pub fn load(scope: &Scope<'_>, c: &OptConfig) -> Result<Self, ModelError> {
        let (decoder, words, width) = (scope.at("model.decoder"), c.word_width(), c.hidden_size);
        let embed_tokens = Embedding::load(&decoder.at("embed_tokens"), c.vocab_size, words)?;
        let positions = c.max_position_embeddings + OFFSET;
        let project = |name: &str, outputs: i64, inputs: i64| match words == width {
            true => Ok(None),
            false => Linear::load(&decoder.at(name), outputs, inputs, false).map(Some),
        };
        let last = c.do_layer_norm_before && !c.remove_final_layer_norm;
        let head = if flag(&c.rest, "tie_word_embeddings", true) {
            Linear::new(scope.at("lm_head").path(), embed_tokens.weight.shallow_clone(), None)
        } else {
            Linear::load(&scope.at("lm_head"), c.vocab_size, words, false)?
        };
        let layers = decoder.at("layers");
        Ok(Self {
            embed_tokens,
            embed_positions: Embedding::load(&decoder.at("embed_positions"), positions, width)?,
            project_in: project("project_in", width, words)?,
            blocks: (0..c.num_hidden_layers).map(|i| Block::load(&layers.at(i), c)).collect::<Result<_, _>>()?,
            final_layer_norm: if last { Some(c.norm(&decoder.at("final_layer_norm"))?) } else { None },
            project_out: project("project_out", words, width)?,
            head,
            kind: scope.kind(),
        })
    }
}

impl CausalNetwork for Opt {
    type Block = Block;
    /// Positions are in the hidden states from the beginning.
    const SHARED: usize = 0;

    fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    fn head(&self) -> &Linear {
        &self.head
    }

    fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn words(&self, ids: &Tensor) -> Tensor {
        self.embed_tokens.forward(ids)
    }

    /// Positions are counted from 0; -1 is padding's. Rows that have ended may count on beyond the table; what they compute is not looked at.
    fn place(&self, words: Tensor, positions: Positions<'_>) -> (Tensor, Vec<Tensor>) {
        let positions = match positions {
            Positions::Sequence(_) | Positions::Axes(_) => {
                Tensor::arange(words.size()[1], (Kind::Int64, self.device())).unsqueeze(0)
            }
            Positions::Next(positions) => positions.unsqueeze(1),
            // What is real is counted, as in a plain forward of the reference.
            Positions::Padded(mask) => {
                let real = mask.to_kind(Kind::Int64);
                real.cumsum(1, Kind::Int64) * &real - 1
            }
        };
        let positions = self.embed_positions.forward(&(positions.clamp_max(self.positions() - 1) + OFFSET));
        let placed = match &self.project_in {
            Some(project) => project.forward(&words) + positions,
            None => words + positions,
        };
        (placed, Vec::new())
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        let x = self.final_layer_norm.as_ref().map_or_else(|| x.shallow_clone(), |norm| norm.forward(x));
        self.head.forward(&self.project_out.as_ref().map_or_else(|| x.shallow_clone(), |project| project.forward(&x)))
    }

    fn longest(&self) -> Option<i64> {
        Some(self.positions())
    }
}

impl Opt {
    /// Positions that the table has.
    fn positions(&self) -> i64 {
        self.embed_positions.rows() - OFFSET
    }
}

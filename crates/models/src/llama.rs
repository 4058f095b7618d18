//! LLaMA, and Qwen2 and Mistral as its relatives: one decoder that reads image positions, instruction and answer as one sequence.
//!
//! Reference: `LlamaForCausalLM` in transformers, `modeling_llama.py`; `Qwen2VLTextModel`, `modeling_qwen2_vl.py`;
//! `Qwen2ForCausalLM`, `MistralForCausalLM`. Differs: rows are packed without padding between instruction and
//! answer, so that positions count real tokens and a causal mask is all that is needed; the reference pads on the left and masks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use crate::{
    BlockGroups, Feed, GroupSet, Layout, Linear, ModelError, Scope, Unit, axes,
    causal::{CausalBlock, CausalNetwork, KeysValues, Positions},
    config::{Ids, at_least_one, divides, flag, layers, positive},
    generate::cache::{BlockCache, Turn},
    layers::{Activation, Attend, Embedding, RmsNorm, attention, parts, split_heads},
};

/// `text_config` of a LLaMA checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LlamaConfig {
    /// Tokens.
    pub vocab_size: i64,
    /// Width.
    pub hidden_size: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: i64,
    /// Heads of keys and values, each shared by several query heads; as many as query heads if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<i64>,
    /// Width of a head; `hidden_size / num_attention_heads` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<i64>,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Longest sequence the model was trained for.
    pub max_position_embeddings: i64,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies. Newer folders keep it in `rope_parameters`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<Value>,
    /// Where newer folders keep the rotary settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Value>,
    /// Rotary frequencies other than the plain ones; not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Value>,
    /// Whether attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward layers have biases.
    pub mlp_bias: bool,
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

impl Default for LlamaConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 4096,
            intermediate_size: 11008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: Activation::Silu,
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope_theta: None,
            rope_parameters: None,
            rope_scaling: None,
            attention_bias: false,
            mlp_bias: false,
            pad_token_id: None,
            eos_token_id: None,
            rest: Map::new(),
        }
    }
}

/// What the kinds of this network differ in.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// Whether queries, keys and values have biases, and whether the projection behind attention has one.
    biases: [bool; 2],
    /// How many of a head's frequencies turn with frames, rows and columns, where images have those.
    sections: Option<[i64; 3]>,
}

impl LlamaConfig {
    /// The form of LLaMA.
    pub(crate) fn llama(&self) -> Form {
        Form { biases: [self.attention_bias; 2], sections: None }
    }

    /// The form of Qwen2, which has the positions of rows and columns where its configuration says how frequencies share them.
    ///
    /// # Errors
    /// Sections of positions that do not fit; attention to a part of the text.
    pub(crate) fn qwen2(&self) -> Result<Form, ModelError> {
        divides("text_config.hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)?;
        self.check_windows("qwen2")?;
        let fields = self.positions();
        let has_sections = ["rope_scaling", "rope_parameters"]
            .iter()
            .any(|place| fields.get(*place).and_then(|place| place.get("mrope_section")).is_some());
        let sections = has_sections.then(|| self.sections()).transpose()?;
        Ok(Form { biases: [true, false], sections })
    }

    /// The form of Mistral.
    ///
    /// # Errors
    /// Attention to a part of the text.
    pub(crate) fn mistral(&self) -> Result<Form, ModelError> {
        self.check_windows("mistral")?;
        Ok(Form { biases: [false; 2], sections: None })
    }

    /// How many of a head's frequencies turn with frames, rows and columns.
    ///
    /// # Errors
    /// The setting is missing or does not fit.
    pub(crate) fn sections(&self) -> Result<[i64; 3], ModelError> {
        ressa_checkpoint::mrope_sections(&self.positions(), (self.head_width() / 2) as usize)
            .map_err(ModelError::Config)
    }

    fn check_windows(&self, kind: &str) -> Result<(), ModelError> {
        let mut fields = self.rest.clone();
        fields.insert("num_hidden_layers".to_owned(), self.num_hidden_layers.into());
        fields.insert("max_position_embeddings".to_owned(), self.max_position_embeddings.into());
        ressa_checkpoint::check_windows(kind, &fields).map_err(ModelError::Config)
    }

    fn key_value_heads(&self) -> i64 {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_width(&self) -> i64 {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// The base of the rotary frequencies, in words what is wrong with it.
    fn rope(&self) -> Result<f64, String> {
        ressa_checkpoint::rope_theta(&self.positions())
    }

    /// What is written about positions.
    fn positions(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("rope_theta".to_owned(), self.rope_theta.clone().unwrap_or_default());
        fields.insert("rope_parameters".to_owned(), self.rope_parameters.clone().unwrap_or_default());
        fields.insert("rope_scaling".to_owned(), self.rope_scaling.clone().unwrap_or_default());
        fields
    }

    fn theta(&self) -> f64 {
        // A configuration with another answer is refused by `check`.
        self.rope().unwrap_or(10_000.0)
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        layers("text_config.num_hidden_layers", self.num_hidden_layers)?;
        positive("text_config.rms_norm_eps", self.rms_norm_eps)?;
        at_least_one("text_config.vocab_size", self.vocab_size)?;
        at_least_one("text_config.hidden_size", self.hidden_size)?;
        at_least_one("text_config.intermediate_size", self.intermediate_size)?;
        at_least_one("text_config.head_dim", self.head_width())?;
        at_least_one("text_config.max_position_embeddings", self.max_position_embeddings)?;
        divides(
            "text_config.num_attention_heads",
            self.num_attention_heads,
            "num_key_value_heads",
            self.key_value_heads(),
        )?;
        if self.head_width() % 2 != 0 {
            return Err(ModelError::Config(format!(
                "`text_config.head_dim` is {}; rotary positions need an even width",
                self.head_width()
            )));
        }
        self.rope().map_err(ModelError::Config)?;
        Ok(())
    }
}

/// Cosines and sines of the angles at some positions, `[..., tokens, head width]`; the sines of the first half are negated.
pub(crate) struct Rotary {
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    /// For positions i64 `[tokens]`, or `[rows, 1, 1]` for one token per row.
    fn at(positions: &Tensor, frequencies: &Tensor, kind: Kind) -> Self {
        Self::of(&(positions.to_kind(Kind::Float).unsqueeze(-1) * frequencies), kind)
    }

    /// For angles f32 `[..., tokens, half of the head width]`.
    pub fn of(angles: &Tensor, kind: Kind) -> Self {
        let (cos, sin) = (angles.cos().to_kind(kind), angles.sin().to_kind(kind));
        Self { cos: Tensor::cat(&[&cos, &cos], -1), sin: Tensor::cat(&[&-&sin, &sin], -1) }
    }

    /// From the two tables, as [`Rotary::into_tables`] gave them.
    pub fn from_tables(tables: &[Tensor]) -> Self {
        Self { cos: tables[0].shallow_clone(), sin: tables[1].shallow_clone() }
    }

    /// Both tables.
    pub fn into_tables(self) -> Vec<Tensor> {
        vec![self.cos, self.sin]
    }

    /// Turns element `i` of the first half and element `i` of the second as one complex number. Not `fused`, every operation is rounded, as
    /// in the reference.
    pub fn turn(&self, x: &Tensor, fused: bool) -> Tensor {
        let half = x.size().last().copied().unwrap_or(0) / 2;
        let turned = x.roll([half], [-1]);
        if fused { (x * &self.cos).addcmul(&turned, &self.sin) } else { x * &self.cos + turned * &self.sin }
    }
}

/// `self_attn`.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    heads: i64,
    key_value_heads: i64,
    scale: f64,
    fused: bool,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &LlamaConfig, form: Form) -> Result<Self, ModelError> {
        let (d, width, [bias, bias_behind]) = (c.hidden_size, c.head_width(), form.biases);
        let (inner, shared) = (c.num_attention_heads * width, c.key_value_heads() * width);
        Ok(Self {
            q_proj: Linear::load(&scope.at("q_proj"), inner, d, bias)?,
            k_proj: Linear::load(&scope.at("k_proj"), shared, d, bias)?,
            v_proj: Linear::load(&scope.at("v_proj"), shared, d, bias)?,
            o_proj: Linear::load(&scope.at("o_proj"), d, inner, bias_behind)?,
            heads: c.num_attention_heads,
            key_value_heads: c.key_value_heads(),
            scale: (width as f64).powf(-0.5),
            fused: scope.fused(),
        })
    }

    /// Queries, keys and values `[rows, heads, tokens, width]`, turned.
    fn project(&self, x: &Tensor, rotary: &Rotary) -> (Tensor, Tensor, Tensor) {
        let (q, k) = self.queries_and_keys(x, rotary);
        (q, k, self.repeat(split_heads(&self.v_proj.forward(x), self.key_value_heads)))
    }

    /// Without values.
    fn queries_and_keys(&self, x: &Tensor, rotary: &Rotary) -> (Tensor, Tensor) {
        let q = rotary.turn(&split_heads(&self.q_proj.forward(x), self.heads), self.fused);
        let k = rotary.turn(&split_heads(&self.k_proj.forward(x), self.key_value_heads), self.fused);
        (q, self.repeat(k))
    }

    /// Each head as often as query heads share it.
    fn repeat(&self, x: Tensor) -> Tensor {
        match self.heads / self.key_value_heads {
            1 => x,
            times => x.repeat_interleave_self_int(times, 1, None),
        }
    }
}

/// `mlp`, gated.
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    activation: Activation,
}

impl Mlp {
    fn load(scope: &Scope<'_>, c: &LlamaConfig) -> Result<Self, ModelError> {
        let (d, f, bias) = (c.hidden_size, c.intermediate_size, c.mlp_bias);
        Ok(Self {
            gate_proj: Linear::load(&scope.at("gate_proj"), f, d, bias)?,
            up_proj: Linear::load(&scope.at("up_proj"), f, d, bias)?,
            down_proj: Linear::load(&scope.at("down_proj"), d, f, bias)?,
            activation: c.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.down_proj.forward(&(self.activation.forward(&self.gate_proj.forward(x)) * self.up_proj.forward(x)))
    }
}

/// `model.layers.i`.
pub(crate) struct Block {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

parts!(Attention: q_proj, k_proj, v_proj, o_proj);
parts!(Mlp: gate_proj, up_proj, down_proj);
parts!(Block: input_layernorm, self_attn, post_attention_layernorm, mlp);
parts!(Llama: blocks, norm);

impl Block {
    fn load(scope: &Scope<'_>, c: &LlamaConfig, form: Form) -> Result<Self, ModelError> {
        let norm = |name: &str| RmsNorm::load(&scope.at(name), c.hidden_size, c.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(&scope.at("self_attn"), c, form)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(&scope.at("mlp"), c)?,
        })
    }
}

impl CausalBlock for Block {
    fn feeds(&self) -> Vec<Feed> {
        let Attention { q_proj, k_proj, v_proj, .. } = &self.self_attn;
        let Mlp { gate_proj, up_proj, .. } = &self.mlp;
        let attention = self.input_layernorm.feeds(&[q_proj, k_proj, v_proj]);
        [attention, self.post_attention_layernorm.feeds(&[gate_proj, up_proj])].into_iter().flatten().collect()
    }

    /// A head of keys and values goes with the query heads that share it.
    fn groups(&self) -> BlockGroups {
        let Attention { q_proj, k_proj, v_proj, o_proj, key_value_heads, .. } = &self.self_attn;
        let Mlp { gate_proj, up_proj, down_proj, .. } = &self.mlp;
        let heads = GroupSet::new(Unit::Heads, *key_value_heads).made_by(&[q_proj, k_proj, v_proj], 1).read_by(o_proj);
        let channels = GroupSet::new(Unit::Channels, down_proj.shape().1).made_by(&[gate_proj, up_proj], 1);
        BlockGroups { sets: vec![heads, channels.read_by(down_proj)], is_removable: true, ..BlockGroups::default() }
    }

    fn writing_linears(&self) -> [&Linear; 2] {
        [&self.self_attn.k_proj, &self.mlp.up_proj]
    }

    fn heads(&self) -> i64 {
        self.self_attn.heads
    }

    fn queries_and_keys(&self, x: &Tensor, shared: &[Tensor]) -> (Tensor, Tensor, f64) {
        let normed = self.input_layernorm.forward(x);
        let (q, k) = self.self_attn.queries_and_keys(&normed, &Rotary::from_tables(shared));
        (q, k, self.self_attn.scale)
    }

    fn attend_behind(
        &self,
        x: &Tensor,
        shared: &[Tensor],
        before: Option<&KeysValues>,
        bias: Option<&Tensor>,
    ) -> (Tensor, KeysValues) {
        let (q, keys, values) = self.self_attn.project(&self.input_layernorm.forward(x), &Rotary::from_tables(shared));
        let kept = KeysValues { keys, values }.behind(before);
        let attend = Attend { scale: self.self_attn.scale, bias, causal: bias.is_none(), rounded: false };
        let mixed = attention(&q, &kept.keys, &kept.values, attend);
        (x + self.self_attn.o_proj.forward(&mixed), kept)
    }

    fn feed(&self, x: &Tensor) -> Tensor {
        x + self.mlp.forward(&self.post_attention_layernorm.forward(x))
    }

    fn step(&self, x: &Tensor, shared: &[Tensor], cache: &BlockCache, turn: &Turn) -> Tensor {
        let (q, k, v) = self.self_attn.project(&self.input_layernorm.forward(x), &Rotary::from_tables(shared));
        self.feed(&(x + self.self_attn.o_proj.forward(&cache.attend(&q, &k, &v, turn, self.self_attn.scale))))
    }
}

/// `language_model`.
pub(crate) struct Llama {
    embed_tokens: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    frequencies: Tensor,
    /// The axis that each frequency turns with, i64 `[frequencies]`, where images have rows and columns.
    axes: Option<Tensor>,
    kind: Kind,
}

impl Llama {
    pub fn load(scope: &Scope<'_>, c: &LlamaConfig, form: Form) -> Result<Self, ModelError> {
        let model = scope.at("model");
        let embed_tokens = Embedding::load(&model.at("embed_tokens"), c.vocab_size, c.hidden_size)?;
        let head = if flag(&c.rest, "tie_word_embeddings", false) {
            Linear::new(scope.at("lm_head").path(), embed_tokens.weight.shallow_clone(), None)
        } else {
            Linear::load(&scope.at("lm_head"), c.vocab_size, c.hidden_size, false)?
        };
        let width = c.head_width();
        let frequencies: Vec<f32> =
            (0..width / 2).map(|i| 1.0 / (c.theta() as f32).powf((2 * i) as f32 / width as f32)).collect();
        let frequencies = Tensor::from_slice(&frequencies).to_device(embed_tokens.weight.device());
        let axes = form.sections.map(|sections| {
            let axes: Vec<i64> = (0..3).flat_map(|axis| vec![axis; sections[axis as usize] as usize]).collect();
            Tensor::from_slice(&axes).to_device(frequencies.device())
        });
        let layers = model.at("layers");
        Ok(Self {
            embed_tokens,
            blocks: (0..c.num_hidden_layers).map(|i| Block::load(&layers.at(i), c, form)).collect::<Result<_, _>>()?,
            norm: RmsNorm::load(&model.at("norm"), c.hidden_size, c.rms_norm_eps)?,
            head,
            frequencies,
            axes,
            kind: scope.kind(),
        })
    }
}

impl Llama {
    /// The tables of positions i64 `[3, ..., tokens]` on three axes.
    fn turned(&self, axes: &Tensor, positions: &Tensor) -> Rotary {
        let chosen = positions.to_device(self.device()).index_select(0, axes).movedim_int(0, -1);
        Rotary::of(&(chosen.to_kind(Kind::Float) * &self.frequencies), self.kind)
    }
}

impl CausalNetwork for Llama {
    type Block = Block;
    /// The rotary tables.
    const SHARED: usize = 2;

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

    fn place(&self, words: Tensor, positions: Positions<'_>) -> (Tensor, Vec<Tensor>) {
        let positions = match (positions, &self.axes) {
            (Positions::Sequence(Some(layout)), Some(axes)) if !layout.grids.is_empty() => {
                let positions = axes::of_layout(layout, words.size()[1] as usize);
                return (words, self.turned(axes, &positions).into_tables());
            }
            (Positions::Axes(positions), Some(axes)) => {
                // The same for all heads.
                return (words, self.turned(axes, &positions.unsqueeze(2)).into_tables());
            }
            // A padded batch counts its padding, as in a plain forward of the reference.
            (Positions::Sequence(_) | Positions::Padded(_) | Positions::Axes(_), _) => {
                Tensor::arange(words.size()[1], (Kind::Int64, self.device()))
            }
            (Positions::Next(positions), _) => positions.view([-1, 1, 1]),
        };
        (words, Rotary::at(&positions, &self.frequencies, self.kind).into_tables())
    }

    fn logits(&self, x: &Tensor) -> Tensor {
        self.head.forward(&self.norm.forward(x))
    }

    fn offset(&self, layout: &Layout) -> i64 {
        if self.axes.is_some() { axes::offset(layout) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_positions_turn_halves_as_complex_numbers_and_only_distances_matter() {
        let frequencies = Tensor::from_slice(&[1.0f32, 0.1]);
        let rotary = Rotary::at(&Tensor::arange(12, (Kind::Int64, Device::Cpu)), &frequencies, Kind::Float);
        let row = |x: [f32; 4]| Tensor::from_slice(&x).expand([12, 4], false).view([1, 1, 12, 4]);
        let (q, k) = (rotary.turn(&row([1.0, 2.0, 3.0, 4.0]), true), rotary.turn(&row([0.5, -1.0, 2.0, 1.0]), true));
        for position in 0..12 {
            // (1 + 3i) e^(i p) and (2 + 4i) e^(i p / 10)
            let p = position as f64;
            let expected = [
                p.cos() - 3.0 * p.sin(),
                2.0 * (0.1 * p).cos() - 4.0 * (0.1 * p).sin(),
                3.0 * p.cos() + p.sin(),
                4.0 * (0.1 * p).cos() + 2.0 * (0.1 * p).sin(),
            ];
            for (at, value) in expected.into_iter().enumerate() {
                assert!((q.double_value(&[0, 0, position, at as i64]) - value).abs() < 1e-5, "{position} {at}");
            }
        }
        let products = q.matmul(&k.transpose(-2, -1));
        for (a, b) in [(7, 3), (11, 7), (4, 0)] {
            assert!((products.double_value(&[0, 0, a, b]) - products.double_value(&[0, 0, 4, 0])).abs() < 1e-4);
        }
    }
}

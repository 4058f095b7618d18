//! What the configurations of all families share: their language models, special tokens, checks.

use ressa_checkpoint::{LLAMA_LIKE, decoder_fields};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use crate::{ModelError, llama::LlamaConfig, opt::OptConfig, t5::T5Config};

/// `null` counts as absent, as in the reference.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// `text_config`, by its `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "model_type")]
pub enum TextConfig {
    /// Encoder-decoder.
    #[serde(rename = "t5")]
    T5(T5Config),
    /// Decoder-only.
    #[serde(rename = "llama")]
    Llama(LlamaConfig),
    /// Decoder-only: LLaMA's network with biases on queries, keys and values, and positions of rows and columns where Qwen-VL's images are.
    #[serde(rename = "qwen2")]
    Qwen2(LlamaConfig),
    /// Decoder-only: LLaMA's network.
    #[serde(rename = "mistral")]
    Mistral(LlamaConfig),
    /// Decoder-only; what the reference takes an entry without `model_type` for.
    #[serde(rename = "opt")]
    Opt(OptConfig),
}

impl Default for TextConfig {
    fn default() -> Self {
        TextConfig::Opt(OptConfig::default())
    }
}

impl<'de> Deserialize<'de> for TextConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(from)?;
        let kind = fields.shift_remove("model_type");
        let parse = |fields: Map<String, Value>| match kind.as_ref().map(|kind| kind.as_str().unwrap_or_default()) {
            Some("t5") => Some(serde_json::from_value(fields.into()).map(TextConfig::T5)),
            Some("llama") => Some(serde_json::from_value(fields.into()).map(TextConfig::Llama)),
            Some("qwen2") => {
                Some(serde_json::from_value(decoder_fields("qwen2", &fields).into()).map(TextConfig::Qwen2))
            }
            Some("mistral") => {
                Some(serde_json::from_value(decoder_fields("mistral", &fields).into()).map(TextConfig::Mistral))
            }
            Some("opt") | None => Some(serde_json::from_value(fields.into()).map(TextConfig::Opt)),
            Some(_) => None,
        };
        let unknown = || {
            let kind = kind.clone().unwrap_or_default();
            D::Error::custom(format!(
                "`text_config.model_type` is `{}`; supported are `opt`, {} and, in BLIP-2 and InstructBLIP, `t5`",
                kind.as_str().map_or_else(|| kind.to_string(), str::to_owned),
                LLAMA_LIKE.map(|name| format!("`{name}`")).join(", ")
            ))
        };
        let parsed = parse(fields).ok_or_else(unknown)?;
        parsed.map_err(|e| D::Error::custom(format!("`text_config`: {e}")))
    }
}

/// Tokens with a meaning of their own in generation and training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Each of these ends an answer; training uses the first.
    pub eos: Vec<i64>,
    /// Fills rows up. Never seen.
    pub pad: i64,
    /// Given to a T5 decoder before the first token.
    pub decoder_start: i64,
}

/// One id or several, as `eos_token_id` may be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    /// One.
    One(i64),
    /// Several.
    Many(Vec<i64>),
}

impl Ids {
    fn to_vec(&self) -> Vec<i64> {
        match self {
            Ids::One(id) => vec![*id],
            Ids::Many(ids) => ids.clone(),
        }
    }
}

/// `generation_config.json`, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationConfig {
    /// Begin of text; the tokenizer's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<i64>,
    /// End of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<Ids>,
    /// Padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<i64>,
    /// Start of a T5 answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder_start_token_id: Option<i64>,
    /// Fields that are not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl TextConfig {
    pub(crate) fn check(&self) -> Result<(), ModelError> {
        match self {
            TextConfig::T5(c) => c.check(),
            TextConfig::Llama(c) => c.check(),
            TextConfig::Qwen2(c) => c.check().and_then(|()| c.qwen2().map(|_| ())),
            TextConfig::Mistral(c) => c.check().and_then(|()| c.mistral().map(|_| ())),
            TextConfig::Opt(c) => c.check(),
        }
    }

    /// Special tokens: `generation_config.json` first, then this configuration, then its class's defaults.
    pub fn special_tokens(&self, generation: &GenerationConfig) -> SpecialTokens {
        let (eos, pad, start, defaults) = match self {
            TextConfig::T5(c) => (&c.eos_token_id, c.pad_token_id, c.decoder_start_token_id, (1, 0)),
            TextConfig::Llama(c) | TextConfig::Mistral(c) => (&c.eos_token_id, c.pad_token_id, None, (2, 0)),
            TextConfig::Qwen2(c) => {
                // Its class names none; those of the published models.
                let known = |id: i64| id.min(c.vocab_size - 1);
                (&c.eos_token_id, c.pad_token_id, None, (known(151_645), known(151_643)))
            }
            TextConfig::Opt(c) => (&c.eos_token_id, c.pad_token_id, None, (2, 1)),
        };
        let eos = generation.eos_token_id.as_ref().or(eos.as_ref()).map_or(vec![defaults.0], Ids::to_vec);
        // A pad token outside the vocabulary stands for none: rows are padded behind what is real, so any token does.
        let usable = |pad: &i64| (0..self.vocab_size()).contains(pad);
        let pad = generation.pad_token_id.or(pad).filter(usable).unwrap_or(defaults.1);
        SpecialTokens {
            eos: if eos.is_empty() { vec![defaults.0] } else { eos },
            pad,
            decoder_start: generation.decoder_start_token_id.or(start).unwrap_or(pad),
        }
    }

    /// Tokens the language model can read and write.
    pub fn vocab_size(&self) -> i64 {
        match self {
            TextConfig::T5(c) => c.vocab_size,
            TextConfig::Llama(c) | TextConfig::Qwen2(c) | TextConfig::Mistral(c) => c.vocab_size,
            TextConfig::Opt(c) => c.vocab_size,
        }
    }

    /// Width of the word embeddings, which image positions are projected to.
    pub fn word_width(&self) -> i64 {
        match self {
            TextConfig::T5(c) => c.d_model,
            TextConfig::Llama(c) | TextConfig::Qwen2(c) | TextConfig::Mistral(c) => c.hidden_size,
            TextConfig::Opt(c) => c.word_width(),
        }
    }

    /// Longest sequence of a model whose positions are bounded.
    pub fn positions(&self) -> Option<usize> {
        match self {
            TextConfig::T5(_) => None,
            TextConfig::Llama(c) | TextConfig::Qwen2(c) | TextConfig::Mistral(c) => {
                usize::try_from(c.max_position_embeddings).ok()
            }
            TextConfig::Opt(c) => usize::try_from(c.max_position_embeddings).ok(),
        }
    }

    /// Whether it is an encoder and a decoder: answers then are a sequence of their own.
    pub fn has_encoder(&self) -> bool {
        matches!(self, TextConfig::T5(_))
    }
}

/// Largest size in a configuration. Published models stay far below; products of two such sizes stay far from overflow.
const LARGEST: i64 = 1 << 24;

pub(crate) fn at_least_one(field: &str, value: i64) -> Result<(), ModelError> {
    if (1..=LARGEST).contains(&value) {
        return Ok(());
    }
    Err(ModelError::Config(format!("`{field}` is {value}; it must be between 1 and {LARGEST}")))
}

pub(crate) fn divides(field: &str, value: i64, by: &str, divisor: i64) -> Result<(), ModelError> {
    at_least_one(field, value)?;
    let part = field.rsplit_once('.').map_or("", |(part, _)| part);
    at_least_one(&format!("{part}.{by}"), divisor)?;
    if value % divisor == 0 {
        return Ok(());
    }
    Err(ModelError::Config(format!("`{field}` is {value}, which `{by}` = {divisor} does not divide")))
}

/// A number of layers. Published models have at most a hundred.
pub(crate) fn layers(field: &str, value: usize) -> Result<(), ModelError> {
    const MOST: usize = 1 << 12;
    if (1..=MOST).contains(&value) {
        return Ok(());
    }
    Err(ModelError::Config(format!("`{field}` is {value}; it must be between 1 and {MOST}")))
}

/// What a norm adds.
pub(crate) fn positive(field: &str, value: f64) -> Result<(), ModelError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(ModelError::Config(format!("`{field}` is {value}; it must be a number not below 0")))
}

/// A switch among fields that are otherwise not read.
pub(crate) fn flag(fields: &Map<String, Value>, name: &str, default: bool) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or(default)
}

/// Sizes of an image encoder over square images, as its configuration has them.
pub(crate) struct EncoderSizes {
    pub layers: usize,
    pub width: i64,
    pub heads: i64,
    pub inner: i64,
    pub image: i64,
    pub patch: i64,
    pub eps: f64,
}

impl EncoderSizes {
    /// Refuses what no encoder can have.
    pub fn check(&self) -> Result<(), ModelError> {
        let Self { image, patch, .. } = *self;
        layers("vision_config.num_hidden_layers", self.layers)?;
        positive("vision_config.layer_norm_eps", self.eps)?;
        at_least_one("vision_config.intermediate_size", self.inner)?;
        divides("vision_config.hidden_size", self.width, "num_attention_heads", self.heads)?;
        at_least_one("vision_config.image_size", image)?;
        at_least_one("vision_config.patch_size", patch)?;
        if patch > image {
            let message = format!("`vision_config.patch_size` is {patch}, larger than the image of {image}");
            return Err(ModelError::Config(message));
        }
        Ok(())
    }
}

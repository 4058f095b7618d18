//! `config.json` of a model folder, and what is read beside it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ModelError, llama::LlamaConfig, qformer::QFormerConfig, t5::T5Config, vit::VisionConfig};

/// `config.json` of an InstructBLIP checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstructBlipConfig {
    /// `instructblip`.
    pub model_type: String,
    /// Learned queries of the Q-Former: image positions in the language model.
    #[serde(default = "published_queries")]
    pub num_query_tokens: i64,
    /// Width of the retrieval head, where a checkpoint has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_text_hidden_size: Option<i64>,
    /// Image encoder.
    #[serde(default)]
    pub vision_config: VisionConfig,
    /// Interface.
    #[serde(default)]
    pub qformer_config: QFormerConfig,
    /// Language model.
    pub text_config: TextConfig,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

fn published_queries() -> i64 {
    32
}

/// `text_config`, by its `model_type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum TextConfig {
    /// Encoder-decoder.
    #[serde(rename = "t5")]
    T5(T5Config),
    /// Decoder-only.
    #[serde(rename = "llama")]
    Llama(LlamaConfig),
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

impl InstructBlipConfig {
    /// Refuses what no network can have: sizes below one, heads that do not divide widths, unknown forms.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.model_type != "instructblip" {
            let message = format!("`model_type` is `{}`; only `instructblip` is supported", self.model_type);
            return Err(ModelError::Config(message));
        }
        at_least_one("num_query_tokens", self.num_query_tokens)?;
        if let Some(width) = self.image_text_hidden_size {
            at_least_one("image_text_hidden_size", width)?;
        }
        self.vision_config.check()?;
        self.qformer_config.check()?;
        if self.qformer_config.encoder_hidden_size != self.vision_config.hidden_size {
            return Err(ModelError::Config(format!(
                "`qformer_config.encoder_hidden_size` is {} and `vision_config.hidden_size` {}; they must be equal",
                self.qformer_config.encoder_hidden_size, self.vision_config.hidden_size
            )));
        }
        match &self.text_config {
            TextConfig::T5(c) => c.check(),
            TextConfig::Llama(c) => c.check(),
        }
    }

    /// Special tokens: `generation_config.json` first, then the language model's configuration, then its class's defaults.
    pub fn special_tokens(&self, generation: &GenerationConfig) -> SpecialTokens {
        let (eos, pad, start, default_eos) = match &self.text_config {
            TextConfig::T5(c) => (&c.eos_token_id, c.pad_token_id, c.decoder_start_token_id, 1),
            TextConfig::Llama(c) => (&c.eos_token_id, c.pad_token_id, None, 2),
        };
        let eos = generation.eos_token_id.as_ref().or(eos.as_ref()).map_or(vec![default_eos], Ids::to_vec);
        let pad = generation.pad_token_id.or(pad).unwrap_or(0);
        SpecialTokens {
            eos: if eos.is_empty() { vec![default_eos] } else { eos },
            pad,
            decoder_start: generation.decoder_start_token_id.or(start).unwrap_or(pad),
        }
    }

    /// Placeholder of an image position in a prompt; old folders have none.
    pub fn image_token(&self) -> Option<i64> {
        ["image_token_index", "image_token_id"].iter().find_map(|name| self.rest.get(*name)?.as_i64())
    }

    /// Tokens the language model can read and write.
    pub fn vocab_size(&self) -> i64 {
        match &self.text_config {
            TextConfig::T5(c) => c.vocab_size,
            TextConfig::Llama(c) => c.vocab_size,
        }
    }

    /// Width of the language model.
    pub fn text_width(&self) -> i64 {
        match &self.text_config {
            TextConfig::T5(c) => c.d_model,
            TextConfig::Llama(c) => c.hidden_size,
        }
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
    at_least_one(by, divisor)?;
    if value % divisor == 0 {
        return Ok(());
    }
    Err(ModelError::Config(format!("`{field}` is {value}, which `{by}` = {divisor} does not divide")))
}

//! LLaVA-1.5: CLIP's image encoder, two linears, and a decoder-only language model.
//!
//! Reference: `LlavaForConditionalGeneration` in transformers, `modeling_llava.py`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Architecture, Networks, image_token};
use crate::{
    ModelError, Scope,
    clip::{Chosen, Clip, ClipConfig, after},
    config::{TextConfig, or_default},
    language,
    layers::Activation,
    llama::LlamaConfig,
    mlp::{Mlp, MlpShape},
};

/// `config.json` of a LLaVA checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LlavaConfig {
    /// `llava`.
    pub model_type: String,
    /// Image encoder.
    #[serde(default = "published_vision", deserialize_with = "vision")]
    pub vision_config: ClipConfig,
    /// Language model.
    #[serde(default = "published_text", deserialize_with = "text")]
    pub text_config: TextConfig,
    /// Which of the encoder's hidden states are image features; negative numbers count from the end.
    #[serde(default = "second_last")]
    pub vision_feature_layer: i64,
    /// `default` leaves the class token out, `full` keeps it.
    #[serde(default)]
    pub vision_feature_select_strategy: Select,
    /// Between the connector's two linears.
    #[serde(default = "gelu")]
    pub projector_hidden_act: Activation,
    /// Whether the connector's linears have biases.
    #[serde(default = "yes")]
    pub multimodal_projector_bias: bool,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Which tokens of the image encoder are image features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// All but the class token.
    #[default]
    Default,
    /// All.
    Full,
}

fn published_vision() -> ClipConfig {
    ClipConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        image_size: 336,
        patch_size: 14,
        ..ClipConfig::default()
    }
}

fn published_text() -> TextConfig {
    TextConfig::Llama(LlamaConfig::default())
}

/// Without an entry, the published sizes; an entry's absent fields have the class's defaults.
fn vision<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ClipConfig, D::Error> {
    Ok(Option::<ClipConfig>::deserialize(from)?.unwrap_or_else(published_vision))
}

/// An entry without `model_type` is LLaMA's, as in the reference.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<TextConfig, D::Error> {
    let mut fields: Map<String, Value> = or_default(from)?;
    fields.entry("model_type").or_insert_with(|| "llama".into());
    serde_json::from_value(Value::Object(fields)).map_err(serde::de::Error::custom)
}

fn second_last() -> i64 {
    -2
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn yes() -> bool {
    true
}

impl LlavaConfig {
    fn chosen(&self) -> Result<Chosen, ModelError> {
        let after = after("vision_feature_layer", self.vision_feature_layer, self.vision_config.num_hidden_layers)?;
        Ok(Chosen { after, without_class: self.vision_feature_select_strategy == Select::Default })
    }
}

impl Architecture for LlavaConfig {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn check(&self) -> Result<(), ModelError> {
        if let Some(kind) = self.vision_config.model_type.as_deref().filter(|kind| *kind != "clip_vision_model") {
            let message = format!("`vision_config.model_type` is `{kind}`; supported is `clip_vision_model`");
            return Err(ModelError::Config(message));
        }
        self.vision_config.check()?;
        if self.text_config.has_encoder() {
            let message = "`text_config.model_type` is `t5`; LLaVA's language model is a decoder";
            return Err(ModelError::Config(message.to_owned()));
        }
        self.text_config.check()?;
        if self.image_token().is_none() {
            let message = "`image_token_index` is missing: nothing says where in a prompt the image goes";
            return Err(ModelError::Config(message.to_owned()));
        }
        self.chosen().map(|_| ())
    }

    fn text_config(&self) -> &TextConfig {
        &self.text_config
    }

    fn image_token(&self) -> Option<i64> {
        image_token(&self.rest)
    }

    fn image_tokens(&self) -> i64 {
        self.vision_config.patches() + i64::from(self.vision_feature_select_strategy == Select::Full)
    }

    fn image_size(&self) -> i64 {
        self.vision_config.image_size
    }

    fn vision_shape(&self) -> (i64, i64) {
        (self.vision_config.patches() + 1, self.vision_config.hidden_size)
    }

    fn patch(&self) -> i64 {
        self.vision_config.patch_size
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.rest
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.rest
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let shape = MlpShape {
            inputs: self.vision_config.hidden_size,
            outputs: self.text_config.word_width(),
            bias: self.multimodal_projector_bias,
            activation: self.projector_hidden_act,
            tokens: self.image_tokens() as usize,
        };
        Ok(Networks {
            vision: Box::new(Clip::load(&root.at(self.vision_path()), &self.vision_config, self.chosen()?)?),
            connector: Box::new(Mlp::load(&root.at("multi_modal_projector"), &shape)?),
            language: Some(language::load(&root.at("language_model"), &self.text_config)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        "vision_tower.vision_model"
    }
}

//! LLaVA-1.5: an image encoder (CLIP's, SigLIP's or DINOv2's), two linears, and a decoder-only language model.
//!
//! Reference: `LlavaForConditionalGeneration` in transformers, `modeling_llava.py`.

use ressa_checkpoint::{keeps_first, llava_vision};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::{Architecture, Networks, image_token};
use crate::{
    ModelError, Scope,
    config::TextConfig,
    language,
    layers::Activation,
    mlp::{Mlp, MlpShape},
    patch_encoder::{self, EncoderConfig, Takes, after},
};

/// `config.json` of a LLaVA checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaConfig {
    /// `llava`.
    pub model_type: String,
    /// Image encoder.
    pub vision: EncoderConfig,
    /// Language model.
    pub text: TextConfig,
    /// Which of the encoder's hidden states are image features; negative numbers count from the end.
    feature_layer: i64,
    /// Whether the class token is an image feature, or, where there is none, the first patch.
    keeps_first: bool,
    /// Between the connector's two linears.
    projector_act: Activation,
    /// Whether the connector's linears have biases.
    projector_bias: bool,
    /// Everything as it is written.
    fields: Map<String, Value>,
}

impl<'de> Deserialize<'de> for LlavaConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields: Map<String, Value> = Map::deserialize(from)?;
        let wrong = |part: &'static str| move |e: serde_json::Error| D::Error::custom(format!("`{part}`: {e}"));
        let (kind, encoder) = llava_vision(&fields).map_err(D::Error::custom)?;
        let field = |name: &str| fields.get(name).filter(|value| !value.is_null()).cloned();
        let strategy = field("vision_feature_select_strategy").unwrap_or_else(|| "default".into());
        if strategy != "default" && strategy != "full" {
            return Err(D::Error::custom(format!(
                "`vision_feature_select_strategy` is {strategy}; it must be `default` or `full`"
            )));
        }
        let layer = field("vision_feature_layer").map_or(Ok(-2), serde_json::from_value);
        let act = field("projector_hidden_act").map_or(Ok(Activation::Gelu), serde_json::from_value);
        let bias = field("multimodal_projector_bias").map_or(Ok(true), serde_json::from_value);
        // An entry without `model_type` is LLaMA's, as in the reference.
        let mut text = match fields.get("text_config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(text)) => text.clone(),
            Some(_) => return Err(D::Error::custom("`text_config` is not an object")),
        };
        text.entry("model_type").or_insert_with(|| "llama".into());
        Ok(Self {
            model_type: field("model_type").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default(),
            vision: EncoderConfig::read(kind, &encoder).map_err(wrong("vision_config"))?,
            text: serde_json::from_value(Value::Object(text)).map_err(D::Error::custom)?,
            feature_layer: layer.map_err(wrong("vision_feature_layer"))?,
            keeps_first: keeps_first(&fields),
            projector_act: act.map_err(wrong("projector_hidden_act"))?,
            projector_bias: bias.map_err(wrong("multimodal_projector_bias"))?,
            fields,
        })
    }
}

/// As the folder has it.
impl Serialize for LlavaConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(to)
    }
}

impl LlavaConfig {
    fn takes(&self) -> Result<Takes, ModelError> {
        let blocks = after("vision_feature_layer", self.feature_layer, self.vision.layers)?;
        Ok(Takes::After { blocks, without_first: !self.keeps_first })
    }
}

impl Architecture for LlavaConfig {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn check(&self) -> Result<(), ModelError> {
        self.vision.check()?;
        if self.text.has_encoder() {
            let message = "`text_config.model_type` is `t5`; LLaVA's language model is a decoder";
            return Err(ModelError::Config(message.to_owned()));
        }
        self.text.check()?;
        if self.image_token().is_none() {
            let message = "`image_token_index` is missing: nothing says where in a prompt the image goes";
            return Err(ModelError::Config(message.to_owned()));
        }
        if self.image_tokens() == 0 {
            let message =
                "`vision_feature_select_strategy` is `default`, which leaves nothing of an image of one patch";
            return Err(ModelError::Config(message.to_owned()));
        }
        self.takes().map(|_| ())
    }

    fn text_config(&self) -> &TextConfig {
        &self.text
    }

    fn image_token(&self) -> Option<i64> {
        image_token(&self.fields)
    }

    fn image_tokens(&self) -> i64 {
        self.vision.tokens() - i64::from(!self.keeps_first)
    }

    fn image_size(&self) -> i64 {
        self.vision.image
    }

    fn vision_shape(&self) -> (i64, i64) {
        (self.vision.tokens(), self.vision.width)
    }

    fn patch(&self) -> i64 {
        self.vision.patch
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.fields
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.fields
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let shape = MlpShape {
            inputs: self.vision.width,
            outputs: self.text.word_width(),
            bias: self.projector_bias,
            activation: self.projector_act,
            tokens: self.image_tokens() as usize,
        };
        Ok(Networks {
            vision: patch_encoder::load(&root.at(self.vision_path()), &self.vision, self.takes()?)?,
            connector: Box::new(Mlp::load(&root.at("multi_modal_projector"), &shape)?),
            language: Some(language::load(&root.at("language_model"), &self.text)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        self.vision.kind.path()
    }
}

//! Idefics3 and SmolVLM: an image encoder over the tiles of an image, squares of patches as one feature, and a decoder-only language model.
//!
//! Reference: `Idefics3ForConditionalGeneration` in transformers, `modeling_idefics3.py`; `SmolVLMForConditionalGeneration` is the same network.

use ressa_checkpoint::TileSizes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::{Architecture, Networks, image_token, tiled};
use crate::{
    ModelError, Scope,
    config::TextConfig,
    language,
    patch_encoder::{self, EncoderConfig, Takes},
    shuffle::{Shuffle, ShuffleShape},
};

/// Id of the image token where a configuration has none.
const IMAGE_TOKEN: i64 = 128_257;

/// `config.json` of an Idefics3 or SmolVLM checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct IdeficsConfig {
    /// `idefics3` or `smolvlm`.
    pub model_type: String,
    /// Image encoder.
    pub vision: EncoderConfig,
    /// Language model.
    pub text: TextConfig,
    /// A tile.
    pub tile: TileSizes,
    /// Everything as it is written.
    fields: Map<String, Value>,
}

impl<'de> Deserialize<'de> for IdeficsConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields: Map<String, Value> = Map::deserialize(from)?;
        let (vision, text, tile) = tiled::read(&fields).map_err(D::Error::custom)?;
        Ok(Self {
            model_type: fields.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            vision,
            text,
            tile,
            fields,
        })
    }
}

/// As the folder has it.
impl Serialize for IdeficsConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(to)
    }
}

impl Architecture for IdeficsConfig {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn check(&self) -> Result<(), ModelError> {
        self.vision.check()?;
        if self.text.has_encoder() {
            let message = "`text_config.model_type` is `t5`; the language model of this family is a decoder";
            return Err(ModelError::Config(message.to_owned()));
        }
        self.text.check()
    }

    fn text_config(&self) -> &TextConfig {
        &self.text
    }

    fn image_token(&self) -> Option<i64> {
        Some(image_token(&self.fields).unwrap_or(IMAGE_TOKEN))
    }

    /// Of a photograph.
    fn image_tokens(&self) -> i64 {
        self.tile.of_photograph()[1] as i64
    }

    /// Of a tile.
    fn image_size(&self) -> i64 {
        self.vision.image
    }

    /// Of a photograph.
    fn vision_shape(&self) -> (i64, i64) {
        (self.tile.of_photograph()[0] as i64, self.vision.width)
    }

    fn patch(&self) -> i64 {
        self.vision.patch
    }

    fn tile(&self) -> Option<TileSizes> {
        Some(self.tile)
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.fields
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.fields
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let shape = ShuffleShape {
            inputs: self.vision.width,
            outputs: self.text.word_width(),
            side: self.tile.patches as i64,
            scale: self.tile.scale as i64,
            tokens: self.image_tokens() as usize,
        };
        Ok(Networks {
            vision: patch_encoder::load(&root.at(self.vision_path()), &self.vision, Takes::Last, true)?,
            connector: Box::new(Shuffle::load(&root.at("connector.modality_projection"), &shape)?),
            language: Some(language::load(&root.at("language_model"), &self.text)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        self.vision.kind.path()
    }

    fn written(&self, name: &str) -> String {
        if let Some(head) = name.strip_prefix("language_model.lm_head") {
            return format!("lm_head{head}");
        }
        match name.strip_prefix("language_model.model.") {
            Some(inner) => format!("model.text_model.{inner}"),
            None => format!("model.{name}"),
        }
    }
}

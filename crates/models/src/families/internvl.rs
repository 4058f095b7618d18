//! InternVL (InternVL2.5 and InternVL3 as transformers has them): an image encoder over the tiles of an image, squares of patches as one feature, and a
//! decoder-only language model.
//!
//! Reference: `InternVLForConditionalGeneration` in transformers 4.57, `modeling_internvl.py`. Differs: in a search every beam sees all tiles of its image; the
//! reference repeats them one by one, so that the first beam sees the first tile several times.

use ressa_checkpoint::TileSizes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::{Architecture, Networks, image_token, tiled};
use crate::{
    ModelError, Scope,
    config::TextConfig,
    language,
    layers::Activation,
    patch_encoder::{self, EncoderConfig, Takes},
    shuffle::{Shuffle, ShuffleShape},
};

/// Id of the image token where a configuration has none.
const IMAGE_TOKEN: i64 = 151_667;

/// `config.json` of an InternVL checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct InternVlConfig {
    /// Image encoder.
    pub vision: EncoderConfig,
    /// Language model.
    pub text: TextConfig,
    /// A tile.
    pub tile: TileSizes,
    /// Between the connector's linears.
    pub projector_act: Activation,
    /// Everything as it is written.
    fields: Map<String, Value>,
}

impl<'de> Deserialize<'de> for InternVlConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields: Map<String, Value> = Map::deserialize(from)?;
        let (vision, text, tile) = tiled::read(&fields).map_err(D::Error::custom)?;
        let act = fields.get("projector_hidden_act").filter(|act| !act.is_null()).cloned();
        let act = act.map_or(Ok(Activation::Gelu), serde_json::from_value);
        Ok(Self {
            vision,
            text,
            tile,
            projector_act: act.map_err(|e| D::Error::custom(format!("`projector_hidden_act`: {e}")))?,
            fields,
        })
    }
}

/// As the folder has it.
impl Serialize for InternVlConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(to)
    }
}

impl Architecture for InternVlConfig {
    fn model_type(&self) -> &str {
        "internvl"
    }

    fn check(&self) -> Result<(), ModelError> {
        let other = |message: &str| Err(ModelError::Config(message.to_owned()));
        self.vision.check()?;
        if self.text.has_encoder() {
            return other("`text_config.model_type` is `t5`; InternVL's language model is a decoder");
        }
        if self.fields.get("vision_feature_layer").is_some_and(|layer| *layer != -1) {
            return other("`vision_feature_layer` must be -1, the only one that transformers computes");
        }
        if self.fields.get("vision_feature_select_strategy").is_some_and(|strategy| strategy != "default") {
            return other("`vision_feature_select_strategy` must be `default`: patches without the class token");
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

    /// Of a photograph, with a class token for each tile.
    fn vision_shape(&self) -> (i64, i64) {
        let [patches, _] = self.tile.of_photograph().map(|count| count as i64);
        (patches / self.vision.patches() * self.vision.tokens(), self.vision.width)
    }

    fn patch(&self) -> i64 {
        self.vision.patch
    }

    fn tile(&self) -> Option<TileSizes> {
        Some(self.tile)
    }

    fn has_tiles_in_one(&self) -> bool {
        true
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
        let takes = Takes::After { blocks: vec![self.vision.layers], without_first: true };
        let connector = Shuffle::with_layers(&root.at("multi_modal_projector"), &shape, self.projector_act)?;
        Ok(Networks {
            vision: patch_encoder::load(&root.at(self.vision_path()), &self.vision, takes, true)?,
            connector: Box::new(connector),
            language: Some(language::load(&root.at("language_model"), &self.text)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        self.vision.kind.path()
    }
}

//! LLaVA-1.5: an image encoder (CLIP's, SigLIP's or DINOv2's), two linears, and a decoder-only language model. LLaVA-NeXT: the same over the tiles
//! of an image.
//!
//! Reference: `LlavaForConditionalGeneration` in transformers, `modeling_llava.py`, and `LlavaNextForConditionalGeneration`,
//! `modeling_llava_next.py`.

use ressa_checkpoint::{Pinpoints, feature_layers, is_llava_next, keeps_first, llava_vision};
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

/// Id of LLaVA-NeXT's image token where a configuration has none.
const IMAGE_TOKEN: i64 = 32_000;

/// `config.json` of a LLaVA or LLaVA-NeXT checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct LlavaConfig {
    /// `llava` or `llava_next`.
    pub model_type: String,
    /// Image encoder.
    pub vision: EncoderConfig,
    /// Language model.
    pub text: TextConfig,
    /// Which of the encoder's hidden states are image features; negative numbers count from the end.
    feature_layers: Vec<i64>,
    /// The resolutions that an image is brought to, where it is read as tiles.
    pinpoints: Option<Pinpoints>,
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
        let act = field("projector_hidden_act").map_or(Ok(Activation::Gelu), serde_json::from_value);
        let bias = field("multimodal_projector_bias").map_or(Ok(true), serde_json::from_value);
        // An entry without `model_type` is LLaMA's, as in the reference.
        let mut text = match fields.get("text_config") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(text)) => text.clone(),
            Some(_) => return Err(D::Error::custom("`text_config` is not an object")),
        };
        text.entry("model_type").or_insert_with(|| "llama".into());
        let pinpoints = is_llava_next(&fields).then(|| Pinpoints::of(&fields)).transpose();
        Ok(Self {
            model_type: field("model_type").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default(),
            vision: EncoderConfig::read(kind, &encoder).map_err(wrong("vision_config"))?,
            text: serde_json::from_value(Value::Object(text)).map_err(D::Error::custom)?,
            feature_layers: feature_layers(&fields).map_err(D::Error::custom)?,
            pinpoints: pinpoints.map_err(D::Error::custom)?,
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
        let blocks = |&layer: &i64| after("vision_feature_layer", layer, self.vision.layers);
        let blocks = self.feature_layers.iter().map(blocks).collect::<Result<_, _>>()?;
        Ok(Takes::After { blocks, without_first: !self.keeps_first })
    }

    /// Features of an image, or of a tile.
    fn features(&self) -> i64 {
        self.vision.tokens() - i64::from(!self.keeps_first)
    }

    /// Width of a feature.
    fn width(&self) -> i64 {
        self.vision.width * self.feature_layers.len() as i64
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
        if self.pinpoints.is_some() && self.features() != self.vision.patches() {
            let (strategy, encoder) = if self.keeps_first { ("full", "with") } else { ("default", "without") };
            return Err(ModelError::Config(format!(
                "`vision_feature_select_strategy` is `{strategy}`, which for an image encoder {encoder} a class token leaves {} features of the {} \
                 patches of a tile; their rows and columns cannot be told",
                self.features(),
                self.vision.patches()
            )));
        }
        if self.features() == 0 {
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
        image_token(&self.fields).or(self.pinpoints.as_ref().map(|_| IMAGE_TOKEN))
    }

    fn image_tokens(&self) -> i64 {
        self.pinpoints.as_ref().map_or(self.features(), |pinpoints| pinpoints.of_photograph().features() as i64)
    }

    fn image_size(&self) -> i64 {
        self.vision.image
    }

    fn vision_shape(&self) -> (i64, i64) {
        let tiles = self.pinpoints.as_ref().map_or(1, |pinpoints| pinpoints.of_photograph().count() as i64);
        (tiles * self.vision.tokens(), self.width())
    }

    fn patch(&self) -> i64 {
        self.vision.patch
    }

    fn pinpoints(&self) -> Option<&Pinpoints> {
        self.pinpoints.as_ref()
    }

    /// On a canvas there is room for more tiles than it has.
    fn tokens_of(&self, pixels: u64) -> [u64; 2] {
        let [tokens, features] = [self.vision.tokens(), self.features()].map(i64::unsigned_abs);
        let Some(pinpoints) = &self.pinpoints else { return [tokens, features] };
        let [pixels_of_tile, side] = [pinpoints.pixels, pinpoints.side].map(u64::from);
        let tiles = pixels / (pixels_of_tile * pixels_of_tile);
        [tiles * tokens, tiles * (features + side)]
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.fields
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.fields
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let shape = MlpShape {
            inputs: self.width(),
            outputs: self.text.word_width(),
            bias: self.projector_bias,
            activation: self.projector_act,
            tokens: self.image_tokens() as usize,
        };
        let tiled = self.pinpoints.is_some();
        let vision = patch_encoder::load(&root.at(self.vision_path()), &self.vision, self.takes()?, tiled)?;
        let mut connector = Mlp::load(&root.at("multi_modal_projector"), &shape)?;
        if tiled {
            connector = connector.with_newline(root.tensor("image_newline", &[shape.outputs])?);
        }
        Ok(Networks {
            vision,
            connector: Box::new(connector),
            language: Some(language::load(&root.at("language_model"), &self.text)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        self.vision.kind.path()
    }
}

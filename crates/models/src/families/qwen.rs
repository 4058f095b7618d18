//! Qwen2-VL and Qwen2.5-VL: an image encoder for images of any size, a merger of patches, and Qwen2's decoder.
//!
//! Reference: `Qwen2VLForConditionalGeneration` in transformers, `modeling_qwen2_vl.py`, and its sibling in `modeling_qwen2_5_vl.py`. Folders of
//! 2024 have the language model's settings at the top of `config.json` and its tensors below `model`, newer ones both in parts of their own.

use ressa_checkpoint::qwen_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

use super::{Architecture, Grid, Networks, image_token};
use crate::{
    ModelError, Scope,
    config::{TextConfig, or_default},
    language,
    layers::Activation,
    qwen_merger::Merger,
    qwen_vision::{QwenVision, QwenVit, Windows},
};

/// Id of the image token where a configuration has none.
const IMAGE_TOKEN: i64 = 151_655;
/// Id of the token before an image where a configuration has none.
const VISION_START: i64 = 151_652;
/// Features along a side of an image of middling size, for estimates that are made before there is an image.
const MIDDLING: i64 = 16;

/// `config.json` of a Qwen2-VL or Qwen2.5-VL checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct QwenVlConfig {
    /// `qwen2_vl` or `qwen2_5_vl`.
    pub model_type: String,
    /// Image encoder.
    pub vision: QwenVision,
    /// Language model.
    pub text: TextConfig,
    /// Everything as it is written.
    fields: Map<String, Value>,
}

/// `vision_config` of Qwen2-VL.
#[derive(Deserialize)]
#[serde(default)]
struct Older {
    depth: usize,
    embed_dim: i64,
    hidden_size: i64,
    hidden_act: Activation,
    mlp_ratio: f64,
    num_heads: i64,
    in_channels: i64,
    patch_size: i64,
    spatial_merge_size: i64,
    temporal_patch_size: i64,
}

impl Default for Older {
    fn default() -> Self {
        Self {
            depth: 32,
            embed_dim: 1280,
            hidden_size: 3584,
            hidden_act: Activation::QuickGelu,
            mlp_ratio: 4.0,
            num_heads: 16,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
        }
    }
}

/// `vision_config` of Qwen2.5-VL.
#[derive(Deserialize)]
#[serde(default)]
struct Newer {
    depth: usize,
    hidden_size: i64,
    hidden_act: Activation,
    intermediate_size: i64,
    num_heads: i64,
    in_channels: i64,
    patch_size: i64,
    spatial_merge_size: i64,
    temporal_patch_size: i64,
    window_size: i64,
    out_hidden_size: i64,
    fullatt_block_indexes: Vec<usize>,
}

impl Default for Newer {
    fn default() -> Self {
        Self {
            depth: 32,
            hidden_size: 3584,
            hidden_act: Activation::Silu,
            intermediate_size: 3420,
            num_heads: 16,
            in_channels: 3,
            patch_size: 14,
            spatial_merge_size: 2,
            temporal_patch_size: 2,
            window_size: 112,
            out_hidden_size: 3584,
            fullatt_block_indexes: vec![7, 15, 23, 31],
        }
    }
}

impl From<Older> for QwenVision {
    fn from(c: Older) -> Self {
        Self {
            depth: c.depth,
            width: c.embed_dim,
            inner: (c.embed_dim as f64 * c.mlp_ratio) as i64,
            heads: c.num_heads,
            activation: c.hidden_act,
            channels: c.in_channels,
            patch: c.patch_size,
            frames: c.temporal_patch_size,
            merge: c.spatial_merge_size,
            handed: c.hidden_size,
            windows: None,
        }
    }
}

impl From<Newer> for QwenVision {
    fn from(c: Newer) -> Self {
        Self {
            depth: c.depth,
            width: c.hidden_size,
            inner: c.intermediate_size,
            heads: c.num_heads,
            activation: c.hidden_act,
            channels: c.in_channels,
            patch: c.patch_size,
            frames: c.temporal_patch_size,
            merge: c.spatial_merge_size,
            handed: c.out_hidden_size,
            windows: Some(Windows { size: c.window_size, whole: c.fullatt_block_indexes }),
        }
    }
}

impl<'de> Deserialize<'de> for QwenVlConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields: Map<String, Value> = Map::deserialize(from)?;
        let model_type = fields.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let wrong = |part: &'static str| move |e: serde_json::Error| D::Error::custom(format!("`{part}`: {e}"));
        let vision = fields.get("vision_config").cloned().unwrap_or_default();
        let vision = match model_type.as_str() {
            "qwen2_vl" => or_default::<_, Older>(vision).map(QwenVision::from),
            _ => or_default::<_, Newer>(vision).map(QwenVision::from),
        };
        let text = serde_json::from_value(Value::Object(qwen_text(&fields))).map(TextConfig::Qwen2);
        Ok(Self {
            vision: vision.map_err(wrong("vision_config"))?,
            text: text.map_err(wrong("text_config"))?,
            model_type,
            fields,
        })
    }
}

impl QwenVlConfig {
    /// Height and width of a feature in pixels.
    fn feature(&self) -> i64 {
        self.vision.patch * self.vision.merge
    }
}

/// As the folder has it.
impl Serialize for QwenVlConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(to)
    }
}

impl Architecture for QwenVlConfig {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn check(&self) -> Result<(), ModelError> {
        self.vision.check()?;
        self.text.check().map_err(|error| match error {
            // Folders of 2024 have these fields at the top.
            ModelError::Config(reason) if !self.fields.contains_key("text_config") => {
                ModelError::Config(reason.replace("`text_config.", "`"))
            }
            other => other,
        })?;
        if let TextConfig::Qwen2(text) = &self.text {
            text.sections()?;
        }
        let words = self.text.word_width();
        if self.vision.handed != words {
            let field = if self.vision.windows.is_some() { "out_hidden_size" } else { "hidden_size" };
            return Err(ModelError::Config(format!(
                "`vision_config.{field}` is {}, and the language model's words have a width of {words}",
                self.vision.handed
            )));
        }
        Ok(())
    }

    fn text_config(&self) -> &TextConfig {
        &self.text
    }

    fn image_token(&self) -> Option<i64> {
        Some(image_token(&self.fields).unwrap_or(IMAGE_TOKEN))
    }

    /// Of an image of middling size.
    fn image_tokens(&self) -> i64 {
        MIDDLING * MIDDLING
    }

    /// Of an image of middling size.
    fn image_size(&self) -> i64 {
        MIDDLING * self.feature()
    }

    /// Of an image of middling size.
    fn vision_shape(&self) -> (i64, i64) {
        (self.image_tokens() * self.vision.merge * self.vision.merge, self.vision.width)
    }

    fn patch(&self) -> i64 {
        self.vision.patch
    }

    fn grid(&self) -> Option<Grid> {
        let start = self.fields.get("vision_start_token_id").and_then(Value::as_i64).unwrap_or(VISION_START);
        let QwenVision { patch, merge, frames, channels, .. } = self.vision;
        Some(Grid { patch, merge, frames, values: channels * frames * patch * patch, start })
    }

    fn rest(&self) -> &Map<String, Value> {
        &self.fields
    }

    fn rest_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.fields
    }

    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError> {
        let visual = root.at(self.vision_path());
        Ok(Networks {
            vision: Box::new(QwenVit::load(&visual, &self.vision)?),
            connector: Box::new(Merger::load(&visual.at("merger"), &self.vision, self.image_tokens() as usize)?),
            language: Some(language::load(&root.at("language_model"), &self.text)?),
            retrieval: None,
        })
    }

    fn vision_path(&self) -> &'static str {
        "visual"
    }

    /// As folders of 2024 have it, which every version of the reference reads.
    fn written(&self, name: &str) -> String {
        name.strip_prefix("language_model.").unwrap_or(name).to_owned()
    }
}

//! The families of models, each a composition of an image encoder, a connector and a language model.
//!
//! A family is a file here that says what its `config.json` holds and which networks its tensors make, and a row in [`FAMILIES`].

mod blip2;
mod idefics;
mod internvl;
mod llava;
mod qwen;
mod tiled;

use std::fmt::Debug;

use ressa_checkpoint::{Pinpoints, TileSizes};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

pub use self::{
    blip2::{Blip2Config, Family},
    idefics::IdeficsConfig,
    internvl::InternVlConfig,
    llava::LlavaConfig,
    qwen::QwenVlConfig,
};
use crate::{
    ModelError, Scope,
    config::{GenerationConfig, SpecialTokens, TextConfig},
    connector::Connector,
    encoder::ImageEncoder,
    language::LanguageModel,
    retrieval::Retrieval,
};

/// Reads a configuration of one family.
type Read = fn(Value) -> serde_json::Result<Box<dyn Architecture>>;

/// Every family by the `model_type` of its `config.json`.
const FAMILIES: [(&str, Read); 9] = [
    ("instructblip", read::<Blip2Config>),
    ("blip-2", read::<Blip2Config>),
    ("llava", read::<LlavaConfig>),
    ("llava_next", read::<LlavaConfig>),
    ("qwen2_vl", read::<QwenVlConfig>),
    ("qwen2_5_vl", read::<QwenVlConfig>),
    ("idefics3", read::<IdeficsConfig>),
    ("smolvlm", read::<IdeficsConfig>),
    ("internvl", read::<InternVlConfig>),
];

/// How a model that reads images of any size has them cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Height and width of a patch.
    pub patch: i64,
    /// Patches along a side that become one feature.
    pub merge: i64,
    /// Frames that a patch spans.
    pub frames: i64,
    /// Values of a patch.
    pub values: i64,
    /// The token before an image: without it, an image's tokens have the positions of words.
    pub start: i64,
}

/// What every configuration can do because it is plain data.
pub trait Written {
    /// A copy.
    fn boxed(&self) -> Box<dyn Architecture>;

    /// As it is written.
    ///
    /// # Errors
    /// Numbers that JSON does not have.
    fn to_json(&self) -> serde_json::Result<Value>;
}

impl<T: Architecture + Clone + Serialize + 'static> Written for T {
    fn boxed(&self) -> Box<dyn Architecture> {
        Box::new(self.clone())
    }

    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

/// A model folder's `config.json`: which networks it describes.
pub trait Architecture: Written + Debug + Send + Sync {
    /// `model_type`.
    fn model_type(&self) -> &str;

    /// Refuses what no network can have: sizes below one or beyond reason, heads that do not divide widths, unknown forms.
    ///
    /// # Errors
    /// Names the field and what it must be.
    fn check(&self) -> Result<(), ModelError>;

    /// The language model's part. A retrieval checkpoint has the entry and no such model.
    fn text_config(&self) -> &TextConfig;

    /// Whether there is a language model.
    fn writes(&self) -> bool {
        true
    }

    /// Id that stands for an image position among the language model's tokens.
    fn image_token(&self) -> Option<i64>;

    /// Positions that an image of the configured size takes.
    fn image_tokens(&self) -> i64;

    /// The same with so many learned queries; `None` where there are none.
    fn with_queries(&self, queries: i64) -> Option<Box<dyn Architecture>> {
        let _ = queries;
        None
    }

    /// Height and width of an image.
    fn image_size(&self) -> i64;

    /// Height and width of a patch of an image.
    fn patch(&self) -> i64;

    /// Tokens of an image within the image encoder, and the width of a feature.
    fn vision_shape(&self) -> (i64, i64);

    /// How images are cut, where the model reads them at any size. The sizes above are then those of an image of middling size.
    fn grid(&self) -> Option<Grid> {
        None
    }

    /// A tile, where the model reads images as tiles. The sizes above are then those of a photograph, but for the image's own, which is a tile's.
    fn tile(&self) -> Option<TileSizes> {
        None
    }

    /// Whether the tiles of all images of a batch stand one after the other, not in rows that are filled up.
    fn has_tiles_in_one(&self) -> bool {
        false
    }

    /// The resolutions that an image is brought to, where the model reads those as tiles without their padding. Sizes are then as for
    /// [`Architecture::tile`].
    fn pinpoints(&self) -> Option<&Pinpoints> {
        None
    }

    /// Tokens within the image encoder, and positions in the language model, of an image whose pixels are so many; of any image where all
    /// are read at one size.
    fn tokens_of(&self, pixels: u64) -> [u64; 2] {
        let side = self.patch().unsigned_abs().max(1);
        let patches = pixels / (side * side);
        let merged = |along: u64| patches / (along * along).max(1);
        match (self.grid(), self.tile()) {
            (Some(cut), _) => [patches, merged(cut.merge.unsigned_abs())],
            (None, Some(tile)) => [patches, merged(tile.scale as u64)],
            (None, None) => [self.vision_shape().0, self.image_tokens()].map(i64::unsigned_abs),
        }
    }

    /// The name that a published folder has for a tensor of the network.
    fn written(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Fields that the networks do not read.
    fn rest(&self) -> &Map<String, Value>;

    /// The same, to change.
    fn rest_mut(&mut self) -> &mut Map<String, Value>;

    /// Reads the networks' tensors.
    #[doc(hidden)]
    fn build(&self, root: &Scope<'_>) -> Result<Networks, ModelError>;

    /// Path of the image encoder in a checkpoint.
    fn vision_path(&self) -> &'static str;

    /// The configuration of a BLIP-2 model, where it is one.
    fn blip2(&self) -> Option<&Blip2Config> {
        None
    }

    /// Special tokens: `generation_config.json` first, then the language model's configuration, then its class's defaults.
    fn special_tokens(&self, generation: &GenerationConfig) -> SpecialTokens {
        self.text_config().special_tokens(generation)
    }
}

/// The parts that a model is composed of.
pub struct Networks {
    pub(crate) vision: Box<dyn ImageEncoder>,
    pub(crate) connector: Box<dyn Connector>,
    pub(crate) language: Option<Box<dyn LanguageModel>>,
    pub(crate) retrieval: Option<Retrieval>,
}

/// The configuration that a `config.json` holds.
///
/// # Errors
/// A family that is not supported; a field of another type than the family gives it.
pub fn parse(config: Value) -> Result<Box<dyn Architecture>, String> {
    let named = config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == named) else {
        let supported: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let architecture = config.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
        return Err(format!(
            "`model_type` is `{named}` and `architectures` names `{}`; supported are the model types {}",
            architecture.unwrap_or("nothing"),
            supported.join(", ")
        ));
    };
    read(config.clone()).map_err(|error| {
        let error = error.to_string();
        match culprit(*read, &config, &error) {
            // Readers of parts name the part.
            Some(field) if !error.contains(&format!("`{field}`")) => {
                let parts = ["`vision_config`: ", "`text_config`: "];
                let own = parts.into_iter().find_map(|part| error.strip_prefix(part));
                format!("`{field}`: {}", own.unwrap_or(&error))
            }
            _ => error,
        }
    })
}

/// Fields of a configuration that are tried one by one; published ones have some dozens.
const MOST_FIELDS: usize = 200;

/// The field, or part and field, without which a configuration would not have the error that it has: serde names fields only where they are
/// missing. Nothing for configurations of more than [`MOST_FIELDS`] fields: each try reads all of it.
fn culprit(read: Read, config: &Value, error: &str) -> Option<String> {
    let differs = |changed: &Value| read(changed.clone()).err().is_none_or(|other| other.to_string() != error);
    let names = |value: &Value| -> Vec<String> {
        let fields = value.as_object().into_iter().flat_map(Map::keys);
        let names: Vec<String> = fields.filter(|name| *name != "model_type").cloned().collect();
        if names.len() > MOST_FIELDS { Vec::new() } else { names }
    };
    let top = names(config).into_iter().find(|name| {
        let mut changed = config.clone();
        changed.as_object_mut().is_some_and(|fields| fields.shift_remove(name).is_some()) && differs(&changed)
    })?;
    let within = names(&config[&top]).into_iter().find(|name| {
        let mut changed = config.clone();
        changed[&top].as_object_mut().is_some_and(|fields| fields.shift_remove(name).is_some()) && differs(&changed)
    });
    Some(within.map_or_else(|| top.clone(), |field| format!("{top}.{field}")))
}

fn read<T: Architecture + DeserializeOwned + 'static>(config: Value) -> serde_json::Result<Box<dyn Architecture>> {
    Ok(Box::new(serde_json::from_value::<T>(config)?))
}

/// The image token, under either of its names.
fn image_token(rest: &Map<String, Value>) -> Option<i64> {
    ["image_token_index", "image_token_id"].iter().find_map(|field| rest.get(*field)?.as_i64())
}

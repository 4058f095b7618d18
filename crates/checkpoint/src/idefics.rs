//! What the configuration of Idefics3 or SmolVLM says about its image encoder and the positions of a tile.

use serde_json::{Map, Value};

use crate::EncoderKind;

/// Most values of a feature: far more than published models have.
const MOST_VALUES: usize = 1 << 24;
/// Tiles of a photograph: three rows of four, and the whole image.
const OF_PHOTOGRAPH: usize = 13;

/// Whether a configuration is of one of the two.
pub fn is_idefics(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "idefics3" || kind == "smolvlm")
}

/// Sizes of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileSizes {
    /// Height and width in pixels.
    pub side: usize,
    /// Patches along a side.
    pub patches: usize,
    /// Patches along a side that become one feature.
    pub scale: usize,
}

impl TileSizes {
    /// From a configuration.
    ///
    /// # Errors
    /// In words: sizes that are missing, out of range, or do not divide each other.
    pub fn of(config: &Map<String, Value>) -> Result<Self, String> {
        let vision = idefics_vision(config)?;
        let size = |fields: &Map<String, Value>, name: &str| {
            let found = fields.get(name).and_then(Value::as_u64).filter(|size| (1..=1 << 24).contains(size));
            found.map(|size| size as usize).ok_or_else(|| format!("`{name}` must be a number of at least 1"))
        };
        let (side, patch) = (size(&vision, "image_size")?, size(&vision, "patch_size")?);
        let scale = if config.contains_key("scale_factor") { size(config, "scale_factor")? } else { 2 };
        let patches = side / patch;
        if patches == 0 || !patches.is_multiple_of(scale) {
            return Err(format!(
                "`scale_factor` is {scale}, which does not divide the {patches} patches along a side of a tile \
                 (`vision_config.image_size` {side} in patches of `patch_size` {patch})"
            ));
        }
        let values = size(&vision, "hidden_size")?.saturating_mul(scale).saturating_mul(scale);
        if values > MOST_VALUES {
            return Err(format!(
                "a feature of `scale_factor` squared patches has {values} values; at most {MOST_VALUES} are supported"
            ));
        }
        Ok(Self { side, patches, scale })
    }

    /// Patches of a tile.
    pub fn tokens(self) -> usize {
        self.patches * self.patches
    }

    /// Features of a tile.
    pub fn features(self) -> usize {
        self.tokens() / (self.scale * self.scale)
    }

    /// Patches and features of all tiles of a photograph.
    pub fn of_photograph(self) -> [usize; 2] {
        [self.tokens(), self.features()].map(|count| count * OF_PHOTOGRAPH)
    }
}

/// The image encoder's fields with the defaults of its class.
///
/// # Errors
/// In words: an entry that is no object.
pub fn idefics_vision(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    match config.get("vision_config") {
        None | Some(Value::Null) => Ok(EncoderKind::Idefics3.fields(&Map::new())),
        Some(Value::Object(fields)) => Ok(EncoderKind::Idefics3.fields(fields)),
        Some(_) => Err("`vision_config` is not an object".to_owned()),
    }
}

/// The language model's fields: LLaMA's, unless the entry names another; without an entry, those of the class.
///
/// # Errors
/// In words: an entry that is no object.
pub fn idefics_text(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut fields = match config.get("text_config") {
        None | Some(Value::Null) => Map::from_iter([("rms_norm_eps".to_owned(), 1e-5.into())]),
        Some(Value::Object(fields)) => fields.clone(),
        Some(_) => return Err("`text_config` is not an object".to_owned()),
    };
    fields.entry("model_type").or_insert_with(|| "llama".into());
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tile_has_as_many_features_as_the_published_processors_write() {
        let sizes = |config: Value| TileSizes::of(config.as_object().expect("an object"));
        for (image, patch, scale, features) in [(512, 16, 4, 64), (384, 14, 3, 81), (364, 14, 2, 169)] {
            let vision = json!({"image_size": image, "patch_size": patch});
            let found = sizes(json!({"vision_config": vision, "scale_factor": scale})).expect("published sizes");
            assert_eq!(found.features(), features);
        }
        let odd = sizes(json!({"vision_config": {"image_size": 12, "patch_size": 4}})).unwrap_err();
        assert!(odd.contains("`scale_factor` is 2"), "{odd}");
        let large = json!({"image_size": 1 << 12, "patch_size": 1, "hidden_size": 1 << 20});
        for refused in [
            json!({"vision_config": 3}),
            json!({"scale_factor": 0}),
            json!({"vision_config": {"patch_size": -1}}),
            json!({"vision_config": large, "scale_factor": 1 << 11}),
        ] {
            assert!(sizes(refused).is_err());
        }
        assert_eq!(idefics_text(&Map::new()).unwrap()["model_type"], "llama");
    }
}

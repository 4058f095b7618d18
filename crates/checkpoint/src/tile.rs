//! Sizes of a tile, for models that read images as tiles of one size: Idefics3, SmolVLM and InternVL.

use serde_json::{Map, Value};

use crate::{
    EncoderKind, idefics_text, idefics_vision, internvl_scale, internvl_text, internvl_vision, is_idefics, is_internvl,
};

/// Most values of a feature: far more than published models have.
const MOST_VALUES: usize = 1 << 24;
/// Tiles of a photograph: three rows of four, and the whole image.
const OF_PHOTOGRAPH: usize = 13;

/// Whether the model of a configuration reads images as tiles of one size.
pub fn reads_tiles(config: &Map<String, Value>) -> bool {
    is_idefics(config) || is_internvl(config)
}

/// The image encoder of such a model, and its fields with the defaults of its class.
///
/// # Errors
/// In words: an entry that is no object, or an encoder that is not supported.
pub fn tiled_vision(config: &Map<String, Value>) -> Result<(EncoderKind, Map<String, Value>), String> {
    match is_internvl(config) {
        true => Ok((EncoderKind::InternVl, internvl_vision(config)?)),
        false => Ok((EncoderKind::Idefics3, idefics_vision(config)?)),
    }
}

/// The language model's fields of such a model, its `model_type` among them.
///
/// # Errors
/// In words: an entry that is no object.
pub fn tiled_text(config: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    if is_internvl(config) { internvl_text(config) } else { idefics_text(config) }
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
        let (_, vision) = tiled_vision(config)?;
        let size = |fields: &Map<String, Value>, name: &str| {
            let found = fields.get(name).and_then(Value::as_u64).filter(|size| (1..=1 << 24).contains(size));
            found.map(|size| size as usize).ok_or_else(|| format!("`{name}` must be a number of at least 1"))
        };
        let (side, patch) = (size(&vision, "image_size")?, size(&vision, "patch_size")?);
        let (setting, scale) = match is_internvl(config) {
            true => ("downsample_ratio", internvl_scale(config)?),
            false if config.contains_key("scale_factor") => ("scale_factor", size(config, "scale_factor")?),
            false => ("scale_factor", 2),
        };
        let patches = side / patch;
        if patches == 0 || !patches.is_multiple_of(scale) {
            return Err(format!(
                "`{setting}` makes one feature of {scale} patches along a side, which do not divide the {patches} of a tile \
                 (`vision_config.image_size` {side} in patches of `patch_size` {patch})"
            ));
        }
        let values = size(&vision, "hidden_size")?.saturating_mul(scale).saturating_mul(scale);
        if values > MOST_VALUES {
            return Err(format!(
                "a feature of {scale} patches along a side (`{setting}`) has {values} values; at most {MOST_VALUES} are supported"
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
        let internvl = |ratio: f64| sizes(json!({"model_type": "internvl", "downsample_ratio": ratio}));
        assert_eq!(internvl(0.5).expect("the defaults of its class").features(), 256);
        for refused in [0.0, 1.0 / 3.0, -1.0, 2.0] {
            assert!(internvl(refused).unwrap_err().contains("`downsample_ratio`"));
        }
        let odd = sizes(json!({"vision_config": {"image_size": 12, "patch_size": 4}})).unwrap_err();
        assert!(odd.contains("`scale_factor` makes one feature of 2 patches"), "{odd}");
        let large = json!({"image_size": 1 << 12, "patch_size": 1, "hidden_size": 1 << 20});
        for refused in [
            json!({"vision_config": 3}),
            json!({"scale_factor": 0}),
            json!({"vision_config": {"patch_size": -1}}),
            json!({"vision_config": large, "scale_factor": 1 << 11}),
        ] {
            assert!(sizes(refused).is_err());
        }
    }
}

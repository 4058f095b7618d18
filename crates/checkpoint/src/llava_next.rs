//! What the configuration of a LLaVA-NeXT says about the tiles of an image: the resolutions that images are brought to.
//!
//! Reference: `select_best_resolution` in transformers, `image_processing_utils.py`, and `unpad_image`, `modeling_llava_next.py`.

use ressa_experiment::prompt::Mosaic;
use serde_json::{Map, Value};

use crate::llava_vision;

/// Resolutions where a configuration names none, height before width.
const DEFAULT: [[u32; 2]; 5] = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]];
/// Most resolutions.
const MOST_SIZES: usize = 1 << 10;
/// Largest side of a tile in pixels.
const LARGEST_SIDE: u64 = 1 << 12;
/// Most pixels of an image with its whole below.
const MOST_PIXELS: u64 = 1 << 26;
/// Most features of an image.
const MOST_FEATURES: u64 = 1 << 16;
/// Height and width of a photograph, for estimates that are made before there is an image.
const PHOTOGRAPH: [u32; 2] = [480, 640];

/// Whether a configuration is of LLaVA-NeXT's class.
pub fn is_llava_next(config: &Map<String, Value>) -> bool {
    config.get("model_type").is_some_and(|kind| kind == "llava_next")
}

/// The resolutions that images are brought to, each of whole tiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinpoints {
    /// Height and width of a tile in pixels.
    pub pixels: u32,
    /// Features along a side of a tile.
    pub side: u32,
    /// Heights and widths, in the order in which they are tried.
    pub sizes: Vec<[u32; 2]>,
}

impl Pinpoints {
    /// Those of a model's configuration.
    ///
    /// # Errors
    /// In words: an image encoder that is not supported, sizes that are missing, out of range or not of whole tiles.
    pub fn of(config: &Map<String, Value>) -> Result<Self, String> {
        let (_, vision) = llava_vision(config)?;
        let size = |name: &str| {
            let found = vision.get(name).and_then(Value::as_u64).filter(|size| (1..=LARGEST_SIDE).contains(size));
            found.map(|size| size as u32).ok_or_else(|| {
                let written = vision.get(name).unwrap_or(&Value::Null);
                format!("`vision_config.{name}` is {written}; it must be between 1 and {LARGEST_SIDE}")
            })
        };
        let (pixels, patch) = (size("image_size")?, size("patch_size")?);
        if patch > pixels {
            return Err(format!("`vision_config.patch_size` is {patch}, larger than the image of {pixels}"));
        }
        Self::new(pixels, pixels / patch, config.get("image_grid_pinpoints"))
    }

    /// Those that `image_grid_pinpoints` lists, for tiles of so many pixels and features along a side.
    ///
    /// # Errors
    /// In words: what the list must be.
    pub fn new(pixels: u32, side: u32, written: Option<&Value>) -> Result<Self, String> {
        let sizes = match written.filter(|value| !value.is_null()) {
            None => DEFAULT.to_vec(),
            Some(value) => {
                let listed = value.as_array().filter(|list| (1..=MOST_SIZES).contains(&list.len()));
                let listed = listed.ok_or_else(|| {
                    let message = "`image_grid_pinpoints` must be a list of pairs of height and width";
                    format!("{message}, of between 1 and {MOST_SIZES}")
                })?;
                listed.iter().map(pair).collect::<Result<Vec<_>, _>>()?
            }
        };
        let found = Self { pixels, side, sizes };
        found.sizes.iter().try_for_each(|size| found.check(*size))?;
        Ok(found)
    }

    /// Refuses a resolution that is not of whole tiles, or is too large.
    fn check(&self, [height, width]: [u32; 2]) -> Result<(), String> {
        let named = format!("`image_grid_pinpoints` has [{height}, {width}]");
        if !height.is_multiple_of(self.pixels) || !width.is_multiple_of(self.pixels) {
            return Err(format!("{named}; both must be multiples of a tile's {} pixels", self.pixels));
        }
        let tiles = [height, width].map(|length| u64::from(length / self.pixels));
        let (pixels, side) = (u64::from(self.pixels), u64::from(self.side));
        let features = tiles[0].saturating_mul(tiles[1]).saturating_add(1).saturating_mul(side * (side + 1));
        let taken =
            tiles[0].saturating_add(2).saturating_mul(tiles[1].saturating_add(1)).saturating_mul(pixels * pixels);
        if taken > MOST_PIXELS || features > MOST_FEATURES {
            return Err(format!(
                "{named}: an image could take {features} positions, or more than {MOST_PIXELS} pixels; at most {MOST_FEATURES} positions are \
                 supported"
            ));
        }
        // A canvas says in less than a tile what is cut from one side.
        if tiles.iter().any(|count| count * side / 2 >= pixels) {
            let most = (2 * pixels - 1) / side.max(1);
            return Err(format!("{named}; with tiles of {pixels} pixels, at most {most} tiles in a row are supported"));
        }
        Ok(())
    }

    /// The resolution for an image of so many pixels in height and width: that which leaves most of it, and of those the one with least padding.
    ///
    /// # Errors
    /// In words: an image without pixels.
    pub fn best(&self, [height, width]: [u32; 2]) -> Result<[u32; 2], String> {
        if height == 0 || width == 0 {
            return Err("it has no pixels".to_owned());
        }
        let own = u64::from(height) * u64::from(width);
        let (height, width) = (f64::from(height), f64::from(width));
        let mut best: Option<(u64, u64, [u32; 2])> = None;
        for &size in &self.sizes {
            let scale = (f64::from(size[1]) / width).min(f64::from(size[0]) / height);
            let kept = ((width * scale) as u64 * (height * scale) as u64).min(own);
            let wasted = u64::from(size[0]) * u64::from(size[1]) - kept;
            if best.is_none_or(|(most, least, _)| kept > most || (kept == most && wasted < least)) {
                best = Some((kept, wasted, size));
            }
        }
        best.map(|(_, _, size)| size).ok_or_else(|| "there are no resolutions".to_owned())
    }

    /// The tiles of an image of so many pixels in height and width, and what of their features is read.
    ///
    /// # Errors
    /// In words: an image without pixels.
    pub fn mosaic(&self, own: [u32; 2]) -> Result<Mosaic, String> {
        let tiles = self.best(own)?.map(|length| length / self.pixels);
        let whole = tiles.map(|count| count * self.side);
        let [height, width] = own.map(f64::from);
        let [lines, columns] = whole.map(f64::from);
        let cut = if width / height > columns / lines {
            [(whole[0] - rounded(height * (columns / width)).min(whole[0])) / 2, 0]
        } else {
            [0, (whole[1] - rounded(width * (lines / height)).min(whole[1])) / 2]
        };
        Ok(Mosaic { tiles, side: self.side, cut })
    }

    /// The tiles of a photograph.
    pub fn of_photograph(&self) -> Mosaic {
        // It has pixels, and there is a resolution.
        self.mosaic(PHOTOGRAPH).unwrap_or(Mosaic { tiles: [1, 1], side: self.side, cut: [0, 0] })
    }
}

/// A height and a width.
fn pair(value: &Value) -> Result<[u32; 2], String> {
    let sides =
        value.as_array().into_iter().flatten().map(|side| side.as_u64().and_then(|side| u32::try_from(side).ok()));
    let sides = sides.collect::<Option<Vec<u32>>>().and_then(|sides| <[u32; 2]>::try_from(sides).ok());
    let wrong = || format!("`image_grid_pinpoints` has {value}; it must be a height and a width of at least 1");
    sides.filter(|sides| sides.iter().all(|side| *side > 0)).ok_or_else(wrong)
}

/// Cut to a whole number after rounding to seven places, as Python's `int(round(length, 7))`.
fn rounded(length: f64) -> u32 {
    format!("{length:.7}").parse::<f64>().unwrap_or(length) as u32
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn published() -> Pinpoints {
        Pinpoints::of(&Map::new()).expect("the defaults of the class")
    }

    /// Resolutions and numbers of tokens as transformers 4.57.6 has them, (height, width) of the image first.
    #[test]
    fn images_have_the_tiles_and_tokens_of_the_reference() {
        for (own, best, tokens) in [
            ([480, 640], [672, 672], 2340),
            ([640, 480], [672, 672], 2352),
            ([1000, 1000], [672, 672], 2928),
            ([300, 1000], [336, 1008], 2182),
            ([1, 30_000], [336, 672], 576),
            ([30_000, 1], [336, 672], 600),
            ([1, 1], [336, 672], 1176),
            ([97, 213], [336, 672], 1654),
        ] {
            let found = published().mosaic(own).expect("it has pixels");
            assert_eq!((published().best(own), found.features()), (Ok(best), tokens), "{own:?}");
            assert_eq!(Mosaic::on(found.canvas(336), 336, 24), found, "{own:?}");
        }
        assert!(published().mosaic([0, 5]).unwrap_err().contains("no pixels"));
        assert_eq!(published().of_photograph().features(), 2340);
    }

    #[test]
    fn lists_that_are_none_are_named() {
        let refused = |written: Value, part: &str| {
            let error = Pinpoints::new(336, 24, Some(&written)).expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        refused(json!([]), "between 1 and 1024");
        refused(json!("(1x1),...,(6x6)"), "list of pairs");
        refused(json!([[336]]), "[336]");
        refused(json!([[336, -336]]), "-336");
        refused(json!([[0, 336]]), "[0,336]");
        refused(json!([[336, 500]]), "multiples of a tile's 336");
        refused(json!([[336, 336 * 4096]]), "positions");
        refused(json!([[336 * 12_000_000u64, 336 * 12_000_000u64]]), "positions");
        assert!(
            Pinpoints::new(4, 4, Some(&json!([[4, 32]]))).unwrap_err().contains("at most 1 tiles"),
            "a pixel per patch"
        );
        let config = json!({"vision_config": {"image_size": 16, "patch_size": 17}});
        assert!(Pinpoints::of(config.as_object().unwrap()).unwrap_err().contains("larger than the image"));
        let none = json!({"vision_config": {"image_size": 0}});
        assert!(Pinpoints::of(none.as_object().unwrap()).unwrap_err().contains("`vision_config.image_size` is 0"));
    }
}

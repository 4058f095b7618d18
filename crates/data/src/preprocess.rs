//! The image processor of a checkpoint folder: images of any size to the pixels that its vision tower reads.
//!
//! Reference: `BlipImageProcessor`, `CLIPImageProcessor`, `BitImageProcessor`, `SiglipImageProcessor`, `Qwen2VLImageProcessor`, `Idefics3ImageProcessor`,
//! `LlavaNextImageProcessor` and `GotOcr2ImageProcessor` of `transformers` (the ones without `Fast`, whose results these are to the bit): resize, centre crop, rescale, normalise, in that order.

use std::path::{Path, PathBuf};

use ressa_checkpoint::{ImageSettings, PREPROCESSOR, PROCESSOR, Pinpoints, image_processor, is_llava_next, json};
use serde_json::{Map, Value};

use crate::{
    Cells, DataError, Image,
    cells::sized,
    image::Values,
    mosaic::Resolutions,
    resize::{Filter, Window, resize},
    tiles::{Splits, Tiles, Tiling},
};

/// Most pixels that a model may be said to read: larger ones are mistakes in a file.
const TARGET_LIMIT: u64 = 1 << 24;
/// Mean and standard deviation where a folder gives none: those of OpenAI's CLIP, and those of later encoders.
const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
const HALF: [f64; 3] = [0.5; 3];

/// What is done to an image before a model sees it.
#[derive(Clone, Debug)]
pub struct ImageProcessor {
    resize: Option<(Target, Filter)>,
    /// Height and width.
    crop: Option<(usize, usize)>,
    /// Height and width of what comes out; nothing where they depend on the image.
    output: (usize, usize),
    /// How an image is cut, where its size is its own.
    cells: Option<Cells>,
    /// How an image becomes tiles, where it does.
    tiling: Option<Tiling>,
    /// The resolutions that an image is brought to as tiles, where there are some.
    resolutions: Option<Resolutions>,
    /// Model-ready value of each grey level, per channel, rounded as `transformers` does.
    table: [[f32; 256]; 3],
    /// The same, rounded once; what the shipped models of the embedded world have seen.
    table_of_drawn: [[f32; 256]; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Height and width.
    Exact(usize, usize),
    /// The shorter side; the other follows.
    ShortestEdge(usize),
    /// Multiples of a feature's side, near the image's own size, with at least and at most so many pixels.
    Near { feature: u32, pixels: [u64; 2] },
}

/// Which class of `transformers` a folder asks for; they differ in defaults and in what an integer size means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Blip,
    Clip,
    Siglip,
    Qwen,
    Idefics,
    LlavaNext,
    InternVl,
}

impl Class {
    /// Whether a size may be that of the shorter side.
    fn has_edges(self) -> bool {
        matches!(self, Class::Clip | Class::LlavaNext)
    }

    /// Mean and standard deviation of each channel.
    fn statistics(self) -> [[f64; 3]; 2] {
        match self {
            Class::Blip | Class::Clip | Class::Qwen | Class::LlavaNext | Class::InternVl => [CLIP_MEAN, CLIP_STD],
            Class::Siglip | Class::Idefics => [HALF, HALF],
        }
    }
}

/// Classes that are known, without the end of their names.
const KNOWN: [&str; 9] = ["Blip", "CLIP", "Bit", "Siglip", "Qwen2VL", "Idefics3", "SmolVLM", "LlavaNext", "GotOcr2"];
/// Pixels along a side of a patch where a folder has no model that says so: those of the published one.
const PATCH: u32 = 14;
/// Fewest and most pixels of an image where a folder of Qwen-VL says none.
const QWEN_PIXELS: [u64; 2] = [56 * 56, 28 * 28 * 1280];
/// Most features of an image.
pub(crate) const MOST_FEATURES: u64 = 1 << 16;

impl ImageProcessor {
    /// Reads `preprocessor_config.json`, or where there is none the `image_processor` part of `processor_config.json`.
    ///
    /// # Errors
    /// Names the file and the field that is missing, of another kind or out of range; a folder that has both and they say different things:
    /// transformers 4 reads the first, transformers 5 the second.
    pub fn load(folder: &Path) -> Result<Self, DataError> {
        let ImageSettings { path, fields, nested } = image_processor(folder).map_err(DataError::of_settings)?;
        let patches = |pixels: u32| features_of_a_side(folder, pixels);
        let processor = Self::new(&Fields { path: &path, map: &fields }, &patches)?;
        if let Some(nested) = nested {
            let shared = folder.join(PROCESSOR);
            let other = Self::new(&Fields { path: &shared, map: &nested }, &patches)?;
            if !other.makes_the_same(&processor) {
                let reason = format!(
                    "its `image_processor` and `{PREPROCESSOR}` beside it make different pixels, and versions of transformers read one \
                     or the other; remove the one that is wrong"
                );
                return Err(DataError::Processor { path: shared, reason });
            }
        }
        Ok(processor)
    }

    /// Whether two make the same pixels of every image.
    pub(crate) fn makes_the_same(&self, other: &Self) -> bool {
        self.identity() == other.identity() && self.table == other.table
    }

    /// `patches` says how many features along a side a tile of so many pixels has.
    fn new(fields: &Fields<'_>, patches: &dyn Fn(u32) -> Result<u32, DataError>) -> Result<Self, DataError> {
        let class = fields.class()?;
        let default = match class {
            Class::Blip | Class::Qwen | Class::InternVl => Target::Exact(384, 384),
            Class::Siglip | Class::Idefics => Target::Exact(224, 224),
            Class::Clip | Class::LlavaNext => Target::ShortestEdge(224),
        };
        let cells = (class == Class::Qwen).then(|| fields.cells()).transpose()?;
        let tiling = match class {
            Class::Idefics => Some(fields.tiling()?),
            Class::InternVl => Some(fields.grids(default)?),
            _ => None,
        };
        let target = match (fields.get("size"), cells) {
            (_, Some(cells)) => Target::Near { feature: cells.feature(), pixels: fields.pixels(cells)? },
            (Some(value), None) if tiling.is_none() => fields.target(value, class)?,
            (_, None) => default,
        };
        let resize =
            fields.flag("do_resize", true)?.then(|| fields.filter()).transpose()?.map(|filter| (target, filter));
        let resolutions = match class {
            Class::LlavaNext => Some(fields.resolutions(target, patches)?),
            _ => None,
        };
        let crop = (class == Class::Clip && fields.flag("do_center_crop", true)?).then(|| fields.crop()).transpose()?;
        let output = crop.unwrap_or(match target {
            _ if tiling.is_some() || resolutions.is_some() => (0, 0),
            Target::Exact(height, width) => (height, width),
            Target::ShortestEdge(edge) => (edge, edge),
            Target::Near { .. } => (0, 0),
        });

        let scale = match fields.flag("do_rescale", true)? {
            true => fields.number("rescale_factor")?.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let [mean, std] = class.statistics();
        let statistics = match fields.flag("do_normalize", true)? {
            true => Some((fields.channels("image_mean", mean)?, fields.channels("image_std", std)?)),
            false => None,
        };
        if statistics.is_some_and(|(_, stds)| stds.iter().any(|std| !std.is_normal() || *std < 0.0)) {
            return Err(fields.wrong("`image_std` must be positive".into()));
        }
        let (means, stds) = statistics.unwrap_or(([0.0; 3], [1.0; 3]));
        let grey = |level: usize| level as f64 * scale;
        Ok(Self {
            resize,
            crop,
            output,
            cells,
            tiling,
            resolutions,
            table: std::array::from_fn(|channel| {
                let (mean, std) = (means[channel] as f32, stds[channel] as f32);
                std::array::from_fn(|level| (grey(level) as f32 - mean) / std)
            }),
            table_of_drawn: std::array::from_fn(|channel| {
                let (mean, std) = (means[channel], stds[channel]);
                std::array::from_fn(|level| ((grey(level) - mean) / std) as f32)
            }),
        })
    }

    /// The same, but an image keeps its shape: the shorter side becomes that of the model, and the middle of the longer one is kept.
    #[must_use]
    pub fn center_cropped(mut self) -> Self {
        let has_one_size = self.has_one_size();
        if let (Some((target, _)), true) = (&mut self.resize, has_one_size) {
            *target = Target::ShortestEdge(self.output.0.min(self.output.1));
            self.crop = Some(self.output);
        }
        self
    }

    /// Height and width of what [`ImageProcessor::pixels`] gives; nothing of both where they depend on the image.
    pub fn image_size(&self) -> (u32, u32) {
        (self.output.0 as u32, self.output.1 as u32)
    }

    /// How an image is cut, where its size depends on the image.
    pub fn cells(&self) -> Option<Cells> {
        self.cells
    }

    /// How a canvas is cut into tiles, where images are read as those.
    pub fn tiles(&self) -> Option<Tiles> {
        self.tiling.map(|tiling| tiling.tiles)
    }

    /// Whether the shape of an image, not its size, says how many tiles it becomes.
    pub(crate) fn splits_by_shape(&self) -> bool {
        self.tiling.is_some_and(|tiling| matches!(tiling.splits, Splits::ByShape { .. }))
    }

    /// Tiles that an image becomes at most, the whole image among them; 1 where images are read whole, `None` where they are split at their own size.
    pub(crate) fn most_tiles(&self) -> Option<u64> {
        self.tiling.map_or(Some(1), |tiling| tiling.most())
    }

    /// The resolutions that an image is brought to as tiles, where images are read as those and padding is left out.
    pub fn pinpoints(&self) -> Option<&Pinpoints> {
        self.resolutions.as_ref().map(|resolutions| &resolutions.pinpoints)
    }

    /// Whether all images are read at one size.
    pub fn has_one_size(&self) -> bool {
        self.cells.is_none() && self.tiling.is_none() && self.resolutions.is_none()
    }

    /// Height and width of what [`ImageProcessor::pixels`] gives for an image of `width` and `height`.
    ///
    /// # Errors
    /// [`DataError::Shape`] where the model reads images at their own size and not of this shape.
    pub fn size_of(&self, width: u32, height: u32) -> Result<(u32, u32), DataError> {
        let refused = |reason: String| DataError::Shape { width, height, reason };
        if let Some(tiling) = self.tiling {
            return tiling.canvas(width, height).map_err(refused);
        }
        if let Some(resolutions) = &self.resolutions {
            return resolutions.canvas(width, height).map_err(refused);
        }
        let Some(cells) = self.cells else { return Ok(self.image_size()) };
        match self.resize {
            Some((Target::Near { feature, pixels }, _)) => sized(width, height, feature, pixels).map_err(refused),
            _ if width > 0 && height > 0 && [width, height].iter().all(|side| side.is_multiple_of(cells.feature())) => {
                match features(u64::from(width) * u64::from(height), cells) {
                    0..=MOST_FEATURES => Ok((height, width)),
                    taken => Err(refused(format!(
                        "with `do_resize` off it takes {taken} positions; at most {MOST_FEATURES} are supported"
                    ))),
                }
            }
            _ => Err(refused(format!(
                "with `do_resize` off, both sides must be multiples of {} (`patch_size` times `merge_size`)",
                cells.feature()
            ))),
        }
    }

    /// Values of one image of the size that all have: `3 * height * width`.
    pub(crate) fn values(&self) -> usize {
        3 * self.output.0 * self.output.1
    }

    /// What levels follow from beside the image: size, filter, crop.
    pub fn identity(&self) -> Vec<u8> {
        match (self.tiling, &self.resolutions) {
            (Some(tiling), _) => format!("{tiling:?}").into_bytes(),
            (None, Some(resolutions)) => format!("{resolutions:?}").into_bytes(),
            (None, None) => format!("{:?}", (self.resize, self.crop, self.output)).into_bytes(),
        }
    }

    /// Model-ready value of each level of each channel of an image that was decoded.
    pub fn table(&self) -> &[[f32; 256]; 3] {
        &self.table
    }

    /// The image as levels `[3, height, width]` at the size that the model reads. For images that were decoded, `table()` makes of
    /// them what [`ImageProcessor::pixels`] gives.
    ///
    /// # Errors
    /// [`DataError::ImageSize`] where the settings do not bring the image to the size of the others.
    pub fn levels(&self, image: &Image) -> Result<Vec<u8>, DataError> {
        let rgb = self.sized(image)?;
        let mut levels = vec![0; rgb.len()];
        let (red, rest) = levels.split_at_mut(rgb.len() / 3);
        let (green, blue) = rest.split_at_mut(rgb.len() / 3);
        for (((pixel, red), green), blue) in rgb.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
            [*red, *green, *blue] = *pixel;
        }
        Ok(levels)
    }

    /// Appends the pixels `[3, height, width]` of one image.
    ///
    /// # Errors
    /// [`DataError::ImageSize`] where the settings do not bring the image to the size of the others.
    pub fn pixels(&self, image: &Image, pixels: &mut Vec<f32>) -> Result<(), DataError> {
        let (height, width) = self.sides(image)?;
        let from = (image.width() as usize, image.height() as usize);
        if let Values::Drawn(planes) = image.values()
            && from == (width, height)
        {
            for (table, plane) in self.table_of_drawn.iter().zip(planes.chunks_exact(width * height)) {
                pixels.extend(plane.iter().map(|value| table[usize::from(*value)]));
            }
            return Ok(());
        }
        let rgb = self.sized(image)?;
        for (channel, table) in self.table.iter().enumerate() {
            pixels.extend(rgb.chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
        }
        Ok(())
    }

    /// Height and width of what comes out for an image.
    fn sides(&self, image: &Image) -> Result<(usize, usize), DataError> {
        let (height, width) = self.size_of(image.width(), image.height())?;
        Ok((height as usize, width as usize))
    }

    /// The image resized and cropped, interleaved.
    fn sized(&self, image: &Image) -> Result<Vec<u8>, DataError> {
        let refused = |reason| DataError::Shape { width: image.width(), height: image.height(), reason };
        if let Some(tiling) = &self.tiling {
            return tiling.draw(image).map_err(refused);
        }
        if let Some(resolutions) = &self.resolutions {
            return resolutions.draw(image).map_err(refused);
        }
        let from = (image.width() as usize, image.height() as usize);
        let (height, width) = self.sides(image)?;
        let to = match self.resize {
            Some((Target::Near { .. }, _)) => (width, height),
            None => from,
            Some((Target::Exact(height, width), _)) => (width, height),
            Some((Target::ShortestEdge(edge), _)) => scaled(from, edge),
        };
        if from.0 == 0 || from.1 == 0 {
            return Err(refused("it has no pixels".to_owned()));
        }
        match self.crop {
            Some(_) if to.0.max(to.1) > TARGET_LIMIT as usize => {
                return Err(refused(format!(
                    "resized to a shorter side of {} it would be {} long, and at most {TARGET_LIMIT} is supported; crop it or cut it up",
                    to.0.min(to.1),
                    to.0.max(to.1)
                )));
            }
            None if to != (width, height) => {
                return Err(DataError::ImageSize {
                    found_width: u32::try_from(to.0).unwrap_or(u32::MAX),
                    found_height: u32::try_from(to.1).unwrap_or(u32::MAX),
                    width: width as u32,
                    height: height as u32,
                });
            }
            _ => {}
        }
        let filter = self.resize.map_or(Filter::Nearest, |(_, filter)| filter);
        let (columns, rows) = (Cut::new(to.0, width), Cut::new(to.1, height));
        let window = Window { x: columns.kept(), y: rows.kept() };
        let rgb = resize(&image.rgb(), from, to, filter, &window);
        if window.x.len() == width && window.y.len() == height {
            return Ok(rgb);
        }
        // A crop larger than the image is filled up with zeros, as grey levels.
        let mut padded = vec![0; 3 * width * height];
        for (row, values) in rgb.chunks_exact(3 * window.x.len()).enumerate() {
            let at = 3 * ((rows.before + row) * width + columns.before);
            padded[at..at + values.len()].copy_from_slice(values);
        }
        Ok(padded)
    }
}

/// Features along a side of a tile of so many pixels, as the model of a folder has them.
fn features_of_a_side(folder: &Path, pixels: u32) -> Result<u32, DataError> {
    let path = folder.join("config.json");
    let config = json::optional(&path).map_err(DataError::of_settings)?.unwrap_or_default();
    if !is_llava_next(&config) {
        return Ok((pixels / PATCH).max(1));
    }
    let of_model = Pinpoints::of(&config).map_err(|reason| DataError::Processor { path, reason })?;
    Ok(of_model.side)
}

/// Features that so many pixels make.
fn features(pixels: u64, cells: Cells) -> u64 {
    let side = u64::from(cells.feature());
    pixels / (side * side)
}

/// One axis of a centre crop.
struct Cut {
    first: usize,
    count: usize,
    /// Zeros before the first pixel.
    before: usize,
}

impl Cut {
    /// Odd differences: a cut leaves the smaller half before, padding puts the larger half before.
    fn new(size: usize, wanted: usize) -> Self {
        if size >= wanted {
            Self { first: (size - wanted) / 2, count: wanted, before: 0 }
        } else {
            Self { first: 0, count: size, before: (wanted - size).div_ceil(2) }
        }
    }

    fn kept(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.count
    }
}

/// Width and height with the shorter side `edge`; the longer one is cut to a whole number.
fn scaled((width, height): (usize, usize), edge: usize) -> (usize, usize) {
    let long = |long: usize, short: usize| ((edge * long) as f64 / short as f64) as usize;
    if width <= height { (edge, long(height, width)) } else { (long(width, height), edge) }
}

/// The settings, and the file they stand in for errors.
struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, reason: String) -> DataError {
        DataError::Processor { path: PathBuf::from(self.path), reason }
    }

    /// `null` counts as absent, as in `transformers`.
    fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn class(&self) -> Result<Class, DataError> {
        let Some(name) = self.get("image_processor_type").or_else(|| self.get("feature_extractor_type")) else {
            return Ok(Class::Blip);
        };
        let text = name.as_str().unwrap_or_default();
        // Versions of transformers say with the end of the name which library computes: torchvision (`Fast`) or Pillow (`Pil`).
        let ends = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];
        let stem = ends.iter().find_map(|end| text.strip_suffix(end));
        match stem {
            Some("Blip" | "Blip2" | "InstructBlip") => Ok(Class::Blip),
            Some("CLIP" | "Bit") => Ok(Class::Clip),
            Some("Siglip") => Ok(Class::Siglip),
            Some("Qwen2VL") => Ok(Class::Qwen),
            Some("Idefics3" | "SmolVLM") => Ok(Class::Idefics),
            Some("LlavaNext") => Ok(Class::LlavaNext),
            Some("GotOcr2") => Ok(Class::InternVl),
            _ => Err(self.wrong(format!(
                "image processor {name} is not known; {} are",
                KNOWN.map(|known| format!("`{known}ImageProcessor`")).join(", ")
            ))),
        }
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, DataError> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(format!("`{name}` is {other}; it must be true or false"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, DataError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(format!("`{name}` is {value}; it must be a number"))),
            },
        }
    }

    /// A whole number from 1 to `most`.
    fn count(&self, name: &str, default: u32, most: u32) -> Result<u32, DataError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let count =
            value.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=most).contains(count));
        count.ok_or_else(|| self.wrong(format!("`{name}` is {value}; it must be between 1 and {most}")))
    }

    /// How images are cut that are read at their own size.
    fn cells(&self) -> Result<Cells, DataError> {
        /// Pixels along a side of a patch, patches along a side of a feature, frames of a patch: far more than published settings have.
        const MOST: [u32; 3] = [1 << 10, 1 << 6, 1 << 4];
        Ok(Cells {
            patch: self.count("patch_size", 14, MOST[0])?,
            merge: self.count("merge_size", 2, MOST[1])?,
            frames: self.count("temporal_patch_size", 2, MOST[2])?,
        })
    }

    /// How images become tiles.
    fn tiling(&self) -> Result<Tiling, DataError> {
        /// Longest edges: far more than published settings have.
        const MOST: u32 = 1 << 12;
        let edge = |name: &str, default: u32| match self.get(name) {
            None => Ok(default),
            Some(value) => {
                let edge = value.get("longest_edge").and_then(Value::as_u64).and_then(|edge| u32::try_from(edge).ok());
                edge.filter(|edge| (1..=MOST).contains(edge)).ok_or_else(|| {
                    self.wrong(format!("`{name}` is {value}; it must be `longest_edge`, between 1 and {MOST}"))
                })
            }
        };
        let longest = edge("size", 4 * 364)?;
        Ok(Tiling {
            tiles: Tiles { side: edge("max_image_size", 364)? },
            longest: self.flag("do_resize", true)?.then_some(longest),
            splits: if self.flag("do_image_splitting", true)? { Splits::BySize } else { Splits::Never },
            filter: if self.get("resample").is_some() { self.filter()? } else { Filter::Lanczos },
        })
    }

    /// How images become grids of tiles. InternVL's processor always asks for them, whatever `crop_to_patches` says, by bicubic resizing.
    fn grids(&self, default: Target) -> Result<Tiling, DataError> {
        /// Most tiles: far more than published settings have.
        const MOST: u32 = 1 << 8;
        let target = self.get("size").map_or(Ok(default), |size| self.target(size, Class::InternVl))?;
        let side = match target {
            Target::Exact(height, width) if height == width => u32::try_from(height).ok(),
            _ => None,
        };
        let side = side.ok_or_else(|| self.wrong("`size` must be a square, which is that of a tile".to_owned()))?;
        let [least, most] = [self.count("min_patches", 1, MOST)?, self.count("max_patches", 12, MOST)?];
        if least > most {
            return Err(self.wrong(format!("`min_patches` is {least}, more than `max_patches` = {most}")));
        }
        let (splits, filter) = match most {
            1 if !self.flag("do_resize", true)? => {
                return Err(self.wrong("`do_resize` is false, and every image must become one tile".to_owned()));
            }
            1 => (Splits::ByShape { least, most }, self.filter()?),
            _ => (Splits::ByShape { least, most }, Filter::Bicubic),
        };
        Ok(Tiling { tiles: Tiles { side }, longest: None, splits, filter })
    }

    /// The resolutions that images are brought to. A tile is what is cropped and what the shorter side is brought to: with both of one size, neither
    /// changes it.
    fn resolutions(
        &self,
        target: Target,
        patches: &dyn Fn(u32) -> Result<u32, DataError>,
    ) -> Result<Resolutions, DataError> {
        let crop = self.crop()?;
        let edge = match target {
            Target::ShortestEdge(edge) => (edge, edge),
            Target::Exact(height, width) => (height, width),
            Target::Near { .. } => (0, 0),
        };
        if crop != edge || crop.0 != crop.1 {
            return Err(self.wrong(format!(
                "`size` brings the whole image to {}x{} pixels and `crop_size` makes tiles of {}x{}; both must be one square",
                edge.1, edge.0, crop.1, crop.0
            )));
        }
        let pixels = u32::try_from(crop.0).unwrap_or(u32::MAX);
        let pinpoints = Pinpoints::new(pixels, patches(pixels)?, self.get("image_grid_pinpoints"));
        Ok(Resolutions { pinpoints: pinpoints.map_err(|reason| self.wrong(reason))?, filter: self.filter()? })
    }

    /// Fewest and most pixels: under names of their own, which count, or as the edges of `size`.
    fn pixels(&self, cells: Cells) -> Result<[u64; 2], DataError> {
        let size = self.get("size").and_then(Value::as_object);
        if let Some(value) = self.get("size").filter(|_| {
            size.is_none_or(|size| !size.contains_key("shortest_edge") || !size.contains_key("longest_edge"))
        }) {
            return Err(self.wrong(format!(
                "`size` is {value}; it must have `shortest_edge` and `longest_edge`, the fewest and most pixels of an image"
            )));
        }
        let of = |name: &str, edge: &str, default: u64| {
            let written = self.get(name).or_else(|| size?.get(edge).filter(|value| !value.is_null()));
            let count = written.map_or(Some(default), Value::as_u64).filter(|count| (1..=TARGET_LIMIT).contains(count));
            let shown = written.map(Value::to_string).unwrap_or_default();
            count.ok_or_else(|| {
                let name = if self.get(name).is_some() { name.to_owned() } else { format!("size.{edge}") };
                self.wrong(format!("`{name}` is {shown}; it must be a number of pixels up to {TARGET_LIMIT}"))
            })
        };
        let least = of("min_pixels", "shortest_edge", QWEN_PIXELS[0])?;
        let most = of("max_pixels", "longest_edge", QWEN_PIXELS[1])?;
        if least > most {
            return Err(self.wrong(format!("`min_pixels` is {least}, more than `max_pixels` = {most}")));
        }
        let taken = features(most, cells);
        if taken > MOST_FEATURES {
            return Err(self.wrong(format!(
                "`max_pixels` is {most}: an image could take {taken} positions; at most {MOST_FEATURES} are supported"
            )));
        }
        Ok([least, most])
    }

    /// One number per channel, or one for all.
    fn channels(&self, name: &str, default: [f64; 3]) -> Result<[f64; 3], DataError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let numbers = match value {
            Value::Array(list) => list.iter().map(Value::as_f64).collect::<Option<Vec<_>>>(),
            other => other.as_f64().map(|number| vec![number; 3]),
        };
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or_else(|| self.wrong(format!("`{name}` is {value}; it must be three numbers")))
    }

    fn filter(&self) -> Result<Filter, DataError> {
        let Some(value) = self.get("resample") else { return Ok(Filter::Bicubic) };
        value.as_u64().and_then(Filter::from_number).ok_or_else(|| {
            self.wrong(format!(
                "`resample` is {value}; it must be a filter's number in Pillow, from 0 to 5 (3 is bicubic)"
            ))
        })
    }

    fn target(&self, value: &Value, class: Class) -> Result<Target, DataError> {
        let target = match value {
            Value::Object(map) => match (map.get("height"), map.get("width"), map.get("shortest_edge")) {
                (_, _, Some(edge)) if class.has_edges() => side(edge).map(Target::ShortestEdge),
                (Some(height), Some(width), _) => both(height, width),
                _ => None,
            },
            Value::Array(list) => match list.as_slice() {
                [height, width] => both(height, width),
                _ => None,
            },
            edge if class.has_edges() => side(edge).map(Target::ShortestEdge),
            edge => both(edge, edge),
        };
        let sensible = target.filter(|target| match *target {
            Target::Exact(height, width) => within_limit(height, width),
            Target::ShortestEdge(edge) => within_limit(edge, edge),
            Target::Near { .. } => true,
        });
        let forms = match class {
            Class::Blip | Class::Siglip | Class::Qwen | Class::Idefics | Class::InternVl => {
                "`height` and `width`, or one number for both"
            }
            Class::Clip | Class::LlavaNext => "`shortest_edge`, or `height` and `width`",
        };
        sensible.ok_or_else(|| {
            self.wrong(format!("`size` is {value}; it must be {forms}, of at most {TARGET_LIMIT} pixels in all"))
        })
    }

    fn crop(&self) -> Result<(usize, usize), DataError> {
        let Some(value) = self.get("crop_size") else { return Ok((224, 224)) };
        match self.target(value, Class::Blip) {
            Ok(Target::Exact(height, width)) => Ok((height, width)),
            _ => Err(self.wrong(format!(
                "`crop_size` is {value}; it must be `height` and `width`, or one number for both, of at most {TARGET_LIMIT} pixels in all"
            ))),
        }
    }
}

fn side(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|side| usize::try_from(side).ok()).filter(|side| *side > 0)
}

fn both(height: &Value, width: &Value) -> Option<Target> {
    Some(Target::Exact(side(height)?, side(width)?))
}

fn within_limit(height: usize, width: usize) -> bool {
    (height as u64).saturating_mul(width as u64) <= TARGET_LIMIT
}

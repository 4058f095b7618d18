//! Images: 8-bit RGB, drawn by the embedded world or decoded from a file.

use std::{borrow::Cow, path::Path};

use crate::{DataError, decode};

/// An RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    values: Values,
}

/// Where the values come from decides their order and how the processor rounds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Planar `[3, height, width]`, as the embedded world draws.
    Drawn(Vec<u8>),
    /// Interleaved `[height, width, 3]`, as decoders write.
    Decoded(Vec<u8>),
}

impl Image {
    /// Wraps planes `[3, height, width]`. `None` unless there are `3 * height * width` values.
    ///
    /// Such images count as drawn for the model: at its size they are normalised in one rounding, as the shipped models have seen them.
    pub fn from_planes(width: u32, height: u32, planes: Vec<u8>) -> Option<Self> {
        (planes.len() == volume(width, height)?).then_some(Self { width, height, values: Values::Drawn(planes) })
    }

    /// Wraps pixels `[height, width, 3]`. `None` unless there are `3 * height * width` values.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Option<Self> {
        (rgb.len() == volume(width, height)?).then_some(Self { width, height, values: Values::Decoded(rgb) })
    }

    /// Decodes a PNG, JPEG, GIF, WebP, BMP or TIFF file to what Pillow makes of it with `exif_transpose` and `convert("RGB")`:
    /// the first frame, alpha dropped, palettes resolved, 16-bit grey cut off at 255, 16-bit colour divided by 256.
    ///
    /// # Errors
    /// [`DataError::Read`] for a file that cannot be read; [`DataError::Image`] for one that holds no such image, is damaged or
    /// truncated, or has more than [`PIXEL_LIMIT`] pixels (refused before memory is taken for them).
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Self::from_bytes(&decode::read(path)?, path)
    }

    /// Decodes what [`Image::open`] would find in a file; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`DataError::Image`].
    pub fn from_bytes(bytes: &[u8], name: &Path) -> Result<Self, DataError> {
        let raster = decode::decode(bytes).map_err(|reason| DataError::Image { path: name.to_path_buf(), reason })?;
        Self::from_rgb(raster.width, raster.height, raster.rgb)
            .ok_or_else(|| DataError::Image { path: name.to_path_buf(), reason: "pixels are missing".into() })
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The values `[3, height, width]`.
    pub fn planes(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Drawn(planes) => Cow::Borrowed(planes),
            Values::Decoded(rgb) => (0..3).flat_map(|channel| rgb.iter().skip(channel).step_by(3)).copied().collect(),
        }
    }

    /// The values `[height, width, 3]`.
    pub fn rgb(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Decoded(rgb) => Cow::Borrowed(rgb),
            Values::Drawn(planes) => {
                let plane = planes.len() / 3;
                (0..plane).flat_map(|at| [planes[at], planes[plane + at], planes[2 * plane + at]]).collect()
            }
        }
    }

    /// The colour of one pixel. `x` and `y` must lie inside the image.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let plane = self.width as usize * self.height as usize;
        let at = y as usize * self.width as usize + x as usize;
        match &self.values {
            Values::Drawn(planes) => [planes[at], planes[plane + at], planes[2 * plane + at]],
            Values::Decoded(rgb) => [rgb[3 * at], rgb[3 * at + 1], rgb[3 * at + 2]],
        }
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }
}

/// Most pixels a file may claim to have: where Pillow, too, stops reading it as an image and calls it a decompression bomb.
pub const PIXEL_LIMIT: u64 = 178_956_970;

fn volume(width: u32, height: u32) -> Option<usize> {
    (width as usize).checked_mul(height as usize)?.checked_mul(3)
}

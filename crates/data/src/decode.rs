//! Image files to 8-bit RGB, as Pillow converts them.
//!
//! Reference: `ImageOps.exif_transpose(Image.open(file)).convert("RGB")` of Pillow, which is how `transformers` loads an image.
//! Formats whose values or conversions differ from the `image` crate's have files of their own.

mod gif;
mod jpeg;
mod orientation;
mod tiff;

use std::{
    io::{Cursor, Read},
    path::Path,
};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::{DataError, image::PIXEL_LIMIT};

/// Largest image file that is read, in bytes: more than any image within [`PIXEL_LIMIT`] needs.
const FILE_LIMIT: u64 = 1 << 30;

/// Where the header of a PNG file says how many bits a sample has and whether there are colours (0 is grey).
const PNG_DEPTH_AND_COLOR: std::ops::Range<usize> = 24..26;

/// A decoded image, interleaved.
#[derive(Debug)]
pub(crate) struct Raster {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) rgb: Vec<u8>,
}

/// The bytes of an image file, unless it is too large to be one.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let failed = |source| DataError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    // A pipe would not even open before somebody writes into it.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(DataError::Image { path: path.to_path_buf(), reason: "it is not a regular file".to_owned() });
    }
    std::fs::File::open(path).map_err(failed)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        let reason = format!("it has more than {FILE_LIMIT} bytes, the most that is read");
        return Err(DataError::Image { path: path.to_path_buf(), reason });
    }
    Ok(bytes)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Raster, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let format = image::guess_format(bytes).ok();
    let raster = match format {
        Some(ImageFormat::Jpeg) => jpeg::decode(bytes)?,
        Some(ImageFormat::Gif) => gif::decode(bytes)?,
        Some(ImageFormat::Tiff) => tiff::decode(bytes)?,
        Some(format @ (ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => other(bytes, format)?,
        _ => return Err("it is not a PNG, JPEG, GIF, WebP, BMP or TIFF file".into()),
    };
    Ok(raster)
}

/// Refuses what would take too much memory, before any is taken.
fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("it says that it has {width}x{height} pixels"));
    }
    if width.saturating_mul(height) > PIXEL_LIMIT {
        return Err(format!("it says that it has {width}x{height} pixels; at most {PIXEL_LIMIT} are decoded"));
    }
    Ok(())
}

fn other(bytes: &[u8], format: ImageFormat) -> Result<Raster, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    // RGBA with 16 bits each, and as much again for what decoders need on the side.
    limits.max_alloc = Some(16 * PIXEL_LIMIT);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    check_size(width.into(), height.into())?;
    let exif = decoder.exif_metadata().ok().flatten();
    let xmp = decoder.xmp_metadata().ok().flatten();
    // With a transparent level, grey of 16 bits is decoded as if it had alpha; to Pillow it stays grey.
    let grey16 = format == ImageFormat::Png && bytes.get(PNG_DEPTH_AND_COLOR) == Some(&[16, 0]);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    let rgb = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => first_three(image.into_raw()),
        DynamicImage::ImageLuma8(image) => image.into_raw().into_iter().flat_map(|v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.into_raw().chunks_exact(2).flat_map(|v| [v[0]; 3]).collect(),
        DynamicImage::ImageLuma16(image) => image.into_raw().into_iter().flat_map(|v| [cut(v); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => {
            image.into_raw().chunks_exact(2).flat_map(|v| [if grey16 { cut(v[0]) } else { high(v[0]) }; 3]).collect()
        }
        DynamicImage::ImageRgb16(image) => image.into_raw().into_iter().map(high).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.into_raw().chunks_exact(4).flat_map(|v| [high(v[0]), high(v[1]), high(v[2])]).collect()
        }
        _ => return Err("its pixels are not 8 or 16 bits wide".into()),
    };
    Ok(orientation::upright(Raster { width, height, rgb }, exif.as_deref(), xmp.as_deref()))
}

/// 16-bit grey is cut off, not scaled: Pillow holds it as numbers, and numbers above 255 are white.
fn cut(value: u16) -> u8 {
    value.min(255) as u8
}

/// 16-bit colour is read as its high byte.
fn high(value: u16) -> u8 {
    (value >> 8) as u8
}

/// RGBA to RGB in place: alpha is dropped, not blended.
fn first_three(mut rgba: Vec<u8>) -> Vec<u8> {
    let pixels = rgba.len() / 4;
    for pixel in 1..pixels {
        rgba.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    rgba.truncate(3 * pixels);
    rgba
}

/// Pillow's plain CMYK to RGB, without a colour profile.
fn cmyk_to_rgb(cmyk: [u8; 4]) -> [u8; 3] {
    let white = 255 - u32::from(cmyk[3]);
    [cmyk[0], cmyk[1], cmyk[2]].map(|ink| {
        // The product divided by 255, rounded, in integers.
        let product = u32::from(ink) * white + 128;
        (white as i32 - (((product >> 8) + product) >> 8) as i32).clamp(0, 255) as u8
    })
}

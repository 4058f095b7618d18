//! TIFF: the first page, in the sample formats that photographs and figures come in.

use std::io::Cursor;

use image::metadata::Orientation;
use tiff::{
    ColorType,
    decoder::{Decoder, DecodingResult, Limits},
    tags::Tag,
};

use super::{Raster, check_size, cmyk_to_rgb, cut, high, orientation};

const PALETTE: u16 = 3;
const BLACK_IS_ZERO: u16 = 1;
/// Compression by JPEG, which the reader knows only for the common kinds.
const JPEG: u16 = 7;

pub(super) fn decode(bytes: &[u8]) -> Result<Raster, String> {
    let failed = |e: tiff::TiffError| e.to_string();
    // The reader refuses palettes; told that indices are grey, it reads them.
    let patched = palette_as_grey(bytes);
    let has_palette = patched.is_some();
    let mut decoder = Decoder::new(Cursor::new(patched.as_deref().unwrap_or(bytes))).map_err(failed)?;
    let (width, height) = decoder.dimensions().map_err(failed)?;
    check_size(width.into(), height.into())?;
    let pixels = width as usize * height as usize;
    let mut limits = Limits::default();
    // Samples of up to four channels of 32 bits, and room for tags.
    limits.decoding_buffer_size = 16 * pixels + (1 << 20);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    decoder = decoder.with_limits(limits);

    let kind = decoder.colortype().map_err(failed)?;
    let colors = if has_palette { decoder.get_tag_u16_vec(Tag::ColorMap).map_err(failed)? } else { Vec::new() };
    let turn = decoder.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten().and_then(Orientation::from_exif);
    let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression).ok().flatten();
    if compression == Some(JPEG)
        && !matches!(kind, ColorType::Gray(8) | ColorType::RGB(8) | ColorType::RGBA(8) | ColorType::CMYK(8))
    {
        return Err(format!("TIFF images of kind `{kind:?}` with JPEG compression are not supported; save it as PNG"));
    }
    let mut values = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut values).map_err(failed)?;
    let samples = usize::from(kind.num_samples());
    if values.as_buffer(0).byte_len() < layout.complete_len {
        return Err("its planes are incomplete".into());
    }
    let values = Samples::new(values, width as usize, kind.bit_depth()).ok_or_else(|| unsupported(kind))?;
    // Planes one after the other, or the samples of a pixel side by side.
    let at = |pixel: usize, sample: usize| {
        if layout.planes > 1 { sample * pixels + pixel } else { pixel * samples + sample }
    };
    if values.len() < pixels * if layout.planes > 1 { layout.planes } else { samples } {
        return Err("the file is truncated".into());
    }
    let value = |pixel, sample| values.byte(at(pixel, sample), kind);

    let all = 0..pixels;
    let rgb: Vec<u8> = match kind {
        ColorType::Gray(bits) if has_palette => {
            let entries = 1_usize << bits.min(8);
            if bits > 8 || colors.len() < 3 * entries {
                return Err(format!("its palette has {} values for {bits}-bit indices", colors.len()));
            }
            all.flat_map(|pixel| {
                let index = usize::from(values.raw(pixel));
                [0, 1, 2].map(|channel| high(colors[channel * entries + index]))
            })
            .collect()
        }
        ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. } => {
            all.flat_map(|pixel| [value(pixel, 0); 3]).collect()
        }
        ColorType::RGB(8 | 16) | ColorType::RGBA(8 | 16) => {
            all.flat_map(|pixel| [value(pixel, 0), value(pixel, 1), value(pixel, 2)]).collect()
        }
        ColorType::CMYK(8 | 16) => all.flat_map(|p| cmyk_to_rgb([0, 1, 2, 3].map(|sample| value(p, sample)))).collect(),
        _ => return Err(unsupported(kind)),
    };
    Ok(orientation::turned(Raster { width, height, rgb }, turn.unwrap_or(Orientation::NoTransforms)))
}

fn unsupported(kind: ColorType) -> String {
    format!("TIFF images of kind `{kind:?}` are not supported; save it as PNG")
}

enum Samples {
    /// With the bits of a sample.
    U8(Vec<u8>, u8),
    U16(Vec<u16>),
    Whole(Vec<i32>),
    Real(Vec<f32>),
}

impl Samples {
    fn new(values: DecodingResult, width: usize, bits: u8) -> Option<Self> {
        Some(match values {
            DecodingResult::U8(values) if matches!(bits, 1 | 2 | 4) => {
                Self::U8(unpacked(&values, width, usize::from(bits)), bits)
            }
            DecodingResult::U8(_) if bits < 8 => return None,
            DecodingResult::U8(values) => Self::U8(values, 8),
            DecodingResult::I8(values) => Self::U8(values.into_iter().map(|v| v as u8).collect(), 8),
            DecodingResult::U16(values) => Self::U16(values),
            DecodingResult::I16(values) => Self::Whole(values.into_iter().map(i32::from).collect()),
            // Pillow keeps them in signed numbers.
            DecodingResult::U32(values) => Self::Whole(values.into_iter().map(|v| v as i32).collect()),
            DecodingResult::I32(values) => Self::Whole(values),
            DecodingResult::F32(values) => Self::Real(values),
            _ => return None,
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::U8(values, _) => values.len(),
            Self::U16(values) => values.len(),
            Self::Whole(values) => values.len(),
            Self::Real(values) => values.len(),
        }
    }

    /// A palette index.
    fn raw(&self, at: usize) -> u8 {
        match self {
            Self::U8(values, _) => values[at],
            _ => 0,
        }
    }

    fn byte(&self, at: usize, kind: ColorType) -> u8 {
        match self {
            Self::U8(values, 8) => values[at],
            Self::U8(values, bits) => values[at] * (255 / ((1 << bits) - 1)),
            Self::U16(values) if matches!(kind, ColorType::Gray(_)) => cut(values[at]),
            Self::U16(values) => high(values[at]),
            Self::Whole(values) => values[at].clamp(0, 255) as u8,
            Self::Real(values) => values[at] as u8,
        }
    }
}

/// Samples of 1, 2 or 4 bits, each row beginning with a byte.
fn unpacked(values: &[u8], width: usize, bits: usize) -> Vec<u8> {
    let mask = ((1_u16 << bits) - 1) as u8;
    values
        .chunks_exact((width * bits).div_ceil(8).max(1))
        .flat_map(|row| (0..width).map(move |x| (row[x * bits / 8] >> (8 - bits - x * bits % 8)) & mask))
        .collect()
}

/// The file with its photometric interpretation changed from palette to grey; `None` if it has no palette.
fn palette_as_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    const PHOTOMETRIC: u16 = 262;
    let little = bytes.first() == Some(&b'I');
    let short = |at: usize| {
        let pair: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let long = |at: usize| {
        let (first, second) = (u32::from(short(at)?), u32::from(short(at.checked_add(2)?)?));
        Some(if little { first | second << 16 } else { first << 16 | second })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries)
        .map(|index| directory.saturating_add(2 + 12 * index))
        .find(|at| short(*at) == Some(PHOTOMETRIC))?;
    let value = entry.checked_add(8)?;
    (short(value)? == PALETTE).then(|| {
        let mut patched = bytes.to_vec();
        let grey = if little { BLACK_IS_ZERO.to_le_bytes() } else { BLACK_IS_ZERO.to_be_bytes() };
        patched[value..value + 2].copy_from_slice(&grey);
        patched
    })
}

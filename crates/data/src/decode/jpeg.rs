//! JPEG, by the decoder that Pillow uses (libjpeg-turbo's, as kept in MozJPEG), because decoders round differently.
//!
//! The pure-Rust decoder of the `image` crate differs by up to 14 levels where chroma is subsampled; this one by none.

use std::{
    cell::Cell,
    io::{BufRead, Read},
    panic::AssertUnwindSafe,
};

use mozjpeg::{ColorSpace, Decompress, Marker};

use super::{Raster, check_size, cmyk_to_rgb, orientation};

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

pub(super) fn decode(bytes: &[u8]) -> Result<Raster, String> {
    // The library reports what it cannot read by unwinding; no panic hook runs.
    std::panic::catch_unwind(AssertUnwindSafe(|| decompress(bytes))).unwrap_or_else(|payload| {
        let reason = payload.downcast_ref::<String>().map_or("the JPEG decoder failed", String::as_str);
        Err(reason.trim_start_matches("libjpeg fatal error: ").to_owned())
    })
}

fn decompress(bytes: &[u8]) -> Result<Raster, String> {
    let ended = Cell::new(false);
    let source = Source { bytes, ended: &ended };
    let decoder =
        Decompress::builder().with_markers(&[Marker::APP(1)]).from_reader(source).map_err(|e| e.to_string())?;
    check_size(decoder.width() as u64, decoder.height() as u64)?;
    let find = |head: &[u8]| decoder.markers().find_map(|marker| marker.data.strip_prefix(head).map(<[u8]>::to_vec));
    let (exif, xmp) = (find(EXIF), find(XMP));
    let wanted = match decoder.color_space() {
        ColorSpace::JCS_GRAYSCALE => ColorSpace::JCS_GRAYSCALE,
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => ColorSpace::JCS_CMYK,
        ColorSpace::JCS_RGB | ColorSpace::JCS_YCbCr => ColorSpace::JCS_RGB,
        _ => return Err("its colour space is not grey, RGB, YCbCr, CMYK or YCCK".into()),
    };
    let mut started = decoder.to_colorspace(wanted).map_err(|e| e.to_string())?;
    let (width, height) = (started.width() as u32, started.height() as u32);
    let values: Vec<u8> = started.read_scanlines().map_err(|e| e.to_string())?;
    if ended.get() {
        return Err("the file is truncated".into());
    }
    let rgb = match wanted {
        ColorSpace::JCS_GRAYSCALE => values.into_iter().flat_map(|value| [value; 3]).collect(),
        // Programs write the inks inverted, as Adobe's do; Pillow expects it of all of them.
        ColorSpace::JCS_CMYK => values
            .chunks_exact(4)
            .flat_map(|inks| cmyk_to_rgb([255 - inks[0], 255 - inks[1], 255 - inks[2], 255 - inks[3]]))
            .collect(),
        _ => values,
    };
    Ok(orientation::upright(Raster { width, height, rgb }, exif.as_deref(), xmp.as_deref()))
}

/// Gives the file at once and remembers whether more was asked for: the library itself only fills up with grey.
struct Source<'a> {
    bytes: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.ended.set(self.bytes.is_empty());
        Ok(self.bytes)
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count.min(self.bytes.len())..];
    }
}

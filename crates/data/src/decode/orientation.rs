//! Turning an image upright, as its EXIF or XMP data says.

use image::metadata::Orientation;

use super::Raster;

/// Applies the orientation of an EXIF block or, where that has none, of an XMP packet.
pub(super) fn upright(raster: Raster, exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Raster {
    let orientation = exif.and_then(from_exif).or_else(|| xmp.and_then(from_xmp));
    turned(raster, orientation.unwrap_or(Orientation::NoTransforms))
}

fn from_exif(block: &[u8]) -> Option<Orientation> {
    // WebP files written by older programs keep the head that JPEG puts before the block.
    Orientation::from_exif_chunk(block.strip_prefix(b"Exif\0\0").unwrap_or(block))
}

/// The digit after `tiff:Orientation="` or `tiff:Orientation>`.
fn from_xmp(packet: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    packet.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &packet[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        digit.is_ascii_digit().then(|| Orientation::from_exif(digit - b'0'))?
    })
}

/// Turns and mirrors pixels.
pub(super) fn turned(raster: Raster, orientation: Orientation) -> Raster {
    let (width, height) = (raster.width as usize, raster.height as usize);
    // Whether rows become columns, and whether the source is then read from its right and from its bottom.
    let (swapped, right, bottom) = match orientation {
        Orientation::NoTransforms => return raster,
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::Rotate180 => (false, true, true),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate90 => (true, false, true),
        Orientation::Rotate270FlipH => (true, true, true),
        Orientation::Rotate270 => (true, true, false),
    };
    let (new_width, new_height) = if swapped { (height, width) } else { (width, height) };
    let mut rgb = vec![0; raster.rgb.len()];
    // Tiles keep both sides in the cache when rows become columns.
    const TILE: usize = 32;
    for top in (0..new_height).step_by(TILE) {
        for left in (0..new_width).step_by(TILE) {
            for y in top..(top + TILE).min(new_height) {
                for x in left..(left + TILE).min(new_width) {
                    let (from_x, from_y) = if swapped { (y, x) } else { (x, y) };
                    let from_x = if right { width - 1 - from_x } else { from_x };
                    let from_y = if bottom { height - 1 - from_y } else { from_y };
                    let (from, to) = (3 * (from_y * width + from_x), 3 * (y * new_width + x));
                    rgb[to..to + 3].copy_from_slice(&raster.rgb[from..from + 3]);
                }
            }
        }
    }
    Raster { width: new_width as u32, height: new_height as u32, rgb }
}

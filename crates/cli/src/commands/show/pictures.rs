//! Images as they stand in a page: the bytes of a file, or a drawing of the embedded world as PNG.

use std::{fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use ressa_data::Image;

/// Maximum size of a file that goes into a page as it is.
const LARGEST: u64 = 4 << 20;

/// Maximum side of an image that is written anew.
const WIDEST: u32 = 1024;

/// An image that a page can show.
pub enum Picture {
    /// Drawn, or decoded.
    Held(Image),
    /// On disk.
    File(PathBuf),
}

impl Picture {
    /// The image of a benchmark.
    pub fn of(picture: &ressa_data::Picture) -> Option<Self> {
        Some(match picture {
            ressa_data::Picture::Held(image) => Self::Held(image.clone()),
            ressa_data::Picture::File(path) => Self::File(path.clone()),
            ressa_data::Picture::Cell(cell) => Self::Held(cell.image().ok()?),
        })
    }

    /// The image as an address that holds it, and its width and height where they are known; `None` where it cannot be read.
    pub fn address(&self) -> Option<(String, Option<(u32, u32)>)> {
        match self {
            Self::Held(image) => png_address(image),
            Self::File(path) => {
                let kind = match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
                    "jpg" | "jpeg" => Some("jpeg"),
                    "png" => Some("png"),
                    "gif" => Some("gif"),
                    "webp" => Some("webp"),
                    _ => None,
                };
                let is_small = fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= LARGEST);
                match kind.filter(|_| is_small) {
                    Some(kind) => Some((address(kind, &fs::read(path).ok()?), None)),
                    // Browsers show neither BMP nor TIFF; what is too large is made smaller.
                    None => png_address(&Image::open(path).ok()?),
                }
            }
        }
    }
}

fn address(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}

/// Every so many pixels of an image that is too large.
fn png_address(image: &Image) -> Option<(String, Option<(u32, u32)>)> {
    let step = image.width().max(image.height()).div_ceil(WIDEST).max(1);
    let (width, height) = (image.width().div_ceil(step), image.height().div_ceil(step));
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| image.pixel(x * step, y * step)));
    let pixels: Vec<u8> = pixels.collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some((address("png", &bytes), Some((width, height))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_become_addresses_that_hold_them() {
        let image = Image::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255]).unwrap();
        let (address, size) = Picture::Held(image).address().unwrap();
        assert_eq!(size, Some((2, 1)));
        let bytes = STANDARD.decode(address.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let again = Image::from_bytes(&bytes, std::path::Path::new("x.png")).unwrap();
        assert_eq!((again.pixel(0, 0), again.pixel(1, 0)), ([255, 0, 0], [0, 0, 255]));
        assert!(Picture::File("nowhere.jpg".into()).address().is_none());
    }
}

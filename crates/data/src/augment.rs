//! Random changes of training images: LAVIS' `blip2_image_train`, up to the resize that the model's processor does.

use rand::{Rng, RngExt};
use ressa_experiment::config::Augment;

use crate::Image;

/// Share of the area that is kept.
const AREA: (f64, f64) = (0.5, 1.0);
/// Width by height of the part that is kept.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Draws after which the largest central part of an allowed shape is taken.
const ATTEMPTS: usize = 10;

/// The image after the changes of a draw.
pub fn augment(image: Image, how: Augment, rng: &mut (impl Rng + ?Sized)) -> Image {
    match how {
        Augment::None => image,
        Augment::Crop => {
            let part = part(image.width(), image.height(), rng);
            let mirrored = rng.random::<bool>();
            cut(&image, part, mirrored)
        }
    }
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

/// A part of random area and shape at a random place, the shape uniform on a logarithmic scale, as torchvision's
/// `RandomResizedCrop` draws it.
fn part(width: u32, height: u32, rng: &mut (impl Rng + ?Sized)) -> Part {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..ATTEMPTS {
        let kept = area * rng.random_range(AREA.0..=AREA.1);
        let ratio = rng.random_range(RATIO.0.ln()..=RATIO.1.ln()).exp();
        let (w, h) = ((kept * ratio).sqrt().round() as u32, (kept / ratio).sqrt().round() as u32);
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let (left, top) = (rng.random_range(0..=width - w), rng.random_range(0..=height - h));
            return Part { left, top, width: w, height: h };
        }
    }
    let shape = f64::from(width) / f64::from(height);
    let (w, h) = if shape < RATIO.0 {
        (width, ((f64::from(width) / RATIO.0).round() as u32).clamp(1, height))
    } else if shape > RATIO.1 {
        (((f64::from(height) * RATIO.1).round() as u32).clamp(1, width), height)
    } else {
        (width, height)
    };
    Part { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

fn cut(image: &Image, part: Part, mirrored: bool) -> Image {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let columns = part.left as usize..(part.left + part.width) as usize;
    let rows = part.top as usize..(part.top + part.height) as usize;
    let mut planes = Vec::with_capacity(3 * columns.len() * rows.len());
    for plane in image.planes().chunks_exact((width * height).max(1)) {
        for row in rows.clone() {
            let line = &plane[row * width..][columns.clone()];
            if mirrored {
                planes.extend(line.iter().rev());
            } else {
                planes.extend_from_slice(line);
            }
        }
    }
    Image::from_planes(part.width, part.height, planes).unwrap_or_else(|| image.clone())
}

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
    let line = 3 * image.width() as usize;
    let columns = 3 * part.left as usize..3 * (part.left + part.width) as usize;
    let rgb = image.rgb();
    let mut kept = Vec::with_capacity(columns.len() * part.height as usize);
    for row in part.top as usize..(part.top + part.height) as usize {
        let line = &rgb[row * line..][columns.clone()];
        if mirrored {
            kept.extend(line.chunks_exact(3).rev().flatten());
        } else {
            kept.extend_from_slice(line);
        }
    }
    Image::from_rgb(part.width, part.height, kept).unwrap_or_else(|| image.clone())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// An image whose pixels tell their places.
    fn places(width: u32, height: u32) -> Image {
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 7]));
        Image::from_rgb(width, height, pixels.collect()).expect("three values per pixel")
    }

    #[test]
    fn a_crop_is_a_part_of_allowed_size_and_shape_and_half_of_them_are_mirrored() {
        let image = places(120, 90);
        let mut mirrored = 0;
        for seed in 0..200 {
            let cropped = augment(image.clone(), Augment::Crop, &mut ChaCha8Rng::seed_from_u64(seed));
            let (w, h) = (cropped.width(), cropped.height());
            let share = f64::from(w * h) / (120.0 * 90.0);
            let shape = f64::from(w) / f64::from(h);
            assert!((0.48..=1.0).contains(&share) && (0.73..1.36).contains(&shape), "{w}x{h}");
            let [left, right] = [0, w - 1].map(|x| cropped.pixel(x, 0)[0]);
            assert_eq!(u32::from(left.abs_diff(right)), w - 1);
            assert_eq!(u32::from(cropped.pixel(0, h - 1)[1] - cropped.pixel(0, 0)[1]), h - 1);
            mirrored += usize::from(left > right);
        }
        assert!((70..130).contains(&mirrored), "{mirrored} of 200");
        let again = |seed| augment(image.clone(), Augment::Crop, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(again(3), again(3));
        assert_eq!(augment(image.clone(), Augment::None, &mut ChaCha8Rng::seed_from_u64(1)), image);
    }

    #[test]
    fn an_image_that_admits_no_part_gives_its_middle() {
        let ribbon = augment(places(250, 1), Augment::Crop, &mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!((ribbon.width(), ribbon.height()), (1, 1));
        assert_eq!(ribbon.pixel(0, 0)[0], 124);
    }
}

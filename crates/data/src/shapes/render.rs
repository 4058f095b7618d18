//! From a scene to its picture: 48x48 pixels, one 16-pixel cell per grid place.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{
    attributes::{Color, Shape, Size, Texture},
    draw::{below, unit},
    scene::Scene,
};
use crate::Image;

/// Pixels per image side.
pub const IMAGE_SIZE: usize = 48;
/// Pixels per cell side.
const CELL: usize = 16;
/// Brightest background grey.
const BACKGROUND: f64 = 0.25;
/// Half the range by which each channel of an object's colour varies.
const COLOR_JITTER: f64 = 0.08;
/// Standard deviation of the pixel noise.
const NOISE: f32 = 0.06;
/// Brightness of the dark stripes.
const STRIPE: f32 = 0.35;

/// Paints a scene: grey background, objects shifted by at most a pixel, jittered colours, pixel noise, 8 bits per channel.
pub(super) fn render(scene: &Scene, rng: &mut (impl Rng + ?Sized)) -> Image {
    const PLANE: usize = IMAGE_SIZE * IMAGE_SIZE;
    let mut canvas = vec![(unit(rng) * BACKGROUND) as f32; 3 * PLANE];
    for object in scene.objects() {
        let shift_y = below(rng, 3) as isize - 1;
        let shift_x = below(rng, 3) as isize - 1;
        let color = rgb(object.color).map(|c| (c + (2.0 * unit(rng) - 1.0) * COLOR_JITTER).clamp(0.0, 1.0) as f32);
        for y in 0..CELL {
            let light = if object.texture == Texture::Striped && (y / 2) % 2 == 1 { STRIPE } else { 1.0 };
            for x in 0..CELL {
                let canvas_y = (object.row * CELL + y).wrapping_add_signed(shift_y);
                let canvas_x = (object.column * CELL + x).wrapping_add_signed(shift_x);
                if canvas_y < IMAGE_SIZE && canvas_x < IMAGE_SIZE && covers(object.shape, object.size, x, y) {
                    for (channel, value) in color.iter().enumerate() {
                        canvas[channel * PLANE + canvas_y * IMAGE_SIZE + canvas_x] = value * light;
                    }
                }
            }
        }
    }
    let planes = canvas
        .into_iter()
        .map(|value| {
            let noise: f32 = StandardNormal.sample(rng);
            ((value + NOISE * noise).clamp(0.0, 1.0) * 255.0 + 0.5) as u8
        })
        .collect();
    Image::from_planes(IMAGE_SIZE as u32, IMAGE_SIZE as u32, planes).expect("three planes of the image's size")
}

/// Whether a pixel of the cell belongs to the shape. Coordinates count from the cell's centre, y downwards.
fn covers(shape: Shape, size: Size, column: usize, row: usize) -> bool {
    let centre = (CELL as f32 - 1.0) / 2.0;
    let (x, y) = (column as f32 - centre, row as f32 - centre);
    let r: f32 = match size {
        Size::Small => 4.2,
        Size::Large => 7.0,
    };
    let squared = x * x + y * y;
    match shape {
        Shape::Circle => squared <= r * r,
        Shape::Square => x.abs() <= 0.85 * r && y.abs() <= 0.85 * r,
        Shape::Triangle => (-r..=0.9 * r).contains(&y) && x.abs() <= 0.55 * (y + r),
        Shape::Diamond => x.abs() + y.abs() <= 1.1 * r,
        Shape::Cross => (x.abs() <= 0.33 * r || y.abs() <= 0.33 * r) && x.abs() <= r && y.abs() <= r,
        Shape::Ring => squared <= r * r && squared >= (0.55 * r).powi(2),
        Shape::Bar => x.abs() <= 0.4 * r && y.abs() <= r,
        Shape::Arch => x * x + (y - 0.5 * r).powi(2) <= (1.05 * r).powi(2) && y <= 0.5 * r,
    }
}

fn rgb(color: Color) -> [f64; 3] {
    match color {
        Color::Red => [0.95, 0.1, 0.1],
        Color::Green => [0.1, 0.75, 0.15],
        Color::Blue => [0.15, 0.2, 0.95],
        Color::Yellow => [0.95, 0.9, 0.1],
        Color::Pink => [0.9, 0.2, 0.8],
        Color::Cyan => [0.1, 0.85, 0.9],
        Color::Orange => [0.95, 0.55, 0.1],
        Color::White => [0.95, 0.95, 0.95],
    }
}

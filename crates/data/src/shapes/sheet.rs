//! The contact sheet: test images with their questions, answers and captions, to see what the world looks like.

use std::io::Cursor;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::{ImageFormat, Rgb, RgbImage};
use rand_chacha::ChaCha8Rng;
use ressa_experiment::{Task, config::DataConfig};

use super::{
    caption,
    draw::{Purpose, stream},
    world::{HELD_OUT, LabelledImage, World},
};
use crate::{DataError, Image};

const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Factor by which images are enlarged.
const ZOOM: u32 = 4;
const MARGIN: u32 = 32;
const GAP: u32 = 28;
const TEXT_WIDTH: u32 = 372;
const COLUMNS: u32 = 3;
const LINE: f32 = 20.0;
const SIZE: f32 = 15.0;
const TITLE_SIZE: f32 = 24.0;
const HEADER: u32 = 56;

const INK: Rgb<u8> = Rgb([32, 33, 36]);
const FAINT: Rgb<u8> = Rgb([120, 124, 130]);
const ANSWER: Rgb<u8> = Rgb([0, 90, 156]);
const RULE: Rgb<u8> = Rgb([218, 220, 224]);

/// Paints the sheet of a world and encodes it as PNG: at least `images` question images (at most 400), then held-out caption images.
///
/// # Errors
/// [`DataError::NotShapes`] when the configuration points at published benchmarks.
pub fn contact_sheet(config: &DataConfig, images: usize) -> Result<Vec<u8>, DataError> {
    let rows = images.clamp(1, 400).div_ceil(COLUMNS as usize) as u32;
    let mut png = Cursor::new(Vec::new());
    paint(&World::new(config)?, rows)
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| DataError::Png { reason: e.to_string() })?;
    Ok(png.into_inner())
}

/// Paints `rows` rows of three question images, then one row of three held-out caption images.
fn paint(world: &World, rows: u32) -> RgbImage {
    let side = super::IMAGE_SIZE as u32 * ZOOM;
    let card = (side + 16 + TEXT_WIDTH, side + 8);
    let width = 2 * MARGIN + COLUMNS * card.0 + (COLUMNS - 1) * GAP;
    let height = 2 * MARGIN + 2 * HEADER + (rows + 1) * card.1 + rows.saturating_sub(1) * GAP;
    let mut sheet = Sheet::new(width, height);

    let title = format!("The shapes world, seed {}", world.seed());
    sheet.heading(&title, "test images of VQAv2, GQA and OK-VQA, with one question of each", MARGIN);
    let mut top = MARGIN + HEADER;
    for row in 0..rows {
        for column in 0..COLUMNS {
            // GQA asks about images of its own; every other card shows one of those, so that both kinds are seen.
            let number = (row * COLUMNS + column) as usize;
            let source = if number.is_multiple_of(2) { Task::Gqa } else { Task::Vqav2 };
            let labelled = world.question_image(source, number / 2);
            sheet.card(
                &labelled.image,
                MARGIN + column * (card.0 + GAP),
                top,
                &question_lines(world, &labelled, number),
            );
        }
        top += card.1 + GAP;
    }
    top = top.saturating_sub(GAP);
    sheet.heading(
        "Held-out captions",
        "each scene has a pair of colour and shape that no training image shows",
        top + MARGIN / 2,
    );
    top += HEADER + MARGIN / 2;
    for column in 0..COLUMNS {
        let labelled = world.caption_image(true, column as usize);
        let mut rng = stream(world.seed(), Purpose::HeldOutCaptions, column as usize);
        let lines = caption_lines(HELD_OUT, &labelled, &mut rng, 3);
        sheet.card(&labelled.image, MARGIN + column * (card.0 + GAP), top, &lines);
    }
    sheet.image
}

/// A run of words in one colour.
type Span = (String, Rgb<u8>);

fn question_lines(world: &World, labelled: &LabelledImage, number: usize) -> Vec<Vec<Span>> {
    let mut lines = Vec::new();
    for (task, purpose) in [(Task::Vqav2, Purpose::Vqav2), (Task::Gqa, Purpose::Gqa), (Task::Okvqa, Purpose::Okvqa)] {
        let mut rng = stream(world.seed(), purpose, number);
        if let Some(question) = world.question(task, &labelled.scene, &mut rng) {
            lines.push(vec![(format!("{}?", question.text), INK), (question.answer, ANSWER)]);
        }
    }
    let mut rng = stream(world.seed(), Purpose::Captions, number);
    lines.extend(caption_lines("caption", labelled, &mut rng, 1));
    lines
}

fn caption_lines(name: &str, labelled: &LabelledImage, rng: &mut ChaCha8Rng, count: usize) -> Vec<Vec<Span>> {
    (0..count)
        .map(|i| {
            let label = if i == 0 { format!("{name}:") } else { "or:".to_owned() };
            vec![(label, FAINT), (caption::draw(&labelled.scene, rng), INK)]
        })
        .collect()
}

struct Sheet {
    image: RgbImage,
    font: FontRef<'static>,
}

impl Sheet {
    fn new(width: u32, height: u32) -> Self {
        let font = FontRef::try_from_slice(FONT).expect("the embedded font is a font");
        Self { image: RgbImage::from_pixel(width, height, Rgb([255, 255, 255])), font }
    }

    fn heading(&mut self, title: &str, note: &str, top: u32) {
        let baseline = top as f32 + TITLE_SIZE;
        let end = self.text(title, MARGIN as f32, baseline, TITLE_SIZE, INK);
        self.text(note, end + 18.0, baseline, SIZE, FAINT);
        for x in MARGIN..self.image.width() - MARGIN {
            self.put(x, top + 38, RULE, 1.0);
        }
    }

    /// An enlarged image with text beside it, wrapped at words.
    fn card(&mut self, image: &Image, left: u32, top: u32, lines: &[Vec<Span>]) {
        let side = image.width() * ZOOM;
        for y in 0..side {
            for x in 0..side {
                self.put(left + x, top + y, Rgb(image.pixel(x / ZOOM, y / ZOOM)), 1.0);
            }
        }
        let start = (left + side + 16) as f32;
        let end = start + TEXT_WIDTH as f32;
        let mut baseline = top as f32 + SIZE;
        for line in lines {
            let mut x = start;
            for (text, color) in line {
                for word in text.split(' ') {
                    if x > start && x + self.advance(word, SIZE) > end {
                        baseline += LINE;
                        x = start;
                    }
                    x = self.text(word, x, baseline, SIZE, *color) + self.advance(" ", SIZE);
                }
            }
            baseline += LINE + 7.0;
        }
    }

    fn advance(&self, text: &str, size: f32) -> f32 {
        let font = self.font.as_scaled(PxScale::from(size));
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum()
    }

    /// Draws text on a baseline and returns where it ends.
    fn text(&mut self, text: &str, left: f32, baseline: f32, size: f32, color: Rgb<u8>) -> f32 {
        let font = self.font.clone();
        let scaled = font.as_scaled(PxScale::from(size));
        let mut x = left;
        for c in text.chars() {
            let glyph = scaled.glyph_id(c).with_scale_and_position(PxScale::from(size), point(x, baseline));
            x += scaled.h_advance(glyph.id);
            if let Some(outline) = font.outline_glyph(glyph) {
                let origin = outline.px_bounds().min;
                outline.draw(|gx, gy, coverage| {
                    self.put((origin.x as u32).wrapping_add(gx), (origin.y as u32).wrapping_add(gy), color, coverage);
                });
            }
        }
        x
    }

    fn put(&mut self, x: u32, y: u32, color: Rgb<u8>, coverage: f32) {
        if x < self.image.width() && y < self.image.height() {
            let pixel = self.image.get_pixel_mut(x, y);
            for (old, new) in pixel.0.iter_mut().zip(color.0) {
                *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * coverage.clamp(0.0, 1.0)).round() as u8;
            }
        }
    }
}

//! Drawing in points (1/72 inch) on a plotters backend, the same on paper (SVG) and on a raster (PNG).
//!
//! Both backends take whole pixels, so everything is drawn at 600 to the inch; the raster is halved afterwards, which smooths edges that
//! plotters leaves hard. Text is placed by its baseline: the two backends read a font's size differently, and this is where that is evened out.

use std::{
    f64::consts::{FRAC_PI_2, FRAC_PI_4},
    sync::LazyLock,
};

use plotters::{
    backend::DrawingBackend,
    style::{
        Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::palette::{Colour, Marker, PAPER};

/// Family of every text.
pub const FAMILY: &str = "DejaVu Sans";
/// The font: DejaVu Sans reduced to the characters that figures use.
pub static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
/// Pixels per inch while drawing.
pub const RESOLUTION: u32 = 600;

const UNIT: f64 = RESOLUTION as f64 / 72.0;
/// Ascent plus descent of the font in ems: what the raster's rasteriser takes as the size.
const LINE: f64 = (1901.0 + 483.0) / 2048.0;

static REGISTERED: LazyLock<bool> = LazyLock::new(|| register_font(FAMILY, FontStyle::Normal, FONT).is_ok());

/// Where a text stands against its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Begins there.
    Start,
    /// Is centred there.
    Middle,
    /// Ends there.
    End,
}

/// Which of the two readings of font sizes a backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// SVG text: em is size / 1.24, top anchor 0.76 em above the baseline.
    Vector,
    /// Glyph outlines: size is ascent plus descent, baseline half a size below the anchor.
    Raster,
}

/// A backend with points as coordinates.
pub struct Canvas<B> {
    backend: B,
    medium: Medium,
    failure: Option<String>,
}

fn paint(colour: Colour, width: u32) -> ShapeStyle {
    RGBColor(colour.0, colour.1, colour.2).stroke_width(width)
}

/// Pixels of a length in points.
pub fn pixels(points: f64) -> i32 {
    (points * UNIT).round() as i32
}

impl<B: DrawingBackend> Canvas<B> {
    /// A white canvas.
    pub fn new(backend: B, medium: Medium, size: (f64, f64)) -> Self {
        let mut canvas = Self { backend, medium, failure: None };
        canvas.rect((0.0, 0.0), size, PAPER);
        canvas
    }

    /// Finishes; the first thing that the backend refused, if any.
    pub fn finish(mut self) -> Result<(), String> {
        if let Err(e) = self.backend.present() {
            self.failure.get_or_insert(e.to_string());
        }
        match self.failure {
            Some(what) => Err(what),
            None => Ok(()),
        }
    }

    fn keep<E: std::fmt::Display>(&mut self, outcome: Result<(), E>) {
        if let Err(e) = outcome {
            self.failure.get_or_insert(e.to_string());
        }
    }

    /// A filled rectangle between two corners.
    pub fn rect(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour) {
        let (a, b) = (place(from), place(to));
        let corners = ((a.0.min(b.0), a.1.min(b.1)), (a.0.max(b.0), a.1.max(b.1)));
        let outcome = self.backend.draw_rect(corners.0, corners.1, &paint(colour, 0), true);
        self.keep(outcome);
    }

    /// The outline of a rectangle, drawn inside its edges.
    pub fn frame(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour, width: f64, inside: Colour) {
        self.rect(from, to, colour);
        let (left, right) = (from.0.min(to.0), from.0.max(to.0));
        let (top, bottom) = (from.1.min(to.1), from.1.max(to.1));
        if right - left > 2.0 * width && bottom - top > 2.0 * width {
            self.rect((left + width, top + width), (right - width, bottom - width), inside);
        }
    }

    /// A line through points.
    pub fn line(&mut self, points: &[(f64, f64)], colour: Colour, width: f64) {
        let path: Vec<(i32, i32)> = points.iter().copied().map(place).collect();
        let outcome = self.backend.draw_path(path, &paint(colour, pixels(width).max(1) as u32));
        self.keep(outcome);
    }

    /// A straight dashed line.
    pub fn dashed(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour, width: f64) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        let (dash, gap) = (3.0, 2.0);
        let mut start = 0.0;
        while start < length {
            let end = (start + dash).min(length);
            let at = |s: f64| (from.0 + dx * s / length, from.1 + dy * s / length);
            self.line(&[at(start), at(end)], colour, width);
            start += dash + gap;
        }
    }

    /// A marker of a given radius, filled or hollow.
    pub fn marker(&mut self, marker: Marker, at: (f64, f64), radius: f64, colour: Colour, hollow: bool) {
        self.shape(marker, at, radius, colour);
        if hollow {
            let inner = match marker {
                Marker::Triangle | Marker::TipDown => radius - 1.3,
                _ => radius - 0.8,
            };
            self.shape(marker, at, inner, PAPER);
        }
    }

    fn shape(&mut self, marker: Marker, (x, y): (f64, f64), r: f64, colour: Colour) {
        let corners: Vec<(f64, f64)> = match marker {
            Marker::Circle => {
                let outcome = self.backend.draw_circle(place((x, y)), pixels(r) as u32, &paint(colour, 0), true);
                return self.keep(outcome);
            }
            Marker::Square => {
                let r = 0.88 * r;
                vec![(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
            }
            Marker::Triangle => {
                let r = 1.2 * r;
                vec![(x, y - r), (x + 0.87 * r, y + 0.5 * r), (x - 0.87 * r, y + 0.5 * r)]
            }
            Marker::TipDown => {
                let r = 1.2 * r;
                vec![(x, y + r), (x + 0.87 * r, y - 0.5 * r), (x - 0.87 * r, y - 0.5 * r)]
            }
            Marker::Plus => cross((x, y), 1.2 * r, 0.0),
            Marker::Cross => cross((x, y), 1.2 * r, FRAC_PI_4),
            Marker::Diamond => {
                let r = 1.2 * r;
                vec![(x, y - r), (x + r, y), (x, y + r), (x - r, y)]
            }
        };
        let corners: Vec<(i32, i32)> = corners.into_iter().map(place).collect();
        let outcome = self.backend.fill_polygon(corners, &paint(colour, 0));
        self.keep(outcome);
    }

    /// A line of text of `size` points whose baseline passes through `at`; `upwards` turns it a quarter to the left.
    pub fn text(&mut self, text: &str, at: (f64, f64), size: f64, anchor: Anchor, colour: Colour, upwards: bool) {
        let em = size * UNIT;
        let (font_size, rise) = match self.medium {
            Medium::Vector => (em * 1.24, em * 0.76),
            Medium::Raster => (em * LINE, em * LINE / 2.0),
        };
        let (x, y) = place(at);
        let rise = rise.round() as i32;
        let (at, transform) =
            if upwards { ((x - rise, y), FontTransform::Rotate270) } else { ((x, y - rise), FontTransform::None) };
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        if !*REGISTERED {
            self.failure.get_or_insert("the built-in font cannot be read".to_owned());
            return;
        }
        let font = FontDesc::new(FontFamily::Name(FAMILY), font_size, FontStyle::Normal).transform(transform);
        let ink = RGBColor(colour.0, colour.1, colour.2);
        let style = TextStyle::from(font).color(&ink).pos(Pos::new(horizontal, VPos::Top));
        let outcome = self.backend.draw_text(text, &style, at);
        self.keep(outcome);
    }
}

/// Width of a text in points.
pub fn text_width(text: &str, size: f64) -> f64 {
    if !*REGISTERED {
        return 0.6 * size * text.chars().count() as f64;
    }
    let font = FontDesc::new(FontFamily::Name(FAMILY), 100.0 * LINE, FontStyle::Normal);
    font.box_size(text).map_or(0.0, |(width, _)| f64::from(width) * size / 100.0)
}

fn place(at: (f64, f64)) -> (i32, i32) {
    (pixels(at.0), pixels(at.1))
}

/// Corners of a cross with arms of length `r`, turned by an angle in radians.
fn cross((x, y): (f64, f64), r: f64, angle: f64) -> Vec<(f64, f64)> {
    let half = 0.36 * r;
    let arm = [(half, -r), (half, -half), (r, -half)];
    (0..4)
        .flat_map(|quarter| {
            let (sin, cos) = (angle + f64::from(quarter) * FRAC_PI_2).sin_cos();
            arm.map(|(dx, dy)| (x + dx * cos - dy * sin, y + dx * sin + dy * cos))
        })
        .collect()
}

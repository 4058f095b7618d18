//! Drawing in points (1/72 inch) into an SVG, with plotters' backend. Coordinates are whole six-hundredths of an inch, so the text of a drawing
//! is short and the same everywhere.

use std::{
    f64::consts::{FRAC_PI_2, FRAC_PI_4},
    sync::LazyLock,
};

use plotters::{
    backend::{DrawingBackend, SVGBackend},
    style::{
        Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};
use ttf_parser::Face;

use super::palette::{Colour, Hatching, Marker, PAPER, Style};

/// Family of every text.
pub const FAMILY: &str = "DejaVu Sans";
/// The font: DejaVu Sans reduced to the characters that figures use.
pub static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
/// Opacity of a shaded area.
const SHADE: f64 = 0.18;
/// Units per inch.
const RESOLUTION: u32 = 600;

const UNIT: f64 = RESOLUTION as f64 / 72.0;

static FACE: LazyLock<Option<Face<'static>>> = LazyLock::new(|| Face::parse(FONT, 0).ok());

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

/// An SVG with points as coordinates.
pub struct Canvas<'a> {
    backend: SVGBackend<'a>,
    failure: Option<String>,
}

fn paint(colour: Colour, width: u32) -> ShapeStyle {
    RGBColor(colour.0, colour.1, colour.2).stroke_width(width)
}

/// Units of a length in points.
pub fn units(points: f64) -> i32 {
    (points * UNIT).round() as i32
}

fn place(at: (f64, f64)) -> (i32, i32) {
    (units(at.0), units(at.1))
}

impl<'a> Canvas<'a> {
    /// White paper of a size in points, drawn into `svg`.
    pub fn new(svg: &'a mut String, size: (f64, f64)) -> Self {
        let (width, height) = place(size);
        let backend = SVGBackend::with_string(svg, (width.max(1) as u32, height.max(1) as u32));
        let mut canvas = Self { backend, failure: None };
        canvas.rect((0.0, 0.0), size, PAPER);
        canvas
    }

    /// Finishes.
    ///
    /// # Errors
    /// The first thing that the backend refused.
    pub fn finish(mut self) -> Result<(), String> {
        let outcome = self.backend.present();
        self.keep(outcome);
        self.failure.map_or(Ok(()), Err)
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
    fn frame(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour, width: f64, inside: Colour) {
        self.rect(from, to, colour);
        let (left, right) = (from.0.min(to.0), from.0.max(to.0));
        let (top, bottom) = (from.1.min(to.1), from.1.max(to.1));
        if right - left > 2.0 * width && bottom - top > 2.0 * width {
            self.rect((left + width, top + width), (right - width, bottom - width), inside);
        }
    }

    /// A rectangle in the colour and hatching of a series, filled or hollow.
    pub fn bar(&mut self, from: (f64, f64), to: (f64, f64), style: &Style, hollow: bool) {
        let lines = if hollow {
            self.frame(from, to, style.colour, 0.9, PAPER);
            style.colour
        } else {
            self.rect(from, to, style.colour);
            PAPER
        };
        let corners = ((from.0.min(to.0), from.1.min(to.1)), (from.0.max(to.0), from.1.max(to.1)));
        let directions: &[(f64, f64)] = match style.hatching {
            Hatching::None => &[],
            Hatching::Rising => &[(1.0, -1.0)],
            Hatching::Falling => &[(1.0, 1.0)],
            Hatching::Level => &[(1.0, 0.0)],
            Hatching::Crossed => &[(1.0, -1.0), (1.0, 1.0)],
            Hatching::Upright => &[(0.0, 1.0)],
            Hatching::Grid => &[(1.0, 0.0), (0.0, 1.0)],
        };
        for &direction in directions {
            for line in hatching(corners.0, corners.1, direction) {
                self.line(&line, lines, 0.6);
            }
        }
    }

    /// A solid line through points.
    pub fn line(&mut self, points: &[(f64, f64)], colour: Colour, width: f64) {
        let path: Vec<(i32, i32)> = points.iter().copied().map(place).collect();
        let outcome = self.backend.draw_path(path, &paint(colour, units(width).max(1) as u32));
        self.keep(outcome);
    }

    /// A shaded area with these corners, through which one sees what is below.
    pub fn shade(&mut self, corners: &[(f64, f64)], colour: Colour) {
        let corners: Vec<(i32, i32)> = corners.iter().copied().map(place).collect();
        let paint = RGBColor(colour.0, colour.1, colour.2).mix(SHADE);
        let outcome = self.backend.fill_polygon(corners, &ShapeStyle::from(paint));
        self.keep(outcome);
    }

    /// A line through points, in dashes and gaps of the given lengths in points; solid without any.
    pub fn dashed(&mut self, points: &[(f64, f64)], colour: Colour, width: f64, dash: &[f64]) {
        if dash.iter().sum::<f64>() <= 0.0 {
            return self.line(points, colour, width);
        }
        for part in dashes(points, dash) {
            self.line(&part, colour, width);
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
                let radius = units(r).max(0) as u32;
                let outcome = self.backend.draw_circle(place((x, y)), radius, &paint(colour, 0), true);
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
        // Plotters writes a font's size divided by 1.24, and its top anchor stands 0.76 em above the baseline.
        let em = size * UNIT;
        let rise = (0.76 * em).round() as i32;
        let (x, y) = place(at);
        let (at, transform) =
            if upwards { ((x - rise, y), FontTransform::Rotate270) } else { ((x, y - rise), FontTransform::None) };
        let horizontal = match anchor {
            Anchor::Start => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let font = FontDesc::new(FontFamily::Name(FAMILY), 1.24 * em, FontStyle::Normal).transform(transform);
        let ink = RGBColor(colour.0, colour.1, colour.2);
        let style = TextStyle::from(font).color(&ink).pos(Pos::new(horizontal, VPos::Top));
        let outcome = self.backend.draw_text(text, &style, at);
        self.keep(outcome);
    }
}

/// The dashes of a line through points; the pattern goes on around corners.
fn dashes(points: &[(f64, f64)], dash: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let mut parts = Vec::new();
    let (mut turn, mut left) = (0, dash[0]);
    let mut part: Vec<(f64, f64)> = points.first().copied().into_iter().collect();
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let (dx, dy) = (to.0 - from.0, to.1 - from.1);
            let length = dx.hypot(dy);
            if length <= left {
                left -= length;
                part.push(to);
                break;
            }
            from = (from.0 + dx * left / length, from.1 + dy * left / length);
            part.push(from);
            if turn % 2 == 0 {
                parts.push(std::mem::take(&mut part));
            }
            turn += 1;
            left = dash[turn % dash.len()];
            part = vec![from];
        }
    }
    if turn % 2 == 0 && part.len() > 1 {
        parts.push(part);
    }
    parts
}

/// Width of a text in points; a character without a glyph takes the place of the box that stands for it.
pub fn text_width(text: &str, size: f64) -> f64 {
    let Some(face) = &*FACE else { return 0.6 * size * text.chars().count() as f64 };
    let advance = |c: char| face.glyph_hor_advance(face.glyph_index(c).unwrap_or_default()).unwrap_or_default();
    text.chars().map(|c| f64::from(advance(c))).sum::<f64>() * size / f64::from(face.units_per_em())
}

/// Whether the figures' font has a glyph for a character.
pub fn has_glyph(c: char) -> bool {
    FACE.as_ref().is_some_and(|face| face.glyph_index(c).is_some())
}

/// Parallel lines across a rectangle, in one of the eight directions of a compass, 2.5 points apart.
fn hatching(low: (f64, f64), high: (f64, f64), (dx, dy): (f64, f64)) -> Vec<[(f64, f64); 2]> {
    const APART: f64 = 2.5;
    let length = f64::hypot(dx, dy);
    let normal = (-dy / length, dx / length);
    let across = |(x, y): (f64, f64)| normal.0 * x + normal.1 * y;
    let corners = [low, high, (low.0, high.1), (high.0, low.1)].map(across);
    let (first, last) = corners.iter().fold((f64::MAX, f64::MIN), |(a, b), &c| (a.min(c), b.max(c)));
    let mut lines = Vec::new();
    let mut distance = first + 0.5 * APART;
    while distance < last {
        // The line is distance * normal + t * (dx, dy); t is cut to both pairs of edges.
        let origin = (normal.0 * distance, normal.1 * distance);
        let cut = |origin: f64, step: f64, low: f64, high: f64| match step {
            0.0 => (f64::MIN, f64::MAX),
            step => (
                f64::min((low - origin) / step, (high - origin) / step),
                f64::max((low - origin) / step, (high - origin) / step),
            ),
        };
        let (x, y) = (cut(origin.0, dx, low.0, high.0), cut(origin.1, dy, low.1, high.1));
        let (start, end) = (x.0.max(y.0), x.1.min(y.1));
        if end > start {
            let at = |t: f64| (origin.0 + t * dx, origin.1 + t * dy);
            lines.push([at(start), at(end)]);
        }
        distance += APART;
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_their_share_of_a_line_around_corners() {
        let points = [(0.0, 0.0), (30.0, 0.0), (30.0, 40.0), (30.0, 40.0)];
        let parts = dashes(&points, &[3.0, 2.0]);
        let length = |part: &Vec<(f64, f64)>| -> f64 {
            part.windows(2).map(|pair| f64::hypot(pair[1].0 - pair[0].0, pair[1].1 - pair[0].1)).sum()
        };
        assert!(parts.iter().all(|part| (length(part) - 3.0).abs() < 1e-9), "{parts:?}");
        assert_eq!(parts.len(), 14);
    }

    #[test]
    fn hatching_stays_within_its_bar() {
        for direction in [(1.0, -1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)] {
            let lines = hatching((10.0, 20.0), (17.0, 90.0), direction);
            assert!(lines.len() > 1, "{direction:?}");
            for (x, y) in lines.into_iter().flatten() {
                assert!((9.999..17.001).contains(&x) && (19.999..90.001).contains(&y), "{direction:?}: {x}, {y}");
            }
        }
    }

    #[test]
    fn the_font_has_what_labels_are_made_of() {
        assert!(" aZ9%†±×–—äß".chars().all(has_glyph));
        assert!(!has_glyph('中'));
        assert!(text_width("WW", 10.0) > text_width("ii", 10.0));
    }
}

//! Drawing in points (1/72 inch) into an SVG. Coordinates are whole six-hundredths of an inch, so the text of a drawing is short and the same
//! everywhere.

use std::{
    f64::consts::{FRAC_PI_2, FRAC_PI_4},
    fmt::Write,
    sync::LazyLock,
};

use ttf_parser::Face;

use super::palette::{Colour, Hatching, Marker, PAPER, Style};
use crate::page::escape;

/// Family of every text.
pub const FAMILY: &str = "DejaVu Sans";
/// The font: DejaVu Sans reduced to the characters that figures use.
pub static FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
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
pub struct Canvas {
    svg: String,
}

fn hex(colour: Colour) -> String {
    format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2)
}

/// Units of a length in points.
fn units(points: f64) -> i32 {
    (points * UNIT).round() as i32
}

fn place(at: (f64, f64)) -> (i32, i32) {
    (units(at.0), units(at.1))
}

fn path(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|&at| place(at)).map(|(x, y)| format!("{x},{y}")).collect();
    points.join(" ")
}

impl Canvas {
    /// White paper of a size in points; `title` is for those who cannot see it.
    pub fn new(size: (f64, f64), title: &str) -> Self {
        let (width, height) = place(size);
        let mut canvas = Self { svg: String::new() };
        let _ = writeln!(
            canvas.svg,
            "<svg role=\"img\" width=\"{:.4}in\" height=\"{:.4}in\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"{FAMILY}, Verdana, sans-serif\" xmlns=\"http://www.w3.org/2000/svg\">\n<title>{}</title>",
            size.0 / 72.0,
            size.1 / 72.0,
            escape(title)
        );
        canvas.rect((0.0, 0.0), size, PAPER);
        canvas
    }

    /// The text of the drawing.
    pub fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }

    /// A filled rectangle between two corners.
    pub fn rect(&mut self, from: (f64, f64), to: (f64, f64), colour: Colour) {
        let (a, b) = (place(from), place(to));
        let (x, y) = (a.0.min(b.0), a.1.min(b.1));
        let (width, height) = ((a.0 - b.0).abs(), (a.1 - b.1).abs());
        let fill = hex(colour);
        let _ = writeln!(self.svg, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>");
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
        self.dashed(points, colour, width, &[]);
    }

    /// A line through points, in dashes and gaps of the given lengths in points.
    pub fn dashed(&mut self, points: &[(f64, f64)], colour: Colour, width: f64, dash: &[f64]) {
        let dashes: Vec<String> = dash.iter().map(|&length| units(length).to_string()).collect();
        let dashes =
            if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{}\"", dashes.join(" ")) };
        let _ = writeln!(
            self.svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"{dashes} points=\"{}\"/>",
            hex(colour),
            units(width).max(1),
            path(points)
        );
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
        let fill = hex(colour);
        let corners: Vec<(f64, f64)> = match marker {
            Marker::Circle => {
                let (x, y) = place((x, y));
                let _ = writeln!(self.svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{}\" fill=\"{fill}\"/>", units(r));
                return;
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
        let _ = writeln!(self.svg, "<polygon fill=\"{fill}\" points=\"{}\"/>", path(&corners));
    }

    /// A line of text of `size` points whose baseline passes through `at`; `upwards` turns it a quarter to the left.
    pub fn text(&mut self, text: &str, at: (f64, f64), size: f64, anchor: Anchor, colour: Colour, upwards: bool) {
        let (x, y) = place(at);
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turned = if upwards { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
        let _ = writeln!(
            self.svg,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{}\"{turned}>{}</text>",
            size * UNIT,
            hex(colour),
            escape(text)
        );
    }
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

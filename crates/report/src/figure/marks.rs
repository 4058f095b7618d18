//! The data itself: scales, bars with their values, lines with their markers, intervals.

use plotters::backend::DrawingBackend;
use ressa_experiment::output::FigureKind;

use super::{
    Figure, Panel,
    canvas::{Anchor, Canvas, text_width},
    draw::{Labels, Row, Source, VALUE},
    palette::{Colour, FAINT, INK, PAPER},
};
use crate::{names, records::Summary};

/// Share of a place that its bars take.
const FULL: f64 = 0.8;

/// A number to draw: value, half-width of its interval, and whether something planned is missing.
#[derive(Clone, Copy)]
struct Mark {
    value: f64,
    half_width: f64,
    incomplete: bool,
}

fn mark(panel: &Panel, source: Source, series: usize, x: usize) -> Option<Mark> {
    match source {
        Source::Ours => {
            let summary: Summary = panel.marks[series][x]?;
            let value = if summary.n > 0 { summary.mean } else { f64::NAN };
            let half_width = summary.half_width.unwrap_or(0.0);
            Some(Mark { value, half_width, incomplete: summary.is_incomplete() })
        }
        Source::Published => {
            let value = panel.published[series][x]?;
            Some(Mark { value, half_width: 0.0, incomplete: false })
        }
    }
}

fn every(figure: &Figure, source: Source) -> impl Iterator<Item = Mark> + '_ {
    figure.panels.iter().flat_map(move |panel| {
        let places = 0..panel.labels.len();
        places.flat_map(move |x| (0..figure.series.len()).filter_map(move |series| mark(panel, source, series, x)))
    })
}

/// Upper end of a mark's interval. Points end at 100, and an interval of a score below is not drawn beyond.
fn upper(mark: Mark) -> f64 {
    let top = mark.value + mark.half_width;
    if mark.value <= 100.0 && mark.value > 1.5 { top.min(100.0) } else { top }
}

/// The highest thing a row has to show.
pub(super) fn highest(figure: &Figure, source: Source) -> f64 {
    let (marks, baseline) = tops(figure, source);
    if marks.max(baseline) > 0.0 { marks.max(baseline) } else { 1.0 }
}

/// Upper end of the marks, and the dashed line.
fn tops(figure: &Figure, source: Source) -> (f64, f64) {
    let marks = every(figure, source).filter(|mark| mark.value.is_finite()).map(upper).fold(0.0, f64::max);
    let baseline = figure.baseline.iter().filter(|_| source == Source::Ours).map(|(_, height)| *height);
    (marks, baseline.fold(0.0, f64::max))
}

/// Distance of grid lines: 1, 2 or 5 times a power of ten, about five lines to a row.
pub(super) fn step(highest: f64) -> f64 {
    let rough = highest / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.9999).unwrap_or(10.0);
    factor * power
}

/// The scale of a row of panels.
pub(super) fn row(figure: &Figure, panels: &[(f64, f64)], source: Source, top: f64, height: f64) -> Row {
    let data = highest(figure, source);
    let labels = labels(figure, panels, source);
    let widest = widest(figure, source);
    let room = match labels {
        Labels::Flat => VALUE + 2.0,
        Labels::Upright => widest + 3.0,
        Labels::None => 3.0,
    };
    let step = match source {
        Source::Ours => step(data),
        Source::Published => step(data * 1.2),
    };
    let (marks, baseline) = tops(figure, source);
    // A flat value may have to stand on the dashed line.
    let over = if labels == Labels::Flat { room } else { 3.0 };
    let scaled = (marks * height / (height - room)).max(baseline * height / (height - over));
    Row { source, top, bottom: top + height, highest: if scaled > 0.0 { scaled } else { 1.0 }, step, labels }
}

fn widest(figure: &Figure, source: Source) -> f64 {
    every(figure, source).map(|m| text_width(&text(m, figure.decimals), VALUE)).fold(0.0, f64::max)
}

fn text(mark: Mark, decimals: usize) -> String {
    let dagger = if mark.incomplete { "†" } else { "" };
    format!("{}{dagger}", names::fixed(mark.value, decimals))
}

fn labels(figure: &Figure, panels: &[(f64, f64)], source: Source) -> Labels {
    if figure.kind == FigureKind::Lines {
        return Labels::None;
    }
    let pitch = |(panel, &(x0, x1)): (&Panel, &(f64, f64))| {
        let slot = (x1 - x0) / panel.labels.len().max(1) as f64;
        if figure.series.len() == 1 { slot } else { slot * FULL / figure.series.len() as f64 }
    };
    let pitch = figure.panels.iter().zip(panels).map(pitch).fold(f64::INFINITY, f64::min);
    if widest(figure, source) + 1.0 <= pitch {
        Labels::Flat
    } else if VALUE * 0.85 <= pitch {
        Labels::Upright
    } else {
        Labels::None
    }
}

/// Where a label stands along x.
pub(super) fn place(panel: &Panel, position: usize, (x0, x1): (f64, f64)) -> f64 {
    match &panel.positions {
        Some(positions) => {
            let (low, high) = (positions[0], positions[positions.len() - 1]);
            let inset = 8.0;
            let share = if high > low { (positions[position] - low) / (high - low) } else { 0.5 };
            x0 + inset + (x1 - x0 - 2.0 * inset) * share
        }
        None => x0 + (x1 - x0) * (position as f64 + 0.5) / panel.labels.len().max(1) as f64,
    }
}

/// Grouped bars.
pub(super) fn bars<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    row: &Row,
    x: (f64, f64),
    canvas: &mut Canvas<B>,
) {
    let slot = (x.1 - x.0) / panel.labels.len().max(1) as f64;
    let count = figure.series.len().max(1) as f64;
    let pitch = (slot * FULL / count).min(34.0);
    for position in 0..panel.labels.len() {
        let middle = place(panel, position, x);
        for (at, series) in figure.series.iter().enumerate() {
            let Some(mark) = mark(panel, row.source, at, position) else { continue };
            let centre = middle + pitch * (at as f64 - 0.5 * (count - 1.0));
            let half = 0.5 * pitch - if count > 1.0 { 0.4 } else { 0.0 };
            if !mark.value.is_finite() {
                canvas.text("†", (centre, row.bottom - 2.0), VALUE, Anchor::Middle, FAINT, false);
                continue;
            }
            let (from, to) = ((centre - half, row.bottom), (centre + half, row.y(mark.value)));
            match row.source {
                Source::Ours => canvas.rect(from, to, series.style.colour),
                Source::Published => {
                    let colour = if figure.series.len() == 1 { FAINT } else { series.style.colour };
                    canvas.frame(from, to, colour, 0.9, PAPER);
                }
            }
            let mut above = row.y(mark.value);
            if mark.half_width > 0.0 {
                interval(row, mark, centre, (0.5 * half).min(2.2), INK, canvas);
                above = row.y(upper(mark));
            }
            let value = text(mark, figure.decimals);
            if row.source == Source::Ours
                && let Some((_, height)) = figure.baseline
            {
                above = beside(row, height, &value, (centre, above), half, canvas);
            }
            match row.labels {
                Labels::Flat => canvas.text(&value, (centre, above - 2.0), VALUE, Anchor::Middle, INK, false),
                Labels::Upright => {
                    canvas.text(&value, (centre + 0.36 * VALUE, above - 2.0), VALUE, Anchor::Start, INK, true);
                }
                Labels::None => {}
            }
        }
    }
}

/// Where a printed value starts so that the dashed line does not cross it: a flat one stands on the line instead, an upright one, which
/// would be far from its bar there, has the line taken away behind it.
fn beside<B: DrawingBackend>(
    row: &Row,
    baseline: f64,
    value: &str,
    (centre, above): (f64, f64),
    half: f64,
    canvas: &mut Canvas<B>,
) -> f64 {
    let line = row.y(baseline);
    let crosses = |high: f64| line > above - 2.8 - high && line < above - 0.8;
    match row.labels {
        Labels::Flat if crosses(0.75 * VALUE) => line,
        Labels::Upright if crosses(text_width(value, VALUE) + 1.0) => {
            canvas.rect((centre - half, line - 0.7), (centre + half, line + 0.7), PAPER);
            above
        }
        _ => above,
    }
}

/// Lines with markers; series step aside a little so that intervals at one place stay apart.
pub(super) fn lines<B: DrawingBackend>(
    figure: &Figure,
    panel: &Panel,
    row: &Row,
    x: (f64, f64),
    canvas: &mut Canvas<B>,
) {
    let count = figure.series.len() as f64;
    let at = |series: usize, position: usize| {
        let aside = if row.source == Source::Ours { 1.5 * (series as f64 - 0.5 * (count - 1.0)) } else { 0.0 };
        place(panel, position, x) + aside
    };
    for (index, series) in figure.series.iter().enumerate() {
        let colour = series.style.colour;
        let marks: Vec<(usize, Mark)> =
            (0..panel.labels.len()).filter_map(|p| Some((p, mark(panel, row.source, index, p)?))).collect();
        let path: Vec<(f64, f64)> =
            marks.iter().filter(|(_, m)| m.value.is_finite()).map(|(p, m)| (at(index, *p), row.y(m.value))).collect();
        if path.len() > 1 {
            canvas.line(&path, colour, if row.source == Source::Ours { 1.2 } else { 0.8 });
        }
        for (position, mark) in marks {
            let x = at(index, position);
            if !mark.value.is_finite() {
                canvas.text("†", (x, row.bottom - 2.0), VALUE, Anchor::Middle, FAINT, false);
                continue;
            }
            let y = row.y(mark.value);
            if mark.half_width > 0.0 {
                interval(row, mark, x, 1.6, colour, canvas);
            }
            canvas.marker(series.style.marker, (x, y), 2.4, colour, row.source == Source::Published);
            if mark.incomplete {
                canvas.text("†", (x, row.y(upper(mark)) - 3.0), VALUE, Anchor::Middle, colour, false);
            }
        }
    }
}

fn interval<B: DrawingBackend>(row: &Row, mark: Mark, x: f64, cap: f64, colour: Colour, canvas: &mut Canvas<B>) {
    let (low, high) = (row.y((mark.value - mark.half_width).max(0.0)), row.y(upper(mark)));
    canvas.line(&[(x, low), (x, high)], colour, 0.7);
    for end in [low, high] {
        canvas.line(&[(x - cap, end), (x + cap, end)], colour, 0.7);
    }
}

//! The data itself: scales, bars with their values, lines with their markers, intervals.

use ressa_experiment::output::FigureKind;

use super::{
    Baseline, Figure, Panel,
    canvas::{Anchor, Canvas, text_width},
    draw::{Labels, Row, Source, VALUE},
    losses,
    palette::{Colour, FAINT, INK, Marker, PAPER, Style},
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

fn mark(figure: &Figure, panel: &Panel, source: Source, series: usize, x: usize) -> Option<Mark> {
    match source {
        Source::Ours => {
            let summary: Summary = panel.marks[series][x]?;
            let value = if summary.n > 0 { summary.mean } else { f64::NAN };
            let half_width = match figure.kind {
                FigureKind::Losses => losses::spread(&summary),
                _ => summary.half_width.unwrap_or(0.0),
            };
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
        places.flat_map(move |x| {
            (0..figure.series.len()).filter_map(move |series| mark(figure, panel, source, series, x))
        })
    })
}

/// Upper end of a mark's interval, which is not drawn beyond what the value can be.
fn upper(figure: &Figure, mark: Mark) -> f64 {
    let top = mark.value + mark.half_width;
    figure.ceiling.map_or(top, |ceiling| top.min(ceiling.max(mark.value)))
}

/// The highest thing a row has to show.
pub(super) fn highest(figure: &Figure, source: Source) -> f64 {
    let (marks, baseline) = tops(figure, source);
    if marks.max(baseline) > 0.0 { marks.max(baseline) } else { 1.0 }
}

/// Upper end of the marks, and the dashed line.
fn tops(figure: &Figure, source: Source) -> (f64, f64) {
    let beside = every(figure, Source::Published).filter(|_| source == Source::Ours && !figure.has_lower_row());
    let marks = every(figure, source).chain(beside).filter(|mark| mark.value.is_finite());
    let marks = marks.map(|mark| upper(figure, mark)).fold(0.0, f64::max);
    let baseline = figure.baseline.iter().filter(|_| source == Source::Ours).map(|baseline| baseline.height);
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
    if figure.kind != FigureKind::Bars {
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
pub(super) fn bars(figure: &Figure, panel: &Panel, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let slot = (x.1 - x.0) / panel.labels.len().max(1) as f64;
    let count = figure.series.len().max(1) as f64;
    let pitch = (slot * FULL / count).min(34.0);
    for position in 0..panel.labels.len() {
        let middle = place(panel, position, x);
        for (at, series) in figure.series.iter().enumerate() {
            let Some(mark) = mark(figure, panel, row.source, at, position) else { continue };
            let centre = middle + pitch * (at as f64 - 0.5 * (count - 1.0));
            let half = 0.5 * pitch - if count > 1.0 { 0.4 } else { 0.0 };
            if !mark.value.is_finite() {
                canvas.text("†", (centre, row.bottom - 2.0), VALUE, Anchor::Middle, FAINT, false);
                continue;
            }
            let (from, to) = ((centre - half, row.bottom), (centre + half, row.y(mark.value)));
            let only = row.source == Source::Published && figure.series.len() == 1;
            let style = if only { Style { colour: FAINT, ..series.style } } else { series.style };
            canvas.bar(from, to, &style, row.source == Source::Published);
            let mut above = row.y(mark.value);
            if mark.half_width > 0.0 {
                interval(figure, row, mark, centre, (0.5 * half).min(2.2), INK, canvas);
                above = row.y(upper(figure, mark));
            }
            if row.source == Source::Ours
                && let Some(published) = published_beside(figure, panel, at, position)
            {
                canvas.marker(Marker::Diamond, (centre, row.y(published)), 2.4, INK, true);
                above = above.min(row.y(published) - 3.0);
            }
            let value = text(mark, figure.decimals);
            if row.source == Source::Ours
                && let Some(Baseline { height, .. }) = figure.baseline
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
fn beside(
    row: &Row,
    baseline: f64,
    value: &str,
    (centre, above): (f64, f64),
    half: f64,
    canvas: &mut Canvas<'_>,
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
pub(super) fn lines(figure: &Figure, panel: &Panel, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let count = figure.series.len() as f64;
    let apart = f64::min(1.5, 12.0 / count);
    let at = |series: usize, position: usize| {
        let aside = if row.source == Source::Ours { apart * (series as f64 - 0.5 * (count - 1.0)) } else { 0.0 };
        place(panel, position, x) + aside
    };
    let hollow = row.source == Source::Published;
    for (index, series) in figure.series.iter().enumerate() {
        let Style { colour, marker, dash, .. } = series.style;
        let marks: Vec<Option<Mark>> =
            (0..panel.labels.len()).map(|position| mark(figure, panel, row.source, index, position)).collect();
        let point = |(position, mark): (usize, &Option<Mark>)| Some((at(index, position), row.y(mark.as_ref()?.value)));
        let present = |mark: &Option<Mark>| mark.is_some_and(|mark| mark.value.is_finite());
        for stretch in stretches(&marks, panel.positions.is_some(), present) {
            let path: Vec<(f64, f64)> = stretch.into_iter().filter_map(|p| point((p, &marks[p]))).collect();
            canvas.dashed(&path, colour, if hollow { 0.8 } else { 1.2 }, dash);
        }
        for (position, mark) in marks.iter().enumerate().filter_map(|(position, mark)| Some((position, (*mark)?))) {
            let x = at(index, position);
            if !mark.value.is_finite() {
                canvas.text("†", (x, row.bottom - 2.0), VALUE, Anchor::Middle, FAINT, false);
                continue;
            }
            dot(figure, row, mark, series.style, x, canvas);
        }
        if !hollow {
            let beside: Vec<Option<f64>> =
                (0..panel.labels.len()).map(|position| published_beside(figure, panel, index, position)).collect();
            let place = |position: usize| Some((at(index, position), row.y(beside[position]?)));
            for stretch in stretches(&beside, panel.positions.is_some(), Option::is_some) {
                let path: Vec<(f64, f64)> = stretch.into_iter().filter_map(place).collect();
                canvas.dashed(&path, colour, 0.5, &[1.0, 1.5]);
            }
            for at in (0..beside.len()).filter_map(place) {
                canvas.marker(marker, at, 2.4, colour, true);
            }
        }
    }
}

/// The mark of a series at its own place, at `x`.
pub(super) fn point(figure: &Figure, panel: &Panel, row: &Row, series: usize, x: f64, canvas: &mut Canvas<'_>) {
    if let Some(mark) = mark(figure, panel, row.source, series, series) {
        dot(figure, row, mark, figure.series[series].style, x, canvas);
    }
}

/// A marker with its interval, and a dagger where something planned is missing.
fn dot(figure: &Figure, row: &Row, mark: Mark, style: Style, x: f64, canvas: &mut Canvas<'_>) {
    let Style { colour, marker, .. } = style;
    if mark.half_width > 0.0 {
        interval(figure, row, mark, x, 1.6, colour, canvas);
    }
    canvas.marker(marker, (x, row.y(mark.value)), 2.4, colour, row.source == Source::Published);
    if mark.incomplete {
        let above = row.y(upper(figure, mark)) - 3.0;
        canvas.text("†", (x, above), VALUE, Anchor::Middle, colour, false);
    }
}

/// The published number that is drawn on our own axis, because it is of the same scale.
fn published_beside(figure: &Figure, panel: &Panel, series: usize, position: usize) -> Option<f64> {
    panel.published[series][position].filter(|_| !figure.has_lower_row())
}

/// Places that a line joins: it has a gap wherever a mark is missing. Where labels are numbers, a place that a series does not have at all is no
/// gap, because others may have been measured between its own.
fn stretches<T>(marks: &[Option<T>], numeric: bool, present: impl Fn(&Option<T>) -> bool) -> Vec<Vec<usize>> {
    let mut stretches: Vec<Vec<usize>> = vec![Vec::new()];
    for (position, mark) in marks.iter().enumerate() {
        if present(mark) {
            if let Some(stretch) = stretches.last_mut() {
                stretch.push(position);
            }
        } else if mark.is_some() || !numeric {
            stretches.push(Vec::new());
        }
    }
    stretches.retain(|stretch| stretch.len() > 1);
    stretches
}

fn interval(figure: &Figure, row: &Row, mark: Mark, x: f64, cap: f64, colour: Colour, canvas: &mut Canvas<'_>) {
    let (low, high) = (row.y((mark.value - mark.half_width).max(0.0)), row.y(upper(figure, mark)));
    canvas.line(&[(x, low), (x, high)], colour, 0.7);
    for end in [low, high] {
        canvas.line(&[(x - cap, end), (x + cap, end)], colour, 0.7);
    }
}

#[cfg(test)]
mod tests {
    use super::stretches;

    #[test]
    fn a_missing_mark_is_a_gap_and_no_bridge() {
        let planned = [Some(1.0), Some(f64::NAN), Some(3.0), Some(4.0)];
        let present = |mark: &Option<f64>| mark.is_some_and(f64::is_finite);
        assert_eq!(stretches(&planned, true, present), [[2, 3]]);
        let unplanned = [Some(1.0), None, Some(3.0), Some(4.0)];
        assert_eq!(stretches(&unplanned, true, present), [[0, 2, 3]]);
        assert_eq!(stretches(&unplanned, false, present), [[2, 3]]);
    }
}

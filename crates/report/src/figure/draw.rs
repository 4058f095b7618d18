//! Where everything stands, and the parts around the data: axes, grid, legend, titles.

use ressa_experiment::output::FigureKind;

use super::{
    Baseline, Figure, Panel,
    canvas::{Anchor, Canvas, text_width},
    heat, losses, marks,
    palette::{FAINT, GRID, INK, Style},
    scatter,
};
use crate::names;

/// Titles of axes and panels, legend.
pub(super) const TEXT: f64 = 8.0;
/// Labels along the axes.
pub(super) const TICK: f64 = 7.5;
/// Values printed at the data.
pub(super) const VALUE: f64 = 7.0;
const GAP: f64 = 14.0;
const LEGEND_LINE: f64 = 11.5;
/// Dashes and gaps of the line across all panels.
const BASELINE: &[f64] = &[3.0, 2.0];

/// Which numbers a row of panels shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Ours,
    Published,
}

/// How values are printed at bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    Flat,
    Upright,
    None,
}

/// A row of panels on one scale.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub source: Source,
    pub top: f64,
    pub bottom: f64,
    pub highest: f64,
    pub step: f64,
    pub labels: Labels,
}

impl Row {
    /// Height of a value on the canvas.
    pub fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * (value / self.highest).clamp(0.0, 1.0)
    }
}

/// Positions in points.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Width of the whole figure.
    pub width: f64,
    /// Height of the whole figure.
    pub height: f64,
    rows: Vec<Row>,
    /// Left and right edge of each panel.
    panels: Vec<(f64, f64)>,
    legend: Vec<(f64, f64, Entry)>,
    ticks: Ticks,
    heat: Option<heat::Grid>,
}

/// How the labels along x are set.
#[derive(Clone, Copy, Debug)]
enum Ticks {
    /// On lines of at most this width.
    Wrapped(f64),
    /// Turned, because a single word is too wide.
    Upright,
}

#[derive(Clone, Debug)]
enum Entry {
    Series(Style, String),
    Baseline(String),
}

impl Entry {
    fn text(&self) -> &str {
        match self {
            Entry::Series(_, text) | Entry::Baseline(text) => text,
        }
    }
    fn swatch(&self) -> f64 {
        match self {
            Entry::Series(..) => 18.0,
            Entry::Baseline(_) => 17.0,
        }
    }
    fn width(&self) -> f64 {
        self.swatch() + text_width(self.text(), TEXT)
    }
}

impl Layout {
    /// Places everything; the height follows from the content.
    pub fn of(figure: &Figure) -> Self {
        let width = figure.width * 72.0;
        if figure.kind == FigureKind::HeatMap {
            let grid = heat::Grid::of(figure);
            let (rows, panels, legend) = Default::default();
            return Self { width, height: grid.height, rows, panels, legend, ticks: Ticks::Upright, heat: Some(grid) };
        }
        let left = 2.0 + TEXT + 5.0 + tick_width(figure) + 3.0;
        let right = width - 5.0;

        // Panels share the width by their number of places.
        let weight = |panel: &Panel| match panel.positions {
            Some(_) => 1.0,
            None => panel.labels.len().max(1) as f64,
        };
        let total: f64 = figure.panels.iter().map(weight).sum();
        let free = right - left - GAP * (figure.panels.len().saturating_sub(1)) as f64;
        let mut panels = Vec::new();
        let mut x = left;
        for panel in &figure.panels {
            let w = free * weight(panel) / total;
            panels.push((x, x + w));
            x += w + GAP;
        }

        // Legend lines above everything.
        let mut entries: Vec<Entry> = figure
            .series
            .iter()
            .filter(|series| !series.name.is_empty())
            .map(|series| Entry::Series(series.style, series.name.clone()))
            .collect();
        if let Some(line) = &figure.baseline {
            entries.push(Entry::Baseline(format!("{} ({})", line.name, names::fixed(line.height, figure.decimals))));
        }
        let mut legend = Vec::new();
        let (mut at, mut y) = (left, 10.0);
        for entry in entries {
            let w = entry.width();
            if at > left && at + w > right {
                at = left;
                y += LEGEND_LINE;
            }
            legend.push((at, y, entry));
            at += w + 10.0;
        }
        let mut top = if legend.is_empty() { 4.0 } else { y + 7.0 };
        if figure.panels.iter().any(|panel| panel.title.is_some()) {
            top += TEXT + 4.0;
        }

        let slot = |(panel, &(x0, x1)): (&Panel, &(f64, f64))| match panel.positions {
            Some(_) => f64::INFINITY,
            None => (x1 - x0) / panel.labels.len().max(1) as f64,
        };
        let names = || figure.panels.iter().flat_map(|panel| &panel.names);
        let widest = names().map(|name| text_width(name, TICK)).fold(0.0, f64::max);
        let word = names().flat_map(|name| name.split(' ')).map(|word| text_width(word, TICK)).fold(0.0, f64::max);
        let narrowest = figure.panels.iter().zip(&panels).map(slot).fold(f64::INFINITY, f64::min);
        let ticks = if word + 3.0 > narrowest { Ticks::Upright } else { Ticks::Wrapped(narrowest - 3.0) };
        let below = match ticks {
            Ticks::Upright => widest + 5.0,
            Ticks::Wrapped(width) => {
                names().map(|name| wrap(name, width).len()).max().unwrap_or(1) as f64 * TICK * 1.15 + 4.0
            }
        };

        let height = if figure.width > 5.0 { 118.0 } else { 112.0 };
        let mut rows = vec![marks::row(figure, &panels, Source::Ours, top, height)];
        let mut bottom = top + height + below;
        if figure.has_lower_row() {
            let top = bottom + TEXT + 8.0;
            let height = 0.55 * height;
            rows.push(marks::row(figure, &panels, Source::Published, top, height));
            bottom = top + height + below;
        }
        Self { width, height: bottom + TEXT + 5.0, rows, panels, legend, ticks, heat: None }
    }
}

fn tick_width(figure: &Figure) -> f64 {
    let ours = marks::highest(figure, Source::Ours);
    let paper = marks::highest(figure, Source::Published);
    let text = |highest: f64| text_width(&tick_text(marks::step(highest), marks::step(highest) * 3.0), TICK);
    text(ours).max(text(paper)).max(text_width("100", TICK))
}

fn tick_text(step: f64, value: f64) -> String {
    let decimals = if step >= 1.0 {
        0
    } else if step >= 0.1 {
        1
    } else {
        2
    };
    names::fixed(value, decimals)
}

/// Draws a figure.
pub fn draw(figure: &Figure, layout: &Layout, canvas: &mut Canvas<'_>) {
    if let Some(grid) = &layout.heat {
        return heat::draw(figure, grid, canvas);
    }
    for (x, y, entry) in &layout.legend {
        match entry {
            Entry::Series(style, _) if figure.kind == FigureKind::Bars => {
                canvas.bar((*x, y - 6.5), (x + 14.0, y + 0.5), style, false);
            }
            Entry::Series(style, _) if figure.kind == FigureKind::Scatter => {
                canvas.marker(style.marker, (x + 7.5, y - 2.8), 2.4, style.colour, false);
            }
            Entry::Series(style, _) => {
                canvas.dashed(&[(*x, y - 2.8), (x + 15.0, y - 2.8)], style.colour, 1.2, style.dash);
                canvas.marker(style.marker, (x + 7.5, y - 2.8), 2.4, style.colour, false);
            }
            Entry::Baseline(_) => canvas.dashed(&[(*x, y - 2.8), (x + 13.0, y - 2.8)], INK, 0.8, BASELINE),
        }
        canvas.text(entry.text(), (x + entry.swatch(), *y), TEXT, Anchor::Start, INK, false);
    }
    let left = layout.panels.first().map_or(0.0, |panel| panel.0);
    let right = layout.panels.last().map_or(0.0, |panel| panel.1);
    for row in &layout.rows {
        if row.source == Source::Published {
            let text = figure.scale.mark().replacen('p', "P", 1);
            canvas.text(&text, (left, row.top - 4.5), TICK, Anchor::Start, FAINT, false);
        }
        for (panel, &(x0, x1)) in figure.panels.iter().zip(&layout.panels) {
            grid(row, x0, x1, canvas);
            if row.source == Source::Ours
                && let Some(title) = &panel.title
            {
                canvas.text(title, (0.5 * (x0 + x1), row.top - 4.0), TEXT, Anchor::Middle, INK, false);
            }
            if row.source == Source::Ours
                && let Some(Baseline { height, .. }) = figure.baseline
            {
                canvas.dashed(&[(x0, row.y(height)), (x1, row.y(height))], INK, 0.8, BASELINE);
            }
            match panel.positions {
                _ if figure.kind == FigureKind::Losses => losses::draw(figure, panel, row, (x0, x1), canvas),
                _ if figure.kind == FigureKind::Scatter => scatter::draw(figure, panel, row, (x0, x1), canvas),
                Some(_) => marks::lines(figure, panel, row, (x0, x1), canvas),
                None if figure.kind == FigureKind::Lines => {
                    marks::lines(figure, panel, row, (x0, x1), canvas);
                }
                None => marks::bars(figure, panel, row, (x0, x1), canvas),
            }
            canvas.line(&[(x0, row.bottom), (x1, row.bottom)], INK, 0.7);
            match figure.kind {
                FigureKind::Losses => losses::ticks(figure, row, (x0, x1), canvas),
                FigureKind::Scatter => scatter::ticks(figure, row, (x0, x1), canvas),
                _ => ticks(panel, layout, row, (x0, x1), canvas),
            }
        }
        let mut value = 0.0;
        while value <= row.highest * 1.0001 {
            let text = tick_text(row.step, value);
            canvas.text(&text, (left - 3.5, row.y(value) + 0.36 * TICK), TICK, Anchor::End, INK, false);
            value += row.step;
        }
    }
    if let Some(row) = layout.rows.first() {
        let middle = (TEXT + 1.0, 0.5 * (row.top + row.bottom));
        canvas.text(&figure.y_title, middle, TEXT, Anchor::Middle, INK, true);
    }
    canvas.text(&figure.x_title, (0.5 * (left + right), layout.height - 3.0), TEXT, Anchor::Middle, INK, false);
}

fn grid(row: &Row, x0: f64, x1: f64, canvas: &mut Canvas<'_>) {
    let mut value = row.step;
    while value <= row.highest * 1.0001 {
        canvas.line(&[(x0, row.y(value)), (x1, row.y(value))], GRID, 0.5);
        value += row.step;
    }
}

fn ticks(panel: &Panel, layout: &Layout, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let mut free_from = f64::NEG_INFINITY;
    for (position, name) in panel.names.iter().enumerate() {
        let at = marks::place(panel, position, x);
        let Ticks::Wrapped(width) = layout.ticks else {
            let end = (at + 0.36 * TICK, row.bottom + 3.0);
            canvas.text(name, end, TICK, Anchor::End, INK, true);
            continue;
        };
        canvas.line(&[(at, row.bottom), (at, row.bottom + 2.0)], INK, 0.5);
        let half = 0.5 * text_width(name, TICK).min(width);
        if at - half < free_from {
            continue;
        }
        free_from = at + half + 2.0;
        for (line, text) in wrap(name, width).iter().enumerate() {
            let baseline = row.bottom + TICK * (1.0 + 1.15 * line as f64) + 2.5;
            canvas.text(text, (at, baseline), TICK, Anchor::Middle, INK, false);
        }
    }
}

/// Lines of whole words, each within a width where its words are.
fn wrap(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), TICK) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

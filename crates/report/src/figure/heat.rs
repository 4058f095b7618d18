//! Heat maps: how sparse every pruned block is, a row for each label, a panel for each stack of blocks, one scale of colours for all.

use std::collections::BTreeMap;

use ressa_experiment::{Tower, output as spec};

use super::{
    Figure, Panel, Series,
    canvas::{Anchor, Canvas, text_width},
    draw::{TEXT, TICK, VALUE},
    palette::{self, Colour, FAINT, INK, PAPER},
};
use crate::{
    ReportError,
    measure::{Block, PROJECTION},
    names,
    records::{Records, Summary},
};

/// Height of a row, where there are not so many that all of them together would be higher than a page.
const ROW: f64 = 15.0;
/// Height of all rows together.
const HIGHEST: f64 = 620.0;
const GAP: f64 = 9.0;
/// Space at the right for the scale: gap, bar, text.
const BAR: (f64, f64, f64) = (9.0, 7.0, 24.0);
/// From few to many: one hue that darkens, so it also reads in grey and with any colour vision.
const RAMP: [Colour; 4] = [(0xF1, 0xF5, 0xF9), (0x9E, 0xCA, 0xE6), (0x2B, 0x7B, 0xB9), (0x08, 0x2F, 0x5B)];

/// Whether a heat map shows density, not sparsity.
pub(super) fn density(spec: &spec::Figure) -> Result<bool, ReportError> {
    let wrong = |what: &str| ReportError::HeatMap { item: spec.id.clone(), what: what.to_owned() };
    if spec.series.is_some() || spec.panels.is_some() {
        return Err(wrong("has a row for each label of `x` and a panel for each tower: remove `series` and `panels`"));
    }
    match spec.y.as_str() {
        "sparsity" => Ok(false),
        "density" => Ok(true),
        other => Err(wrong(&format!("cannot show `{other}`: set `y` to `sparsity` or `density`"))),
    }
}

/// Rows and panels of a heat map: labels of `x` and stacks of blocks.
pub(super) fn panels(
    spec: &spec::Figure,
    records: &Records,
    shown: &[usize],
) -> Result<(Vec<Series>, Vec<Panel>), ReportError> {
    let density = density(spec)?;
    let labels = records.labels(shown, &spec.x);
    let mut series = Vec::new();
    let mut rows: Vec<BTreeMap<Block, Summary>> = Vec::new();
    let names = names::labels(&spec.x, &labels);
    for (label, name) in labels.iter().zip(names) {
        let here: Vec<usize> = shown.iter().copied().filter(|&p| records.label(p, &spec.x) == Some(label)).collect();
        let point = records.only(&here, &spec.y).map_err(|(axis, labels)| ReportError::Mixed {
            item: spec.id.clone(),
            axis,
            labels,
            place: format!("`{label}`"),
        })?;
        rows.push(point.map(|point| records.blocks(point)).unwrap_or_default());
        series.push(Series { label: label.clone(), name, style: palette::Style::default() });
    }
    let mut stacks: BTreeMap<(Tower, bool, &str), Vec<&Block>> = BTreeMap::new();
    let mut blocks: Vec<&Block> = rows.iter().flat_map(BTreeMap::keys).collect();
    blocks.sort_unstable();
    blocks.dedup();
    for block in blocks {
        // An encoder runs before its decoder, and a projection last, whatever the alphabet says.
        let is_last = block.stack.contains("decoder") || block.stack == PROJECTION;
        stacks.entry((block.tower, is_last, &block.stack)).or_default().push(block);
    }
    let is_of = |tower: Tower, key: &(Tower, bool, &str)| key.0 == tower && key.2 != PROJECTION;
    let of_tower = |tower: Tower| stacks.keys().filter(|key| is_of(tower, key)).count();
    let panels = stacks
        .iter()
        .map(|((tower, decoder, stack), blocks)| {
            let name = names::label("", tower.name());
            let title = match (of_tower(*tower), decoder) {
                _ if *stack == PROJECTION => "Projection".to_owned(),
                (1, _) => name,
                (_, false) => format!("{name} encoder"),
                (_, true) => format!("{name} decoder"),
            };
            let labels: Vec<String> = blocks.iter().map(|block| block.number.to_string()).collect();
            let mark = |row: &BTreeMap<Block, Summary>, block: &Block| {
                row.get(block).map(|found| match density {
                    true => Summary { mean: 1.0 - found.mean, ..*found },
                    false => *found,
                })
            };
            let marks = rows.iter().map(|row| blocks.iter().map(|block| mark(row, block)).collect()).collect();
            let published = rows.iter().map(|_| vec![None; blocks.len()]).collect();
            Panel {
                label: title.clone(),
                title: Some(title),
                names: labels.clone(),
                labels,
                positions: None,
                marks,
                published,
            }
        })
        .collect();
    Ok((series, panels))
}

/// Where everything stands, in points.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub width: f64,
    pub height: f64,
    /// Left edge and width of a column, for each panel.
    panels: Vec<(f64, f64)>,
    top: f64,
    /// Height of a row.
    row: f64,
    /// Ends of the scale of colours.
    scale: (f64, f64),
}

impl Grid {
    pub fn of(figure: &Figure) -> Self {
        let width = figure.width * 72.0;
        let left = 3.0 + figure.series.iter().map(|row| text_width(&row.name, TICK)).fold(0.0, f64::max) + 5.0;
        let right = width - BAR.0 - BAR.1 - BAR.2;
        let columns: usize = figure.panels.iter().map(|panel| panel.labels.len()).sum();
        let free = right - left - GAP * figure.panels.len().saturating_sub(1) as f64;
        let column = free / columns.max(1) as f64;
        let mut panels = Vec::new();
        let mut x = left;
        for panel in &figure.panels {
            panels.push((x, column));
            x += column * panel.labels.len() as f64 + GAP;
        }
        let top = TEXT + 7.0;
        let rows = figure.series.len() as f64;
        let row = ROW.min(HIGHEST / rows.max(1.0));
        let height = top + row * rows + TICK + 5.0 + TEXT + 5.0;
        Self { width, height, panels, top, row, scale: scale(figure) }
    }

    fn bottom(&self, figure: &Figure) -> f64 {
        self.top + self.row * figure.series.len() as f64
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.scale.0) / (self.scale.1 - self.scale.0)).clamp(0.0, 1.0)
    }
}

/// Whole tenths around all values, at least one apart.
fn scale(figure: &Figure) -> (f64, f64) {
    let values = || figure.summaries().filter(|s| s.n > 0).map(|s| s.mean);
    let (least, most) = values().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if most < least {
        return (0.0, 1.0);
    }
    let low = (least * 10.0 + 1e-9).floor().clamp(0.0, 9.0);
    (low / 10.0, (most * 10.0 - 1e-9).ceil().max(low + 1.0) / 10.0)
}

fn colour(share: f64) -> Colour {
    let at = share.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let from = (at as usize).min(RAMP.len() - 2);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (at - from as f64)).round() as u8;
    let (a, b) = (RAMP[from], RAMP[from + 1]);
    (mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

pub(super) fn draw(figure: &Figure, grid: &Grid, canvas: &mut Canvas<'_>) {
    let bottom = grid.bottom(figure);
    let y = |row: usize| grid.top + grid.row * row as f64;
    let mut free_from = f64::NEG_INFINITY;
    for (row, series) in figure.series.iter().enumerate() {
        let middle = y(row) + 0.5 * grid.row;
        // Where rows are lower than their labels, some have none.
        if middle < free_from {
            continue;
        }
        free_from = middle + TICK;
        let at = (grid.panels.first().map_or(0.0, |panel| panel.0) - 4.0, middle + 0.36 * TICK);
        canvas.text(&series.name, at, TICK, Anchor::End, INK, false);
    }
    for (panel, &(x0, column)) in figure.panels.iter().zip(&grid.panels) {
        let right = x0 + column * panel.labels.len() as f64;
        if let Some(title) = &panel.title {
            canvas.text(title, (0.5 * (x0 + right), grid.top - 4.0), TEXT, Anchor::Middle, INK, false);
        }
        for (row, marks) in panel.marks.iter().enumerate() {
            for (place, mark) in marks.iter().enumerate() {
                cell(mark.as_ref(), grid, (x0 + column * place as f64, y(row)), column, canvas);
            }
        }
        let mut free_from = f64::NEG_INFINITY;
        for (place, name) in panel.names.iter().enumerate() {
            let at = x0 + column * (place as f64 + 0.5);
            let half = 0.5 * text_width(name, TICK);
            if at - half >= free_from {
                canvas.text(name, (at, bottom + TICK + 2.5), TICK, Anchor::Middle, INK, false);
                free_from = at + half + 3.0;
            }
        }
    }
    let ends = (grid.panels.first().map_or(0.0, |p| p.0), grid.width - BAR.0 - BAR.1 - BAR.2);
    canvas.text("block", (0.5 * (ends.0 + ends.1), grid.height - 3.0), TEXT, Anchor::Middle, INK, false);
    bar(figure, grid, ends.1 + BAR.0, canvas);
}

fn cell(mark: Option<&Summary>, grid: &Grid, at: (f64, f64), width: f64, canvas: &mut Canvas<'_>) {
    let edge = if width > 6.0 && grid.row > 6.0 { 0.4 } else { 0.0 };
    let (from, to) = ((at.0 + edge, at.1 + edge), (at.0 + width - edge, at.1 + grid.row - edge));
    let baseline = (at.0 + 0.5 * width, at.1 + 0.5 * grid.row + 0.36 * VALUE);
    let Some(mark) = mark.filter(|mark| mark.n > 0) else {
        canvas.line(&[(from.0, to.1), (to.0, from.1)], FAINT, 0.5);
        return;
    };
    let share = grid.share(mark.mean);
    canvas.rect(from, to, colour(share));
    let text = whole(mark.mean) + if mark.is_incomplete() { "†" } else { "" };
    if text_width(&text, VALUE) + 2.0 <= width && VALUE <= grid.row {
        // Ink is drawn in the page's own colour, which may be light; the cells' colours do not follow it.
        let ink = if share > 0.5 { (0xFE, 0xFE, 0xFE) } else { (0x11, 0x11, 0x11) };
        canvas.text(&text, baseline, VALUE, Anchor::Middle, ink, false);
    }
}

/// A fraction in whole per cent; what is not all or nothing is never rounded to it.
fn whole(fraction: f64) -> String {
    match names::fixed(100.0 * fraction, 0).as_str() {
        "0" if fraction > 0.0 => "<1".to_owned(),
        "100" if fraction < 1.0 => ">99".to_owned(),
        text => text.to_owned(),
    }
}

/// The scale of colours.
fn bar(figure: &Figure, grid: &Grid, x: f64, canvas: &mut Canvas<'_>) {
    let (top, bottom) = (grid.top, grid.bottom(figure));
    const STEPS: usize = 40;
    let at = |step: usize| bottom - (bottom - top) * step as f64 / STEPS as f64;
    canvas.rect((x, top), (x + BAR.1, bottom), PAPER);
    for step in 0..STEPS {
        canvas.rect((x, at(step)), (x + BAR.1, at(step + 1)), colour((step as f64 + 0.5) / STEPS as f64));
    }
    for (value, y) in [(grid.scale.0, bottom), (grid.scale.1, top + 0.72 * TICK)] {
        let text = format!("{} %", names::fixed(100.0 * value, 0));
        canvas.text(&text, (x + BAR.1 + 2.5, y), TICK, Anchor::Start, INK, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_is_not_all() {
        assert_eq!([0.0, 0.001, 0.5, 0.996, 1.0].map(whole), ["0", "<1", "50", ">99", "100"]);
    }

    #[test]
    fn the_ramp_darkens_from_end_to_end() {
        let light = |share| {
            let (r, g, b) = colour(share);
            0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b)
        };
        assert!((0..20).all(|step| light(f64::from(step) / 20.0) > light(f64::from(step + 1) / 20.0)));
        assert_eq!((colour(-1.0), colour(2.0)), (RAMP[0], RAMP[3]));
    }
}

//! Figures of one value over another, such as quality over what it costs: a marker for each label, and a line through those that none beats in both.

use ressa_experiment::{output as spec, value::Value};

use super::{
    Figure, Panel, Series,
    canvas::{Anchor, Canvas, text_width},
    draw::{Row, TICK},
    is_at,
    marks::{self, step},
    palette::{FAINT, INK},
};
use crate::{ReportError, names, records::Records};

/// Room beside the outermost markers.
const INSET: f64 = 8.0;

/// The panel of some points: as many places as there are series, each with its own mark.
pub(super) fn panel(
    spec: &spec::Figure,
    records: &Records,
    series: &[Series],
    inside: &[usize],
    (label, title): (&str, Option<String>),
) -> Result<Panel, ReportError> {
    let mut panel = Panel {
        label: label.to_owned(),
        title,
        labels: series.iter().map(|one| one.label.clone()).collect(),
        names: Vec::new(),
        positions: None,
        marks: vec![vec![None; series.len()]; series.len()],
        published: vec![vec![None; series.len()]; series.len()],
    };
    let mut positions = Vec::with_capacity(series.len());
    for (at, one) in series.iter().enumerate() {
        let here: Vec<usize> =
            inside.iter().copied().filter(|&point| is_at(records, spec.series.as_ref(), &one.label, point)).collect();
        let point = records.only(&here, &spec.y).map_err(|(axis, labels)| ReportError::Mixed {
            item: spec.id.clone(),
            axis,
            labels,
            place: format!("`{}`", one.label),
        })?;
        let cost = point.and_then(|point| records.summary(point, &spec.x)).filter(|cost| cost.n > 0);
        positions.push(cost.map_or(f64::NAN, |cost| cost.mean));
        panel.marks[at][at] = point.and_then(|point| records.summary(point, &spec.y)).filter(|_| cost.is_some());
    }
    panel.positions = Some(positions);
    Ok(panel)
}

/// Points of a panel that are there: the series, the cost and the value.
fn points(panel: &Panel) -> impl Iterator<Item = (usize, f64, f64)> + '_ {
    let positions = panel.positions.as_deref().unwrap_or_default();
    positions.iter().enumerate().filter_map(|(at, &cost)| {
        let mark = panel.marks[at][at].filter(|mark| mark.n > 0 && cost.is_finite())?;
        Some((at, cost, mark.mean))
    })
}

/// Whether more is better of what stands along x, and along y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Better {
    /// Along x: costs and densities are better low.
    pub high_x: bool,
    /// Along y.
    pub high_y: bool,
}

impl Better {
    /// Of the values of a figure.
    pub(super) fn of(spec: &spec::Figure) -> Self {
        let high = |name: &str| name.parse::<Value>().is_ok_and(|value| !value.lower_is_better());
        Self { high_x: high(&spec.x), high_y: high(&spec.y) }
    }
}

/// The points that no other is better than in both, from the best along x on.
fn frontier(panel: &Panel, better: Better) -> Vec<(f64, f64)> {
    let sign = |is_high: bool| if is_high { 1.0 } else { -1.0 };
    let (along, up) = (sign(better.high_x), sign(better.high_y));
    let mut all: Vec<(f64, f64)> = points(panel).map(|(_, cost, value)| (cost, value)).collect();
    all.sort_by(|a, b| (along * b.0).total_cmp(&(along * a.0)).then((up * b.1).total_cmp(&(up * a.1))));
    let mut best = f64::NEG_INFINITY;
    all.retain(|&(_, value)| {
        let is_better = up * value > best;
        best = best.max(up * value);
        is_better
    });
    all
}

/// The dearest point of all panels, which end at the same cost.
fn most(figure: &Figure) -> f64 {
    let dearest = figure.panels.iter().flat_map(points).map(|(_, cost, _)| cost).fold(0.0, f64::max);
    if dearest > 0.0 { dearest } else { 1.0 }
}

fn place(figure: &Figure, cost: f64, (x0, x1): (f64, f64)) -> f64 {
    x0 + INSET + (x1 - x0 - 2.0 * INSET) * cost / most(figure)
}

/// Draws the markers of a panel, intervals behind them.
pub(super) fn draw(figure: &Figure, panel: &Panel, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    if points(panel).next().is_none() {
        let middle = (0.5 * (x.0 + x.1), 0.5 * (row.top + row.bottom));
        canvas.text("† no results", middle, TICK, Anchor::Middle, FAINT, false);
    }
    let best: Vec<(f64, f64)> = frontier(panel, figure.better)
        .into_iter()
        .map(|(cost, value)| (place(figure, cost, x), row.y(value)))
        .collect();
    canvas.dashed(&best, FAINT, 0.8, &[1.5, 1.5]);
    for (at, cost, _) in points(panel) {
        marks::point(figure, panel, row, at, place(figure, cost, x), canvas);
    }
}

/// Draws the scale of costs below a panel.
pub(super) fn ticks(figure: &Figure, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let most = most(figure);
    let apart = step(most);
    let mut free_from = f64::NEG_INFINITY;
    for tick in (0..).map(|n| f64::from(n) * apart).take_while(|tick| *tick <= most * 1.0001) {
        let at = place(figure, tick, x);
        canvas.line(&[(at, row.bottom), (at, row.bottom + 2.0)], INK, 0.5);
        let text = names::short(tick);
        let half = 0.5 * text_width(&text, TICK);
        if at - half >= free_from {
            canvas.text(&text, (at, row.bottom + TICK + 2.5), TICK, Anchor::Middle, INK, false);
            free_from = at + half + 3.0;
        }
    }
}

/// The numbers behind the figure, a line for each marker.
pub(super) fn csv(figure: &Figure) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail, and every record has the head's length.
    let _ = writer.write_record(["panel", "series", "x", "mean", "half_width_95", "n", "expected", "best"]);
    for panel in &figure.panels {
        let best = frontier(panel, figure.better);
        for (at, cost, value) in points(panel) {
            let Some(mark) = panel.marks[at][at] else { continue };
            let _ = writer.write_record([
                panel.label.clone(),
                figure.series[at].label.clone(),
                names::fixed(cost, 3),
                names::fixed(value, 6),
                mark.half_width.map(|half| names::fixed(half, 6)).unwrap_or_default(),
                mark.n.to_string(),
                mark.expected.to_string(),
                best.contains(&(cost, value)).to_string(),
            ]);
        }
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Summary;

    #[test]
    fn the_frontier_is_what_none_beats_in_both() {
        let summary =
            |mean: f64| Some(Summary { mean, std: 0.0, half_width: None, standard_error: 0.0, n: 1, expected: 1 });
        let (costs, values) = ([5.0, 1.0, 3.0, 3.0, 9.0], [80.0, 60.0, 75.0, 70.0, 80.0]);
        let mut marks = vec![vec![None; 5]; 5];
        values.iter().enumerate().for_each(|(at, value)| marks[at][at] = summary(*value));
        let panel = Panel {
            label: String::new(),
            title: None,
            labels: vec![String::new(); 5],
            names: Vec::new(),
            positions: Some(costs.to_vec()),
            published: vec![vec![None; 5]; 5],
            marks,
        };
        let better = |high_x, high_y| Better { high_x, high_y };
        assert_eq!(frontier(&panel, better(false, true)), [(1.0, 60.0), (3.0, 75.0), (5.0, 80.0)]);
        assert_eq!(frontier(&panel, better(true, true)), [(9.0, 80.0)]);
        assert_eq!(frontier(&panel, better(true, false)), [(9.0, 80.0), (3.0, 70.0), (1.0, 60.0)]);
    }
}

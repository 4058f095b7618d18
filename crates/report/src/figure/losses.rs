//! Losses of trainings by step: a line is the mean over the trainings of a series, shaded by one standard deviation. Neighbouring steps are
//! averaged where there are more than can be told apart, which also smooths.

use std::collections::BTreeMap;

use ressa_experiment::{StageKey, output as spec};

use super::{
    Figure, Panel,
    canvas::{Anchor, Canvas, text_width},
    draw::{Row, TICK},
    is_at, marks,
    palette::{FAINT, INK},
    panel_labels, series,
};
use crate::{
    ReportError, names,
    published::Scale,
    records::{Curve, Records, Summary},
    statistics,
};

/// Points of all panels together, and the minimum of one.
const POINTS: (u32, u32) = (120, 30);
/// Markers on a line, which tell series of one colour apart.
const MARKERS: usize = 6;

/// Space beside the first and the last step, for the halves of their labels.
const INSET: f64 = 8.0;

/// Trainings behind a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Distinct trainings that the figure is about.
    pub planned: usize,
    /// Those whose losses were read.
    pub read: usize,
    /// Those that ran and have no losses that can be read.
    pub unreadable: usize,
    /// Steps of the longest.
    pub steps: u32,
    /// Steps that are averaged to one point.
    pub bin: u32,
}

/// Builds a figure of losses from the trainings of some points.
pub(super) fn build(
    spec: &spec::Figure,
    records: &Records,
    shown: &[usize],
    scale: Scale,
) -> Result<Figure, ReportError> {
    let trained = |point: &usize| records.trainings.of(*point, &spec.y).next().is_some();
    let labelled = |point: &usize| spec.axes().all(|axis| records.label(*point, axis).is_some());
    let shown: Vec<usize> = shown.iter().copied().filter(|point| trained(point) && labelled(point)).collect();
    let series = series(spec, records, &shown)?;
    let (panel_labels, titles) = panel_labels(spec, records, &shown)?;

    let mut curves: BTreeMap<StageKey, Curve> = BTreeMap::new();
    for key in shown.iter().flat_map(|&point| records.trainings.of(point, &spec.y)) {
        if !curves.contains_key(key) {
            curves.insert(*key, records.trainings.curve(key, &spec.y)?);
        }
    }
    let lengths = curves.values().filter_map(|curve| match curve {
        Curve::Read(values) => Some(values.len() as u32),
        Curve::Missing | Curve::Unreadable => None,
    });
    let steps = lengths.clone().max().unwrap_or_default();
    let points = (POINTS.0 / panel_labels.len().max(1) as u32).max(POINTS.1);
    let found = Found {
        planned: curves.len(),
        read: lengths.count(),
        unreadable: curves.values().filter(|curve| **curve == Curve::Unreadable).count(),
        steps,
        bin: steps.div_ceil(points).max(1),
    };

    let positions = middles(found);
    let labels: Vec<String> = positions.iter().map(f64::to_string).collect();
    let mut panels = Vec::new();
    for (label, title) in panel_labels.into_iter().zip(titles) {
        let marks = series.iter().map(|one| {
            let here = shown.iter().filter(|&&point| {
                is_at(records, spec.panels.as_ref(), &label, point)
                    && is_at(records, spec.series.as_ref(), &one.label, point)
            });
            let mut keys: Vec<&StageKey> = here.flat_map(|&point| records.trainings.of(point, &spec.y)).collect();
            keys.sort_unstable();
            keys.dedup();
            means(&keys.into_iter().map(|key| &curves[key]).collect::<Vec<_>>(), found)
        });
        let marks: Vec<Vec<Option<Summary>>> = marks.collect();
        let published = marks.iter().map(|row| vec![None; row.len()]).collect();
        let (names, positions) = (labels.clone(), Some(positions.clone()));
        panels.push(Panel { label, title, labels: labels.clone(), names, positions, marks, published });
    }
    let mut figure = Figure::new(spec, series, panels, None, scale);
    figure.trainings = found;
    figure.caption.push_str(&caption(&figure));
    if !figure.description.ends_with('.') {
        figure.description.push('.');
    }
    figure.description.push_str(&description(&figure));
    Ok(figure)
}

/// Steps in the middle of each point's, counted from 1.
fn middles(found: Found) -> Vec<f64> {
    let starts = (0..found.steps).step_by(found.bin as usize);
    starts.map(|start| f64::from(start + 1 + (start + found.bin).min(found.steps)) / 2.0).collect()
}

/// Means over trainings at each point; those that end earlier have no say from there on.
fn means(curves: &[&Curve], found: Found) -> Vec<Option<Summary>> {
    let bin = found.bin as usize;
    let of_point = |point: usize| {
        let value = |curve: &&Curve| match curve {
            Curve::Read(values) => values.chunks(bin).nth(point).map(|chunk| statistics::mean_std(chunk).0),
            Curve::Missing | Curve::Unreadable => None,
        };
        let values: Vec<f64> = curves.iter().filter_map(value).collect();
        let (mean, std) = statistics::mean_std(&values);
        let (n, expected) = (values.len(), curves.len());
        (n > 0).then_some(Summary { mean, std, half_width: None, standard_error: 0.0, n, expected })
    };
    (0..found.steps.div_ceil(found.bin) as usize).map(of_point).collect()
}

/// What is shaded on either side of a mean.
pub(super) fn spread(summary: &Summary) -> f64 {
    if summary.n > 1 { summary.std } else { 0.0 }
}

/// What the caption says beyond the title.
fn caption(figure: &Figure) -> String {
    let found = figure.trainings;
    let counts = || figure.summaries().map(|summary| summary.n);
    let mut text = match (counts().min(), counts().max()) {
        (Some(_), Some(1)) => " One training each.".to_owned(),
        (Some(low), Some(high)) => {
            let n = if low == high { high.to_string() } else { format!("{low} to {high}") };
            format!(" Means over n = {n} trainings; shaded: one standard deviation over them.")
        }
        _ => String::new(),
    };
    if found.bin > 1 {
        text += &format!(" Each point is the mean of {} steps.", found.bin);
    }
    if found.read < found.planned {
        text += &format!(" † incomplete: {} of {} trainings are there.", found.read, found.planned);
    }
    text
}

/// First and last value of every line, in words.
fn description(figure: &Figure) -> String {
    let mut text = String::new();
    for panel in &figure.panels {
        for (series, marks) in figure.series.iter().zip(&panel.marks) {
            let there = || marks.iter().flatten();
            let (Some(first), Some(last)) = (there().next(), there().next_back()) else { continue };
            let place = [panel.title.as_deref().unwrap_or_default(), &series.name];
            let place: Vec<&str> = place.into_iter().filter(|name| !name.is_empty()).collect();
            let place = if place.is_empty() { "All trainings".to_owned() } else { place.join(", ") };
            let number = |summary: &Summary| names::fixed(summary.mean, figure.decimals);
            text += &format!(" {place}: from {} to {}.", number(first), number(last));
        }
    }
    text
}

/// The numbers behind the figure, a line per point.
pub(super) fn csv(figure: &Figure) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory cannot fail, and every record has the head's length.
    let _ = writer.write_record(["panel", "series", "step", "mean", "std", "n", "expected"]);
    for panel in &figure.panels {
        for (series, marks) in figure.series.iter().zip(&panel.marks) {
            for (step, mark) in panel.labels.iter().zip(marks) {
                let Some(summary) = mark else { continue };
                let _ = writer.write_record([
                    panel.label.clone(),
                    series.label.clone(),
                    step.clone(),
                    names::fixed(summary.mean, 6),
                    if summary.n > 1 { names::fixed(summary.std, 6) } else { String::new() },
                    summary.n.to_string(),
                    summary.expected.to_string(),
                ]);
            }
        }
    }
    String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
}

/// Where a step stands along x.
fn place(figure: &Figure, step: f64, (x0, x1): (f64, f64)) -> f64 {
    x0 + INSET + (x1 - x0 - 2.0 * INSET) * step / f64::from(figure.trainings.steps.max(1))
}

/// Draws the lines of a panel.
pub(super) fn draw(figure: &Figure, panel: &Panel, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let positions = panel.positions.as_deref().unwrap_or_default();
    let lines = || {
        figure.series.iter().zip(&panel.marks).map(|(series, marks)| {
            let points =
                positions.iter().zip(marks).filter_map(|(step, mark)| Some((place(figure, *step, x), (*mark)?)));
            (series, points.collect::<Vec<(f64, Summary)>>())
        })
    };
    if lines().all(|(_, points)| points.is_empty()) {
        let middle = (0.5 * (x.0 + x.1), 0.5 * (row.top + row.bottom));
        canvas.text("† no losses", middle, TICK, Anchor::Middle, FAINT, false);
    }
    // What is shaded stands behind all lines.
    for (series, points) in lines() {
        let edge = |sign: f64| move |(x, mark): &(f64, Summary)| (*x, row.y(mark.mean + sign * spread(mark)));
        let corners: Vec<(f64, f64)> =
            points.iter().map(edge(1.0)).chain(points.iter().rev().map(edge(-1.0))).collect();
        if points.iter().any(|(_, mark)| spread(mark) > 0.0) {
            canvas.shade(&corners, series.style.colour);
        }
    }
    for (at, (series, points)) in lines().enumerate() {
        let path: Vec<(f64, f64)> = points.iter().map(|(x, mark)| (*x, row.y(mark.mean))).collect();
        canvas.dashed(&path, series.style.colour, 1.1, series.style.dash);
        // Markers of different series stand at different places, where lines lie on each other.
        let apart = path.len().div_ceil(MARKERS);
        let first = apart * at / figure.series.len();
        for point in path.iter().skip(first).step_by(apart.max(1)) {
            canvas.marker(series.style.marker, *point, 2.0, series.style.colour, false);
        }
    }
}

/// Draws the scale of steps below a panel.
pub(super) fn ticks(figure: &Figure, row: &Row, x: (f64, f64), canvas: &mut Canvas<'_>) {
    let steps = figure.trainings.steps;
    let apart = marks::step(f64::from(steps.max(1))).max(1.0);
    let mut free_from = f64::NEG_INFINITY;
    for tick in (0..).map(|n| f64::from(n) * apart).take_while(|tick| *tick <= f64::from(steps)) {
        let at = place(figure, tick, x);
        canvas.line(&[(at, row.bottom), (at, row.bottom + 2.0)], INK, 0.5);
        let text = names::fixed(tick, 0);
        let half = 0.5 * text_width(&text, TICK);
        if at - half >= free_from {
            canvas.text(&text, (at, row.bottom + TICK + 2.5), TICK, Anchor::Middle, INK, false);
            free_from = at + half + 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(steps: u32, bin: u32) -> Found {
        Found { steps, bin, ..Found::default() }
    }

    #[test]
    fn steps_are_averaged_and_short_trainings_end() {
        assert_eq!(middles(found(5, 2)), [1.5, 3.5, 5.0]);
        let (long, short) = (Curve::Read(vec![8.0, 6.0, 4.0, 2.0, 1.0]), Curve::Read(vec![4.0, 2.0]));
        let means = means(&[&long, &short, &Curve::Missing], found(5, 2));
        let told: Vec<(f64, usize, usize)> = means.iter().flatten().map(|s| (s.mean, s.n, s.expected)).collect();
        assert_eq!(told, [(5.0, 2, 3), (3.0, 1, 3), (1.0, 1, 3)]);
        assert!(spread(&means[0].unwrap()) > 0.0 && spread(&means[1].unwrap()) == 0.0);
    }
}

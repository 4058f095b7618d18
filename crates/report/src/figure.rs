//! The figure model: what every renderer draws.
//!
//! Panels stand side by side on one scale. Where the paper published the same quantity, its numbers are hollow marks: beside ours where the
//! experiment is of the paper's scale, otherwise in a second, lower row on a scale of their own, so that shapes can be compared and levels cannot
//! be mistaken.

pub mod canvas;
pub mod draw;
mod heat;
mod losses;
mod marks;
pub mod output;
pub mod palette;
mod scatter;

use ressa_experiment::output::{self as spec, FigureKind, Width};

use crate::{
    ReportError, names,
    published::{Published, Scale},
    records::{Records, Summary},
};

/// A figure ready to be drawn.
#[derive(Clone, Debug)]
pub struct Figure {
    /// File name stem.
    pub id: String,
    /// Caption.
    pub caption: String,
    /// Text for those who cannot see it.
    pub description: String,
    /// What is drawn.
    pub kind: FigureKind,
    /// Width in inches.
    pub width: f64,
    /// Text of the x axis.
    pub x_title: String,
    /// Text of the y axis.
    pub y_title: String,
    /// Digits of printed values.
    pub decimals: usize,
    /// What the colours mean, in file order.
    pub series: Vec<Series>,
    /// Panels, left to right.
    pub panels: Vec<Panel>,
    /// A dashed line across all panels: its name and height.
    pub baseline: Option<Baseline>,
    /// What the value along y cannot exceed, if anything.
    pub ceiling: Option<f64>,
    /// What the paper's numbers are to ours.
    pub scale: Scale,
    /// Trainings behind a figure of losses.
    pub trainings: losses::Found,
    /// What is better in a figure of one value over another.
    pub better: scatter::Better,
}

/// A dashed line.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Name of the `include` point.
    pub label: String,
    /// The reader's name.
    pub name: String,
    /// Mean of its value.
    pub height: f64,
}

/// One colour.
#[derive(Clone, Debug)]
pub struct Series {
    /// Label of the axis.
    pub label: String,
    /// The reader's name; empty for the only series of a figure without a `series` axis.
    pub name: String,
    /// Colour and marker.
    pub style: palette::Style,
}

/// One panel.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Label of the axis; empty for the only panel of a figure without a `panels` axis.
    pub label: String,
    /// Text above it.
    pub title: Option<String>,
    /// Labels along x.
    pub labels: Vec<String>,
    /// The reader's names of the labels.
    pub names: Vec<String>,
    /// Numeric positions along x, where every label is a number and the figure has lines; in a scatter the value along x of each series, NaN where there is
    /// none.
    pub positions: Option<Vec<f64>>,
    /// Measurements: one list per series, one entry per label.
    pub marks: Vec<Vec<Option<Summary>>>,
    /// The paper's numbers, likewise.
    pub published: Vec<Vec<Option<f64>>>,
}

impl Figure {
    /// Whether values along x are numbers that stand at equal distances, because some lie too near to each other.
    pub fn is_crowded(&self) -> bool {
        self.kind == FigureKind::Lines && self.panels.iter().any(|panel| is_crowded(&panel.labels))
    }

    /// Builds a figure from the records.
    pub fn build(spec: &spec::Figure, records: &Records, published: &Published) -> Result<Self, ReportError> {
        let baseline_points: Vec<usize> = spec.baseline.iter().flat_map(|name| records.named(name)).collect();
        let shown: Vec<usize> =
            records.select(&spec.only).into_iter().filter(|point| !baseline_points.contains(point)).collect();
        if spec.kind == FigureKind::Losses {
            return losses::build(spec, records, &shown, published.scale);
        }
        let is_scatter = spec.kind == FigureKind::Scatter;
        let shown: Vec<usize> =
            shown.into_iter().filter(|&p| is_scatter || records.label(p, &spec.x).is_some()).collect();
        if spec.kind == FigureKind::HeatMap {
            let (series, panels) = heat::panels(spec, records, &shown)?;
            return Ok(Self::new(spec, series, panels, None, published.scale));
        }

        let series = series(spec, records, &shown)?;
        let (panel_labels, titles) = panel_labels(spec, records, &shown)?;
        let mut panels = Vec::new();
        let on = |axis: &Option<String>, label: &str, point: usize| is_at(records, axis.as_ref(), label, point);
        for (panel, title) in panel_labels.iter().zip(titles) {
            let inside: Vec<usize> = shown.iter().copied().filter(|&p| on(&spec.panels, panel, p)).collect();
            if is_scatter {
                panels.push(scatter::panel(spec, records, &series, &inside, (panel, title))?);
                continue;
            }
            let labels = sorted_if_numeric(records.labels(&inside, &spec.x), spec.kind);
            let mut marks = Vec::new();
            let mut beside = Vec::new();
            for one in &series {
                let mut row = Vec::new();
                let mut paper = Vec::new();
                for label in &labels {
                    let here: Vec<usize> = inside
                        .iter()
                        .copied()
                        .filter(|&p| on(&spec.series, &one.label, p) && records.label(p, &spec.x) == Some(label))
                        .collect();
                    let point = records.only(&here, &spec.y).map_err(|(axis, labels)| ReportError::Mixed {
                        item: spec.id.clone(),
                        axis,
                        labels,
                        place: format!("`{label}`, `{}`", one.label),
                    })?;
                    row.push(point.and_then(|point| records.summary(point, &spec.y)));
                    paper.push(published.find(&spec.published, &spec.y, &[label, &one.label]));
                }
                marks.push(row);
                beside.push(paper);
            }
            panels.push(Panel {
                label: panel.clone(),
                title,
                names: names::labels(&spec.x, &labels),
                positions: positions(&labels, spec.kind),
                labels,
                marks,
                published: beside,
            });
        }
        let baseline = baseline_points.iter().find_map(|&point| {
            let summary = records.summary(point, &spec.y).filter(|s| s.n > 0)?;
            let label = spec.baseline.clone()?;
            Some(Baseline { name: names::label("", &label), label, height: summary.mean })
        });
        Ok(Self::new(spec, series, panels, baseline, published.scale))
    }

    fn new(
        spec: &spec::Figure,
        series: Vec<Series>,
        panels: Vec<Panel>,
        baseline: Option<Baseline>,
        scale: Scale,
    ) -> Self {
        let (y_title, decimals) = match spec.kind {
            FigureKind::Losses => (names::loss(&spec.y), 3),
            _ => names::value(&spec.y),
        };
        let mut figure = Self {
            id: spec.id.clone(),
            caption: String::new(),
            description: String::new(),
            kind: spec.kind,
            width: match spec.width {
                Width::Single => 3.3,
                Width::Double => 6.9,
            },
            x_title: spec.x_label.clone().unwrap_or_else(|| match spec.kind {
                FigureKind::Scatter => names::value(&spec.x).0.to_lowercase(),
                _ => names::axis(&spec.x).to_lowercase(),
            }),
            y_title: spec.y_label.clone().unwrap_or(y_title),
            decimals,
            series,
            panels,
            baseline,
            ceiling: names::ceiling(&spec.y),
            scale,
            trainings: losses::Found::default(),
            better: scatter::Better::of(spec),
        };
        let title = spec.title.clone().unwrap_or_else(|| format!("{} by {}.", figure.y_title, figure.x_title));
        figure.caption = caption(&figure, title.trim());
        figure.description = title.trim().to_owned();
        figure
    }

    /// Whether the paper's numbers stand beside.
    pub fn has_published(&self) -> bool {
        self.panels.iter().flat_map(|panel| &panel.published).flatten().any(Option::is_some)
    }

    /// Whether they stand in a row of panels below ours.
    pub fn has_lower_row(&self) -> bool {
        self.scale == Scale::Other && self.has_published()
    }

    /// Every text that is drawn.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let panels = self.panels.iter().flat_map(|panel| panel.title.iter().chain(&panel.names));
        let baseline = self.baseline.iter().map(|baseline| &baseline.name);
        let series = self.series.iter().map(|series| &series.name);
        [&self.x_title, &self.y_title].into_iter().chain(series).chain(panels).chain(baseline).map(String::as_str)
    }

    /// Characters that the figures' font has no glyph for, in the order they appear: PNG and PDF show a box for each.
    pub fn boxes(&self) -> Vec<char> {
        let mut found = Vec::new();
        for c in self.texts().flat_map(str::chars) {
            if !canvas::has_glyph(c) && !c.is_control() && !found.contains(&c) {
                found.push(c);
            }
        }
        found
    }

    /// Every measurement.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.panels.iter().flat_map(|panel| &panel.marks).flatten().flatten()
    }

    /// The numbers behind the figure, one line per mark.
    pub fn csv(&self) -> String {
        if self.kind == FigureKind::Losses {
            return losses::csv(self);
        }
        if self.kind == FigureKind::Scatter {
            return scatter::csv(self);
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head =
            ["panel", "series", "x", "mean", "half_width_95", "n", "expected", "standard_error", self.scale.column()];
        // Writing to memory cannot fail, and every record has the head's length.
        let _ = writer.write_record(head);
        for panel in &self.panels {
            for (at, series) in self.series.iter().enumerate() {
                for (x, label) in panel.labels.iter().enumerate() {
                    let summary = panel.marks[at][x].filter(|s| s.n > 0);
                    let number =
                        |of: fn(&Summary) -> f64| summary.as_ref().map(|s| names::fixed(of(s), 6)).unwrap_or_default();
                    let half_width = summary.and_then(|s| s.half_width).map(|h| names::fixed(h, 6));
                    let planned = panel.marks[at][x];
                    let _ = writer.write_record([
                        panel.label.clone(),
                        series.label.clone(),
                        label.clone(),
                        number(|s| s.mean),
                        half_width.unwrap_or_default(),
                        planned.map(|s| s.n.to_string()).unwrap_or_default(),
                        planned.map(|s| s.expected.to_string()).unwrap_or_default(),
                        number(|s| s.standard_error),
                        panel.published[at][x].map(|p| names::fixed(p, 1)).unwrap_or_default(),
                    ]);
                }
            }
        }
        if let Some(Baseline { label, height, .. }) = &self.baseline {
            let mut record = vec![String::new(); head.len()];
            record[1].clone_from(label);
            record[3] = names::fixed(*height, 6);
            let _ = writer.write_record(&record);
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

/// Whether a figure's keys fit its kind.
///
/// # Errors
/// [`ReportError::HeatMap`] for one that shows another value, or that has series or panels.
pub(crate) fn check(spec: &spec::Figure) -> Result<(), ReportError> {
    if spec.kind == FigureKind::HeatMap { heat::density(spec).map(drop) } else { Ok(()) }
}

/// Whether the panels of a figure have room side by side, 20 points each at the least.
///
/// # Errors
/// [`ReportError::Crowded`] where they have not.
pub(crate) fn fits(spec: &spec::Figure, panels: usize) -> Result<(), ReportError> {
    let most = match spec.width {
        Width::Single => 6,
        Width::Double => 13,
    };
    if panels <= most { Ok(()) } else { Err(ReportError::Crowded { item: spec.id.clone(), panels, most }) }
}

/// The labels of the axis behind the colours, with their looks.
fn series(spec: &spec::Figure, records: &Records, shown: &[usize]) -> Result<Vec<Series>, ReportError> {
    let labels = spec.series.as_ref().map_or_else(|| vec![String::new()], |axis| records.labels(shown, axis));
    let styles = styles(spec, records, &labels)?;
    let names = match &spec.series {
        Some(axis) => names::labels(axis, &labels),
        None => vec![String::new()],
    };
    let looks = labels.into_iter().zip(names).zip(styles);
    Ok(looks.map(|((label, name), style)| Series { label, name, style }).collect())
}

/// The labels of the axis behind the panels, with their titles.
fn panel_labels(
    spec: &spec::Figure,
    records: &Records,
    shown: &[usize],
) -> Result<(Vec<String>, Vec<Option<String>>), ReportError> {
    let labels = spec.panels.as_ref().map_or_else(|| vec![String::new()], |axis| records.labels(shown, axis));
    fits(spec, labels.len())?;
    let titles = match &spec.panels {
        Some(axis) => panel_titles(axis, &labels).into_iter().map(Some).collect(),
        None => vec![None],
    };
    Ok((labels, titles))
}

/// Whether a point stands at a label of an axis; without an axis, all do.
fn is_at(records: &Records, axis: Option<&String>, label: &str, point: usize) -> bool {
    axis.is_none_or(|axis| records.label(point, axis) == Some(label))
}

/// One style for each label that is shown. They are chosen for the whole axis, so that the figures of an experiment agree, or, where that has more
/// labels than there are styles, for those that are shown.
fn styles(spec: &spec::Figure, records: &Records, shown: &[String]) -> Result<Vec<palette::Style>, ReportError> {
    let all: Vec<usize> = (0..records.points.len()).collect();
    let axis = spec.series.as_ref().map(|axis| records.labels(&all, axis)).unwrap_or_default();
    if let Some(styles) = palette::styles(&axis)
        && let Some(chosen) =
            shown.iter().map(|label| Some(styles[axis.iter().position(|other| other == label)?])).collect()
    {
        return Ok(chosen);
    }
    palette::styles(shown).ok_or_else(|| ReportError::TooMany { item: spec.id.clone(), series: shown.len() })
}

/// `Sum 100 %` where a bare number would say too little, else the label's name alone.
fn panel_titles(axis: &str, labels: &[String]) -> Vec<String> {
    let title = |(label, name): (&String, String)| match label.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("{} {name}", names::axis(axis)),
        false => name,
    };
    labels.iter().zip(names::labels(axis, labels)).map(title).collect()
}

fn caption(figure: &Figure, title: &str) -> String {
    let mut parts = vec![title.to_owned()];
    if !title.ends_with('.') {
        parts[0].push('.');
    }
    if figure.kind == FigureKind::Losses {
        return parts.remove(0);
    }
    if let Some(replicates) = crate::evidence::replicates(figure.summaries()).filter(|r| r.several) {
        let is_map = figure.kind == FigureKind::HeatMap;
        let single = match (replicates.single, is_map) {
            (false, _) => "",
            (true, true) => " (n = 1 where a setting does not depend on the seed)",
            (true, false) => " (n = 1, without a bar, where a setting does not depend on the seed)",
        };
        let bars = if is_map { "" } else { "; error bars: 95 % t-interval over seeds, on these test items" };
        parts.push(format!("Means over n = {} replicate seeds{single}{bars}.", replicates.n));
    }
    if let Some(baseline) = &figure.baseline {
        parts.push(format!("Dashed: {}.", baseline.name.to_lowercase()));
    }
    if figure.has_published() {
        let place = if figure.has_lower_row() { ", below" } else { "" };
        parts.push(format!("Hollow{place}: {}.", figure.scale.mark()));
    }
    if figure.kind == FigureKind::Scatter {
        parts.push("Dotted: what none beats in both.".to_owned());
    }
    if figure.is_crowded() {
        parts.push("Values along x stand at equal distances, as some lie too near to each other.".to_owned());
    }
    if figure.summaries().any(Summary::is_incomplete) {
        parts.push("† incomplete: not every planned measurement is there.".to_owned());
    }
    parts.join(" ")
}

/// Numbers that labels stand for, such as `0.5` or `50 %`: `None` unless all are finite numbers, all or none of them in per cent, and far enough
/// apart to be told from each other on one axis.
fn numbers(labels: &[String]) -> Option<Vec<f64>> {
    let (numbers, nearest) = spaced(labels)?;
    (nearest > NEAREST).then_some(numbers)
}

/// Whether labels are numbers of which some lie too near to each other for one axis, so that they stand at equal distances.
fn is_crowded(labels: &[String]) -> bool {
    spaced(labels).is_some_and(|(_, nearest)| nearest > 0.0 && nearest <= NEAREST)
}

/// Numbers that labels stand for, and the least distance of two as a share of the largest.
fn spaced(labels: &[String]) -> Option<(Vec<f64>, f64)> {
    let in_percent = |label: &String| label.trim_end().ends_with('%');
    let is_uniform = labels.iter().all(in_percent) || !labels.iter().any(in_percent);
    let number = |label: &String| label.trim().trim_end_matches('%').trim_end().parse::<f64>().ok();
    let numbers: Vec<f64> = labels.iter().map(number).collect::<Option<_>>()?;
    let mut sorted = numbers.clone();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (*sorted.first()?, *sorted.last()?);
    let nearest = sorted.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let span = high - low;
    (is_uniform && span.is_finite()).then_some((numbers, nearest / span))
}

/// Least distance of two numbers on one axis, as a share of its length: a quarter of a point in a figure of one column.
const NEAREST: f64 = 1e-3;

fn positions(labels: &[String], kind: FigureKind) -> Option<Vec<f64>> {
    if kind != FigureKind::Lines || labels.len() < 2 {
        return None;
    }
    numbers(labels)
}

fn sorted_if_numeric(labels: Vec<String>, kind: FigureKind) -> Vec<String> {
    let Some(numbers) = positions(&labels, kind) else { return labels };
    let mut numbered: Vec<(f64, String)> = numbers.into_iter().zip(labels).collect();
    numbered.sort_by(|a, b| a.0.total_cmp(&b.0));
    numbered.into_iter().map(|(_, label)| label).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_crowded, numbers};

    #[test]
    fn an_axis_is_numeric_where_every_label_is_a_number_of_its_own() {
        let of = |labels: &[&str]| numbers(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["0.5", "0.7"]), Some(vec![0.5, 0.7]));
        assert_eq!(of(&["10 %", "5%"]), Some(vec![10.0, 5.0]));
        assert_eq!(of(&["1e2", "-3", "4"]), Some(vec![100.0, -3.0, 4.0]));
        for labels in [
            &["1", "10", "inf"][..],
            &["1", "nan"],
            &["1", "1e400"],
            &["-1e308", "1e308"],
            &["0.5", "50%", "60%"],
            &["1", "1.0"],
            &["0", "-0"],
            &["1", "2", "1e9"],
            &["2:4", "4:8"],
        ] {
            assert_eq!(of(labels), None, "{labels:?}");
        }
    }

    #[test]
    fn numbers_that_would_fall_together_are_told_from_words() {
        let of = |labels: &[&str]| is_crowded(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        assert!(of(&["1", "2", "1e9"]) && of(&["0.5", "0.5001", "1"]));
        for labels in [&["1", "2", "3"][..], &["1", "1.0", "2"], &["a", "b"], &["1", "inf"], &["2:4", "4:8"], &["7"]] {
            assert!(!of(labels), "{labels:?}");
        }
    }
}

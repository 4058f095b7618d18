//! The figure model: what every renderer draws.
//!
//! Panels stand side by side on one scale. Where the paper published the same quantity, a second, lower row repeats the panels with its
//! numbers as hollow marks on their own scale, so that shapes can be compared and levels cannot be mistaken.

pub mod canvas;
pub mod draw;
mod heat;
mod marks;
pub mod output;
pub mod palette;

use ressa_experiment::output::{self as spec, FigureKind, Width};

use crate::{
    ReportError, names,
    published::Published,
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
    /// Bars, lines or colours.
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
    pub baseline: Option<(String, f64)>,
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
    /// Text above it.
    pub title: Option<String>,
    /// Labels along x.
    pub labels: Vec<String>,
    /// The reader's names of the labels.
    pub names: Vec<String>,
    /// Numeric positions along x, where every label is a number and the figure has lines.
    pub positions: Option<Vec<f64>>,
    /// Measurements: one list per series, one entry per label.
    pub marks: Vec<Vec<Option<Summary>>>,
    /// The paper's numbers, likewise.
    pub published: Vec<Vec<Option<f64>>>,
}

impl Figure {
    /// Builds a figure from the records.
    pub fn build(spec: &spec::Figure, records: &Records, published: &Published) -> Result<Self, ReportError> {
        let baseline_points: Vec<usize> = spec.baseline.iter().flat_map(|name| records.named(name)).collect();
        let shown: Vec<usize> =
            records.select(&spec.only).into_iter().filter(|point| !baseline_points.contains(point)).collect();
        let shown: Vec<usize> = shown.into_iter().filter(|&p| records.label(p, &spec.x).is_some()).collect();

        if spec.kind == FigureKind::HeatMap {
            let (series, panels) = heat::panels(spec, records, &shown)?;
            return Ok(Self::new(spec, series, panels, None));
        }

        let series_labels = spec.series.as_ref().map_or_else(|| vec![String::new()], |a| records.labels(&shown, a));
        let styles = palette::styles(&series_labels);
        let series: Vec<Series> = series_labels
            .iter()
            .zip(styles)
            .map(|(label, style)| {
                let name = spec.series.as_ref().map(|axis| names::label(axis, label)).unwrap_or_default();
                Series { label: label.clone(), name, style }
            })
            .collect();
        let panel_labels = spec.panels.as_ref().map_or_else(|| vec![String::new()], |a| records.labels(&shown, a));

        let mut panels = Vec::new();
        for panel in &panel_labels {
            let on = |axis: &Option<String>, label: &str, point: usize| {
                axis.as_ref().is_none_or(|axis| records.label(point, axis) == Some(label))
            };
            let inside: Vec<usize> = shown.iter().copied().filter(|&p| on(&spec.panels, panel, p)).collect();
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
                title: spec.panels.as_ref().map(|axis| panel_title(axis, panel)),
                names: labels.iter().map(|label| names::label(&spec.x, label)).collect(),
                positions: positions(&labels, spec.kind),
                labels,
                marks,
                published: beside,
            });
        }
        let baseline = baseline_points.iter().find_map(|&point| {
            let summary = records.summary(point, &spec.y).filter(|s| s.n > 0)?;
            Some((names::label("", spec.baseline.as_ref()?), summary.mean))
        });
        Ok(Self::new(spec, series, panels, baseline))
    }

    fn new(spec: &spec::Figure, series: Vec<Series>, panels: Vec<Panel>, baseline: Option<(String, f64)>) -> Self {
        let (y_title, decimals) = names::value(&spec.y);
        let mut figure = Self {
            id: spec.id.clone(),
            caption: String::new(),
            description: String::new(),
            kind: spec.kind,
            width: match spec.width {
                Width::Single => 3.3,
                Width::Double => 6.9,
            },
            x_title: spec.x_label.clone().unwrap_or_else(|| names::axis(&spec.x).to_lowercase()),
            y_title: spec.y_label.clone().unwrap_or(y_title),
            decimals,
            series,
            panels,
            baseline,
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

    /// Every measurement.
    pub fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.panels.iter().flat_map(|panel| &panel.marks).flatten().flatten()
    }

    /// The numbers behind the figure, one line per mark.
    pub fn csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head = [
            "panel",
            "series",
            "x",
            "mean",
            "half_width_95",
            "n",
            "expected",
            "standard_error",
            "published_other_scale",
        ];
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
                        panel.title.clone().unwrap_or_default(),
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
        if let Some((name, height)) = &self.baseline {
            let mut record = vec![String::new(); head.len()];
            record[1] = name.clone();
            record[3] = names::fixed(*height, 6);
            let _ = writer.write_record(&record);
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

/// `Sum 100 %` where a bare number would say too little, else the label's name alone.
fn panel_title(axis: &str, label: &str) -> String {
    let name = names::label(axis, label);
    if label.starts_with(|c: char| c.is_ascii_digit()) { format!("{} {name}", names::axis(axis)) } else { name }
}

fn caption(figure: &Figure, title: &str) -> String {
    let mut parts = vec![title.to_owned()];
    if !title.ends_with('.') {
        parts[0].push('.');
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
    if let Some((name, _)) = &figure.baseline {
        parts.push(format!("Dashed: {}.", name.to_lowercase()));
    }
    if figure.has_published() {
        parts.push(format!("Hollow, below: {}.", crate::published::MARK));
    }
    if figure.summaries().any(Summary::is_incomplete) {
        parts.push("† incomplete: not every planned measurement is there.".to_owned());
    }
    parts.join(" ")
}

/// Numbers that a label stands for: `0.5`, `50`, `50%`.
fn as_number(label: &str) -> Option<f64> {
    label.trim().trim_end_matches('%').trim_end().parse().ok()
}

fn positions(labels: &[String], kind: FigureKind) -> Option<Vec<f64>> {
    if kind != FigureKind::Lines || labels.len() < 2 {
        return None;
    }
    labels.iter().map(|label| as_number(label)).collect()
}

fn sorted_if_numeric(mut labels: Vec<String>, kind: FigureKind) -> Vec<String> {
    if positions(&labels, kind).is_some() {
        labels.sort_by(|a, b| as_number(a).unwrap_or(0.0).total_cmp(&as_number(b).unwrap_or(0.0)));
    }
    labels
}

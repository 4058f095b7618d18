//! Mistakes of tables and figures that can be known before anything runs: what a place would show follows from the keys of stages alone.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use ressa_experiment::{
    Cell, Experiment,
    output::{FigureKind, Where},
    value::Value,
};

use crate::{
    ReportError,
    figure::{self, palette},
    measure,
    published::Published,
    records::is_trained,
    study::Study,
    study_of,
};

/// What a table or figure shows: the labels that make a place, and the values.
struct Item<'a> {
    id: &'a str,
    only: &'a Where,
    baseline: Option<&'a str>,
    axes: Vec<&'a str>,
    values: Vec<Value>,
    /// Whether every value has a column of its own.
    by_value: bool,
}

/// Checks the tables, figures and claims of an experiment against its grid.
///
/// # Errors
/// What [`crate::render`] would refuse for other reasons than results and the disk: an unknown axis or value, a place that would average over an
/// axis that it does not show, more series than there are styles, a table or figure without any cell, published numbers that cannot be read.
pub fn check(experiment: &Experiment, published: Option<&Path>) -> Result<(), ReportError> {
    let study = study_of(experiment);
    let axes = study.axes()?;
    study.values()?;
    if let Some(path) = published {
        Published::read(path)?;
    }
    for spec in &study.report.figures {
        figure::check(spec)?;
    }
    for spec in study.report.figures.iter().filter(|figure| figure.kind == FigureKind::Losses) {
        let shown = |cell: &&Cell| passes(&spec.only, cell) && spec.axes().all(|axis| cell.label(axis).is_some());
        // An empty figure of a selection says nothing, so it is left out like one that does not fit.
        if !study.cells.iter().filter(shown).any(|cell| is_trained(cell, &spec.y)) {
            let item = spec.id.clone();
            return Err(match spec.y.strip_prefix("weight-") {
                Some(domain) => ReportError::Unweighed { item, domain: domain.to_owned() },
                None => ReportError::Untrained { item },
            });
        }
    }
    for item in items(&study)? {
        let shown: Vec<&Cell> = study.cells.iter().filter(|cell| item.shows(cell)).collect();
        // A selection on the command line may take away all that one of many figures is about.
        if shown.is_empty() && experiment.origin.is_whole() {
            return Err(ReportError::Empty { item: item.id.to_owned() });
        }
        for value in &item.values {
            unmixed(&item, value, &shown, &axes)?;
        }
    }
    for spec in study.report.figures.iter().filter(|figure| figure.kind != FigureKind::HeatMap) {
        let labels = |axis: &Option<String>| -> usize {
            let Some(axis) = axis else { return 1 };
            let is_baseline = |cell: &Cell| spec.baseline.is_some() && cell.point == spec.baseline;
            let has_line = |cell: &Cell| spec.kind != FigureKind::Losses || is_trained(cell, &spec.y);
            let shown = study.cells.iter().filter(|cell| passes(&spec.only, cell) && !is_baseline(cell));
            let shown = shown.filter(|cell| has_line(cell));
            shown.filter_map(|cell| cell.label(axis)).collect::<HashSet<_>>().len()
        };
        let series = labels(&spec.series);
        if series > palette::MOST {
            return Err(ReportError::TooMany { item: spec.id.clone(), series });
        }
        figure::fits(spec, labels(&spec.panels))?;
    }
    Ok(())
}

fn items<'a>(study: &Study<'a>) -> Result<Vec<Item<'a>>, ReportError> {
    let value = |item: &str, name: &str| {
        name.parse::<Value>().map_err(|source| ReportError::UnknownValue { item: item.to_owned(), source })
    };
    let mut items = Vec::new();
    for table in &study.report.tables {
        let by_value = table.columns == "metric";
        let shown = if by_value { table.values.len() } else { 1 };
        let columns = (!by_value).then_some(table.columns.as_str());
        items.push(Item {
            id: &table.id,
            only: &table.only,
            baseline: table.baseline.as_deref(),
            axes: table.rows.iter().map(String::as_str).chain(columns).collect(),
            values: table.values.iter().take(shown).map(|name| value(&table.id, name)).collect::<Result<_, _>>()?,
            by_value,
        });
    }
    for figure in study.report.figures.iter().filter(|figure| figure.kind != FigureKind::Losses) {
        items.push(Item {
            id: &figure.id,
            only: &figure.only,
            baseline: figure.baseline.as_deref(),
            axes: figure.axes().collect(),
            values: [&figure.y]
                .into_iter()
                .chain((figure.kind == FigureKind::Scatter).then_some(&figure.x))
                .map(|name| value(&figure.id, name))
                .collect::<Result<_, _>>()?,
            by_value: false,
        });
    }
    Ok(items)
}

impl Item<'_> {
    fn shows(&self, cell: &Cell) -> bool {
        let is_baseline = self.baseline.is_some() && cell.point.as_deref() == self.baseline;
        !is_baseline && passes(self.only, cell) && self.axes.iter().all(|axis| cell.label(axis).is_some())
    }
}

fn passes(only: &Where, cell: &Cell) -> bool {
    only.iter().all(|(axis, labels)| cell.label(axis).is_some_and(|label| labels.contains(&label)))
}

/// Whether every place shows one measurement of each seed.
fn unmixed(item: &Item<'_>, value: &Value, shown: &[&Cell], axes: &[String]) -> Result<(), ReportError> {
    let mut places: HashMap<(Vec<String>, u64), (String, usize)> = HashMap::new();
    for (at, cell) in shown.iter().enumerate() {
        let Some(source) = measure::source(cell, value) else { continue };
        let place: Vec<String> = item.axes.iter().filter_map(|axis| cell.label(axis)).collect();
        let (first, first_at) = places.entry((place.clone(), cell.seed)).or_insert_with(|| (source.clone(), at));
        if *first == source {
            continue;
        }
        let first = shown[*first_at];
        let differs = |axis: &&String| cell.label(axis) != first.label(axis);
        let axis = axes.iter().find(differs).cloned().unwrap_or_default();
        let here = |other: &&&Cell| item.axes.iter().filter_map(|axis| other.label(axis)).eq(place.iter().cloned());
        let mut labels: Vec<String> = Vec::new();
        for label in shown.iter().filter(here).filter_map(|cell| cell.label(&axis)) {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        let value = item.by_value.then(|| value.to_string());
        let place = format!("`{}`", place.into_iter().chain(value).collect::<Vec<_>>().join("`, `"));
        return Err(ReportError::Mixed { item: item.id.to_owned(), axis, labels, place });
    }
    Ok(())
}

//! The table model: what every renderer writes.
//!
//! Rows and columns are axis labels in file order. Bold means *not distinguishable from the best of its column* (see
//! [`crate::evidence::rank`]). The baseline row (dense) and certified values are never ranked.

pub mod csv;
pub mod html;
pub mod latex;
pub mod markdown;

use std::collections::HashMap;

use ressa_experiment::{output, value::Value};

use crate::{
    ReportError,
    evidence::{self, Difference},
    names,
    published::{Published, Scale},
    records::{Records, Summary},
    remarks,
};

/// A table ready to be written.
#[derive(Clone, Debug)]
pub struct Table {
    /// File name stem.
    pub id: String,
    /// Caption.
    pub caption: String,
    /// Heads of the label columns.
    pub stub: Vec<String>,
    /// Heads of the value columns.
    pub columns: Vec<String>,
    /// What the label columns and the value columns are in the experiment: axes; values, or labels of an axis.
    pub keys: (Vec<String>, Vec<String>),
    /// Rows, the baseline first.
    pub rows: Vec<Row>,
    /// What a reader must know: intervals, n, bold, daggers, published numbers.
    pub notes: Vec<String>,
    /// How it was made, for a comment.
    pub made: String,
    /// What the paper's numbers are to ours.
    pub scale: Scale,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// One name of a label per label column.
    pub labels: Vec<String>,
    /// The labels themselves.
    pub keys: Vec<String>,
    /// One entry per value column; `None` where the grid has no such cell.
    pub entries: Vec<Option<Entry>>,
    /// Whether this is the baseline, set off by a rule and not ranked.
    pub baseline: bool,
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Aggregate over seeds.
    pub summary: Summary,
    /// Digits after the point.
    pub decimals: usize,
    /// Not distinguishable from the best of its column.
    pub bold: bool,
    /// The paper's number.
    pub published: Option<f64>,
}

impl Entry {
    /// The mean, once there is one.
    pub fn mean(&self) -> Option<String> {
        (self.summary.n > 0).then(|| names::fixed(self.summary.mean, self.decimals))
    }

    /// Half-width of the interval, where there are seeds to form one from and they differ.
    pub fn half_width(&self) -> Option<String> {
        let half_width = self.summary.half_width.filter(|_| self.decimals == 1 || self.summary.std > 0.0)?;
        Some(names::fixed(half_width, self.decimals))
    }

    /// `2/3` where a planned measurement is missing.
    pub fn missing(&self) -> Option<String> {
        self.summary.is_incomplete().then(|| format!("{}/{}", self.summary.n, self.summary.expected))
    }
}

impl Table {
    /// Builds a table from the records.
    pub fn build(
        spec: &output::Table,
        records: &Records,
        published: &Published,
        experiment: &str,
    ) -> Result<Self, ReportError> {
        let baseline: Vec<usize> = spec.baseline.iter().flat_map(|name| records.named(name)).collect();
        let shown: Vec<usize> = records.select(&spec.only).into_iter().filter(|p| !baseline.contains(p)).collect();
        let by_value = spec.columns == "metric";
        let first_value = spec.values.first().cloned().unwrap_or_default();
        let heads: Vec<(String, String)> = if by_value {
            spec.values.iter().map(|value| (value.clone(), value.clone())).collect()
        } else {
            records.labels(&shown, &spec.columns).into_iter().map(|label| (label, first_value.clone())).collect()
        };
        let column_points = |row: &[usize], head: &str| -> Vec<usize> {
            let fits = |&&p: &&usize| by_value || records.label(p, &spec.columns) == Some(head);
            row.iter().filter(fits).copied().collect()
        };

        // Labels and points of every row, in order of first appearance; the baseline stands before them.
        let mut labelled: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
        let mut positions: HashMap<Vec<String>, usize> = HashMap::new();
        for &point in &shown {
            let labels = spec.rows.iter().map(|axis| records.label(point, axis).map(str::to_owned));
            let Some(labels) = labels.collect::<Option<Vec<String>>>() else { continue };
            let position = *positions.entry(labels).or_insert_with_key(|labels| {
                labelled.push((labels.clone(), Vec::new()));
                labelled.len() - 1
            });
            labelled[position].1.push(point);
        }
        let mut rows: Vec<Row> = Vec::new();
        let mut cells: Vec<Vec<Option<usize>>> = Vec::new();
        let mut add = |labels: Vec<String>, points: Vec<Option<usize>>, baseline: bool, keys: &[String]| {
            let entry = |(column, point): (usize, &Option<usize>)| {
                let (head, value) = &heads[column];
                let summary = records.summary((*point)?, value)?;
                let labels: Vec<&str> = keys.iter().chain([head]).map(String::as_str).collect();
                let published = if baseline { None } else { published.find(&spec.published, value, &labels) };
                Some(Entry { summary, decimals: names::value(value).1, bold: false, published })
            };
            let entries = points.iter().enumerate().map(entry).collect();
            let mut keys = keys.to_vec();
            if let (true, Some(name)) = (baseline, &spec.baseline) {
                keys = vec![String::new(); spec.rows.len()];
                keys[0].clone_from(name);
            }
            rows.push(Row { labels, keys, entries, baseline });
            cells.push(points);
        };
        if !baseline.is_empty() {
            let points = heads.iter().map(|(_, value)| records.only(&baseline, value).ok().flatten()).collect();
            let mut labels = vec![String::new(); spec.rows.len()];
            if let (Some(first), Some(name)) = (labels.first_mut(), &spec.baseline) {
                *first = names::label("", name);
            }
            add(labels, points, true, &[]);
        }
        let shown_names: Vec<HashMap<String, String>> = spec
            .rows
            .iter()
            .map(|axis| records.labels(&shown, axis))
            .zip(&spec.rows)
            .map(|(labels, axis)| {
                let names = names::labels(axis, &labels);
                labels.into_iter().zip(names).collect()
            })
            .collect();
        for (keys, row) in &labelled {
            let mut points = Vec::with_capacity(heads.len());
            for (head, value) in &heads {
                let candidates = column_points(row, head);
                let point = records.only(&candidates, value).map_err(|(axis, labels)| ReportError::Mixed {
                    item: spec.id.clone(),
                    axis,
                    labels,
                    place: format!("`{}`, `{head}`", keys.join("`, `")),
                })?;
                points.push(point);
            }
            let name = |(key, names): (&String, &HashMap<String, String>)| names.get(key).unwrap_or(key).clone();
            let labels = keys.iter().zip(&shown_names).map(name).collect();
            add(labels, points, false, keys);
        }
        let compared = rank(&mut rows, &cells, &heads, records);

        let keys: Vec<String> = heads.iter().map(|(head, _)| head.clone()).collect();
        let titles = match by_value {
            true => keys.iter().map(|value| names::value(value).0).collect(),
            false => names::labels(&spec.columns, &keys),
        };
        let titles: Vec<(String, String)> = titles.into_iter().zip(keys.iter().cloned()).collect();
        let (stub, columns) = names::heads(&spec.rows, &titles);
        let caption = spec.caption.clone().unwrap_or_else(|| {
            let what = if by_value { "Scores".to_owned() } else { names::value(&first_value).0 };
            let stub: Vec<String> = spec.rows.iter().map(|axis| names::axis(axis).to_lowercase()).collect();
            format!("{what} by {}.", stub.join(" and "))
        });
        let mut notes = notes(&rows, &compared, published.scale);
        notes.extend(remarks::on(heads.iter().map(|(_, value)| value.as_str()), &records.provenance));
        Ok(Self {
            id: spec.id.clone(),
            caption,
            stub,
            columns,
            keys: (spec.rows.clone(), keys),
            rows,
            notes,
            made: format!("made by `ressa report` for `{experiment}` from records.csv; table `{}`", spec.id),
            scale: published.scale,
        })
    }

    /// Whether the published numbers stand under ours instead of beside, so that many columns fit a page.
    pub fn is_stacked(&self) -> bool {
        self.columns.len() > 5 && self.has_published()
    }

    /// Whether any cell carries a published number.
    pub fn has_published(&self) -> bool {
        self.entries().any(|entry| entry.published.is_some())
    }

    /// Every cell.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.rows.iter().flat_map(|row| row.entries.iter().flatten())
    }
}

/// Marks, column by column, what cannot be told from the best. Returns the differences that were looked at.
fn rank(
    rows: &mut [Row],
    cells: &[Vec<Option<usize>>],
    heads: &[(String, String)],
    records: &Records,
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (column, (_, value)) in heads.iter().enumerate() {
        if value.parse::<Value>().is_ok_and(|v| v.is_certified()) {
            continue;
        }
        let ranked: Vec<(usize, (usize, f64))> = (0..rows.len())
            .filter(|&row| !rows[row].baseline)
            .filter_map(|row| {
                let summary = rows[row].entries[column].as_ref()?.summary;
                (summary.n > 0).then_some((row, (cells[row][column]?, summary.mean)))
            })
            .collect();
        let points: Vec<(usize, f64)> = ranked.iter().map(|(_, point)| *point).collect();
        let Some(ranking) = evidence::rank(&points, value, records) else { continue };
        for (&(row, _), tied) in ranked.iter().zip(ranking.tied) {
            if let Some(entry) = &mut rows[row].entries[column] {
                entry.bold = tied;
            }
        }
        differences.extend(ranking.differences);
    }
    differences
}

fn notes(rows: &[Row], compared: &[Difference], scale: Scale) -> Vec<String> {
    let entries = || rows.iter().filter(|row| !row.baseline).flat_map(|row| row.entries.iter().flatten());
    let mut notes = Vec::new();
    if let Some(replicates) = evidence::replicates(entries().map(|e| &e.summary)) {
        let single = if replicates.single { "; n = 1 where a setting does not depend on the seed" } else { "" };
        let n = &replicates.n;
        notes.push(match (replicates.several, entries().any(|e| e.half_width().is_some())) {
            (true, true) => format!(
                "Mean ± half-width of the 95 % t-interval over replicate seeds, on these test items (n = {n}{single})."
            ),
            (true, false) => format!("Mean over replicate seeds, which agree (n = {n}{single})."),
            (false, _) => format!("One measurement per cell (n = {n}{single}), so no interval over seeds."),
        });
    }
    notes.extend(evidence::bold_note(compared));
    if entries().any(|e| e.summary.is_incomplete()) {
        notes.push("† n/N: only n of N planned measurements are there.".to_owned());
    }
    if entries().any(|e| e.published.is_some()) {
        notes.push(format!("[ ]: {}.", scale.mark()));
    }
    notes
}

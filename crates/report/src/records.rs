//! Every value of every cell as one data frame, and its aggregation over replicate seeds.
//!
//! A *point* is a combination of axis labels; its cells differ in the replicate seed only. Within a point, cells whose value comes from the
//! same stages count once, so `n` is the number of distinct measurements and never the number of times one was looked up. `n / N` says how
//! many of the planned ones are there.

mod dense;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use polars::prelude::*;
use ressa_experiment::{
    output::{FigureKind, Where},
    value::Value as Quantity,
};
use ressa_store::Store;

use crate::{
    ReportError,
    evidence::Items,
    measure::{Block, Number, Provenance, Reader},
    statistics,
    study::Study,
};

/// Share of zeros in each block.
type Shares = BTreeMap<Block, f64>;

/// A combination of axis labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// Name of the `include` point that it is, such as `dense`.
    pub name: Option<String>,
    /// One label per axis of [`Records::axes`]; `None` where the point has none.
    pub labels: Vec<Option<String>>,
}

/// Mean over replicate seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Mean of the measurements there are.
    pub mean: f64,
    /// Sample standard deviation over seeds.
    pub std: f64,
    /// Half-width of the 95 % t-interval over seeds; `None` for fewer than two.
    pub half_width: Option<f64>,
    /// Mean standard error over the items of the test set.
    pub standard_error: f64,
    /// Measurements there are.
    pub n: usize,
    /// Measurements planned.
    pub expected: usize,
}

impl Summary {
    /// Whether a planned measurement is missing.
    pub fn is_incomplete(&self) -> bool {
        self.n < self.expected
    }
}

/// One seed's measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Replicate seed.
    pub seed: u64,
    /// The number, once it is there.
    pub number: Option<Number>,
    /// Stages behind it.
    pub source: String,
}

/// The records of an experiment.
pub struct Records {
    /// Axes: grid axes in file order, then settings that a table, figure or claim names.
    pub axes: Vec<String>,
    /// Points in file order.
    pub points: Vec<Point>,
    /// One row per cell and value.
    pub frame: DataFrame,
    /// One row per point and value.
    pub summary: DataFrame,
    /// What ran where.
    pub provenance: Provenance,
    /// Distinct runs with every result.
    pub done: usize,
    /// Distinct runs.
    pub expected: usize,
    /// Points of single items, read when a comparison needs them.
    pub items: Items,
    /// Per point and axis: whether the point stands at every label of the axis.
    everywhere: Vec<Vec<bool>>,
    summaries: HashMap<(usize, String), Summary>,
    samples: HashMap<(usize, String), Vec<Sample>>,
    blocks: HashMap<usize, BTreeMap<Block, Summary>>,
}

impl Records {
    /// Reads the results of every cell from the store.
    pub fn collect(study: &Study<'_>, store: &Store) -> Result<Self, ReportError> {
        let axes = study.axes()?;
        let asked = study.values()?;
        let mut reader = Reader::new(store);
        let mut points: Vec<Point> = Vec::new();
        let mut index: HashMap<Point, usize> = HashMap::new();
        let mut rows = Rows::default();
        let mut samples: HashMap<(usize, String), Vec<Sample>> = HashMap::new();
        let mut seen: HashSet<(usize, String, String)> = HashSet::new();
        let mut runs: HashMap<&str, bool> = HashMap::new();

        // Parts of a task's score are known once some cell has it; then every cell is expected to have them.
        let mut parts = BTreeSet::new();
        for cell in study.cells {
            parts.extend(reader.parts(cell)?);
        }
        parts.extend(asked.into_iter().filter(|value| matches!(value, Quantity::Part(..))));
        let names = Quantity::names();
        let columns: Vec<Quantity> = names.iter().filter_map(|name| name.parse().ok()).chain(parts).collect();

        let heat = study.report.figures.iter().any(|figure| figure.kind == FigureKind::HeatMap);
        let mut certified: HashMap<usize, Vec<(String, Option<Shares>)>> = HashMap::new();
        for cell in study.cells {
            let point = Point { name: cell.point.clone(), labels: axes.iter().map(|axis| cell.label(axis)).collect() };
            let at = *index.entry(point.clone()).or_insert_with(|| {
                points.push(point.clone());
                points.len() - 1
            });
            let complete = reader.is_complete(cell)?;
            if heat {
                let source = reader.measure(cell, &Quantity::Sparsity(None))?.map(|m| m.source).unwrap_or_default();
                let seeds = certified.entry(at).or_default();
                if !seeds.iter().any(|(known, _)| *known == source) {
                    seeds.push((source, reader.blocks(cell)?));
                }
            }
            runs.insert(&cell.run_id, complete);
            for value in &columns {
                let Some(measurement) = reader.measure(cell, value)? else { continue };
                let name = value.to_string();
                let distinct = seen.insert((at, name.clone(), measurement.source.clone()));
                rows.push(at, &cell.run_id, cell.seed, &name, measurement.number, distinct, &measurement.source);
                let sample = Sample { seed: cell.seed, number: measurement.number, source: measurement.source };
                samples.entry((at, name)).or_default().push(sample);
            }
        }
        let keyed = rows.frame()?;
        let (summary, summaries) = aggregate(&keyed)?;
        Ok(Self {
            frame: labelled(&keyed, &axes, &points)?,
            summary: labelled(&summary, &axes, &points)?,
            done: runs.values().filter(|complete| **complete).count(),
            expected: runs.len(),
            provenance: reader.provenance,
            items: Items::new(store, study.cells),
            everywhere: dense::everywhere(study.cells, &axes, &points),
            axes,
            points,
            summaries,
            samples,
            blocks: certified.into_iter().map(|(point, seeds)| (point, of_blocks(seeds))).collect(),
        })
    }

    /// Certified sparsity of every pruned block at a point, where a heat map is asked for.
    pub fn blocks(&self, point: usize) -> BTreeMap<Block, Summary> {
        self.blocks.get(&point).cloned().unwrap_or_default()
    }

    /// Whether any evaluated or certified number is there.
    pub fn has_any(&self) -> bool {
        self.provenance.certificates > 0 || !self.provenance.items.is_empty()
    }

    /// Position of an axis.
    pub fn axis(&self, name: &str) -> Option<usize> {
        self.axes.iter().position(|axis| axis == name)
    }

    /// The label of a point on an axis.
    pub fn label(&self, point: usize, axis: &str) -> Option<&str> {
        self.points[point].labels[self.axis(axis)?].as_deref()
    }

    /// Whether a point stands at every label of an axis: a dense model has no setting of its own there, and none that it could see.
    pub fn is_everywhere(&self, point: usize, axis: &str) -> bool {
        self.axis(axis).is_some_and(|axis| self.everywhere[point][axis])
    }

    /// Points that a filter lets through, in file order.
    pub fn select(&self, filter: &Where) -> Vec<usize> {
        let fits = |point: &usize| {
            filter.iter().all(|(axis, labels)| self.label(*point, axis).is_some_and(|label| labels.contains(label)))
        };
        (0..self.points.len()).filter(fits).collect()
    }

    /// Points that are the `include` point of a name.
    pub fn named(&self, name: &str) -> Vec<usize> {
        (0..self.points.len()).filter(|&p| self.points[p].name.as_deref() == Some(name)).collect()
    }

    /// Labels of an axis among some points, in file order.
    pub fn labels(&self, points: &[usize], axis: &str) -> Vec<String> {
        let mut labels: Vec<String> = Vec::new();
        for label in points.iter().filter_map(|&point| self.label(point, axis)) {
            if !labels.iter().any(|known| known == label) {
                labels.push(label.to_owned());
            }
        }
        labels
    }

    /// The aggregate of a value at a point; `None` where the point cannot have the value.
    pub fn summary(&self, point: usize, value: &str) -> Option<Summary> {
        self.summaries.get(&(point, value.to_owned())).copied()
    }

    /// Names of the parts of tasks' scores that are there, in alphabetical order.
    pub fn parts(&self) -> Vec<String> {
        let named = self.samples.keys().map(|(_, name)| name).filter(|name| name.contains('/'));
        let distinct: BTreeSet<&String> = named.collect();
        distinct.into_iter().cloned().collect()
    }

    /// The measurements of a value at a point, one per seed.
    pub fn samples(&self, point: usize, value: &str) -> &[Sample] {
        self.samples.get(&(point, value.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The one point among several; points that hold the same measurements are one.
    /// `Err` names an axis on which they differ, with its labels.
    pub fn only(&self, points: &[usize], value: &str) -> Result<Option<usize>, (String, Vec<String>)> {
        let sources = |point: usize| -> BTreeSet<&str> {
            self.samples(point, value).iter().map(|sample| sample.source.as_str()).collect()
        };
        let holding: Vec<usize> = points.iter().copied().filter(|&p| !self.samples(p, value).is_empty()).collect();
        let Some(&first) = holding.first() else { return Ok(None) };
        if holding.iter().all(|&point| sources(point) == sources(first)) {
            return Ok(Some(first));
        }
        let differs = |axis: &&String| self.labels(&holding, axis).len() > 1;
        let axis = self.axes.iter().find(differs).cloned().unwrap_or_default();
        let labels = self.labels(&holding, &axis);
        Err((axis, labels))
    }
}

#[derive(Default)]
struct Rows {
    point: Vec<u32>,
    run: Vec<String>,
    seed: Vec<u64>,
    value: Vec<String>,
    number: Vec<Option<f64>>,
    standard_error: Vec<Option<f64>>,
    there: Vec<u32>,
    distinct: Vec<bool>,
    stages: Vec<String>,
}

impl Rows {
    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn push(
        &mut self,
        point: usize,
        run: &str,
        seed: u64,
        value: &str,
        number: Option<Number>,
        distinct: bool,
        stages: &str,
    ) {
        self.point.push(point as u32);
        self.run.push(run.chars().take(12).collect());
        self.seed.push(seed);
        self.value.push(value.to_owned());
        self.number.push(number.map(|n| n.value));
        self.standard_error.push(number.map(|n| n.standard_error));
        self.there.push(u32::from(number.is_some()));
        self.distinct.push(distinct);
        self.stages.push(stages.to_owned());
    }

    fn frame(self) -> PolarsResult<DataFrame> {
        DataFrame::new_infer_height(vec![
            Column::new("point".into(), self.point),
            Column::new("run".into(), self.run),
            Column::new("seed".into(), self.seed),
            Column::new("value".into(), self.value),
            Column::new("number".into(), self.number),
            Column::new("standard_error".into(), self.standard_error),
            Column::new("there".into(), self.there),
            Column::new("distinct".into(), self.distinct),
            Column::new("stages".into(), self.stages),
        ])
    }
}

/// Aggregates blocks over distinct measurements.
fn of_blocks(seeds: Vec<(String, Option<BTreeMap<Block, f64>>)>) -> BTreeMap<Block, Summary> {
    let expected = seeds.len();
    let mut values: BTreeMap<Block, Vec<f64>> = BTreeMap::new();
    for (block, share) in seeds.into_iter().filter_map(|(_, blocks)| blocks).flatten() {
        values.entry(block).or_default().push(share);
    }
    let summary = |values: Vec<f64>| {
        let (mean, std) = statistics::mean_std(&values);
        let n = values.len();
        Summary { mean, std, half_width: statistics::half_width(std, n), standard_error: 0.0, n, expected }
    };
    values.into_iter().map(|(block, values)| (block, summary(values))).collect()
}

type Summaries = HashMap<(usize, String), Summary>;

/// Mean, deviation and counts of the distinct measurements per point and value, in order of first appearance.
#[expect(deprecated, reason = "eager aggregation; the lazy engine would double the cold build for one group-by")]
fn aggregate(records: &DataFrame) -> PolarsResult<(DataFrame, Summaries)> {
    let distinct = records.filter(records.column("distinct")?.bool()?)?;
    let by = || distinct.group_by_stable(["point", "value"]);
    let mut summary = by()?.select(["number", "standard_error"]).mean()?;
    for column in [by()?.select(["number"]).std(1)?, by()?.select(["there"]).sum()?, by()?.select(["there"]).count()?] {
        summary = summary.hstack(&column.columns()[2..])?;
    }
    let names = ["point", "value", "mean", "standard_error", "std", "n", "expected"];
    summary.set_column_names(&names)?;

    let mut summaries = HashMap::with_capacity(summary.height());
    let mut half_widths = Vec::with_capacity(summary.height());
    let (points, values) = (summary.column("point")?.u32()?, summary.column("value")?.str()?);
    let (means, stds) = (summary.column("mean")?.f64()?, summary.column("std")?.f64()?);
    let errors = summary.column("standard_error")?.f64()?;
    let (counts, planned) = (summary.column("n")?.u32()?, summary.column("expected")?.u32()?);
    let mut quantiles: HashMap<usize, f64> = HashMap::new();
    for row in 0..summary.height() {
        let n = counts.get(row).unwrap_or(0) as usize;
        let std = stds.get(row).unwrap_or(0.0);
        let half_width = (n >= 2).then(|| {
            let unit = *quantiles.entry(n).or_insert_with(|| statistics::half_width(1.0, n).unwrap_or(0.0));
            unit * std
        });
        half_widths.push(half_width);
        let key = (points.get(row).unwrap_or(0) as usize, values.get(row).unwrap_or_default().to_owned());
        let entry = Summary {
            mean: means.get(row).unwrap_or(f64::NAN),
            std,
            half_width,
            standard_error: errors.get(row).unwrap_or(0.0),
            n,
            expected: planned.get(row).unwrap_or(0) as usize,
        };
        summaries.insert(key, entry);
    }
    summary.with_column(Column::new("half_width_95".into(), half_widths))?;
    let order = ["point", "value", "mean", "half_width_95", "std", "n", "expected", "standard_error"];
    Ok((summary.select(order)?, summaries))
}

/// Replaces the `point` column by one column per axis, and drops what only the aggregation needs.
fn labelled(frame: &DataFrame, axes: &[String], points: &[Point]) -> PolarsResult<DataFrame> {
    let at: Vec<usize> = frame.column("point")?.u32()?.iter().map(|p| p.unwrap_or(0) as usize).collect();
    let mut columns: Vec<Column> = Vec::with_capacity(axes.len() + 8);
    for (position, axis) in axes.iter().enumerate() {
        let labels: Vec<Option<&str>> = at.iter().map(|&p| points[p].labels[position].as_deref()).collect();
        columns.push(Column::new(axis.as_str().into(), labels));
    }
    let kept = frame.columns().iter().filter(|c| !matches!(c.name().as_str(), "point" | "there"));
    columns.extend(kept.cloned());
    DataFrame::new_infer_height(columns)
}

/// A frame as CSV with a fixed number of decimals.
pub fn to_csv(frame: &DataFrame) -> PolarsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut frame = frame.clone();
    CsvWriter::new(&mut bytes).with_float_precision(Some(6)).finish(&mut frame)?;
    Ok(bytes)
}

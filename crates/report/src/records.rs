//! Every value of every cell, and its aggregation over replicate seeds.
//!
//! A *point* is a combination of axis labels; its cells differ in the replicate seed only. Within a point, cells whose value comes from the
//! same stages count once, so `n` is the number of distinct measurements and never the number of times one was looked up. `n / N` says how
//! many of the planned ones are there.
//!
//! Measurements are held once, by point and value. Tables of all of them are made in pieces, while they are written.

mod dense;
mod frames;
mod rows;
mod trainings;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ressa_experiment::{
    output::{FigureKind, Where},
    value::Value as Quantity,
};
use ressa_store::Store;

use crate::{
    ReportError,
    evidence::Items,
    measure::{Block, Column, Measurement, Number, Provenance, Reader},
    statistics::{self, Moments},
    study::Study,
};

pub(crate) use trainings::{Curve, Trainings, is_trained};

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
    pub source: Arc<str>,
    /// Whether no earlier one of the point and value has the same stages.
    distinct: bool,
    /// Position of the cell.
    cell: u32,
}

/// A cell among the records.
#[derive(Debug)]
struct Recorded {
    point: u32,
    /// The first digits of its run's identity.
    run: Box<str>,
    seed: u64,
}

/// A value at a point.
#[derive(Clone, Debug, Default)]
struct Measured {
    /// In the order of cells.
    samples: Vec<Sample>,
    summary: Option<Summary>,
}

impl Measured {
    /// Marks the first of the samples that have the same stages, and aggregates these.
    fn aggregate(&mut self) {
        let mut seen = HashSet::with_capacity(self.samples.len());
        let (mut values, mut errors, mut expected) = (Moments::default(), Moments::default(), 0);
        for sample in &mut self.samples {
            // Equal sources of a reader have one address.
            sample.distinct = seen.insert(Arc::as_ptr(&sample.source));
            if sample.distinct {
                expected += 1;
                sample.number.iter().for_each(|number| values.add(number.value));
                sample.number.iter().for_each(|number| errors.add(number.standard_error));
            }
        }
        self.summary = (expected > 0).then(|| Summary {
            mean: values.mean(),
            std: values.std(),
            half_width: statistics::half_width(1.0, values.count()).map(|unit| unit * values.std()),
            standard_error: if values.count() > 0 { errors.mean() } else { 0.0 },
            n: values.count(),
            expected,
        });
    }
}

/// The records of an experiment.
pub struct Records {
    /// Axes: grid axes in file order, then settings that a table, figure or claim names.
    pub axes: Vec<String>,
    /// Points in file order.
    pub points: Vec<Point>,
    /// What ran where.
    pub provenance: Provenance,
    /// Distinct runs with every result.
    pub done: usize,
    /// Distinct runs.
    pub expected: usize,
    /// Points of single items, read when a comparison needs them.
    pub items: Items,
    /// Trainings of each point, and their losses, read when a figure needs them.
    pub(crate) trainings: Trainings,
    /// Per point and axis: whether the point stands at every label of the axis.
    everywhere: Vec<Vec<bool>>,
    cells: Vec<Recorded>,
    /// Names of values, in the order of a cell's records.
    values: Vec<String>,
    /// Positions of the names.
    columns: HashMap<String, usize>,
    /// By point, then by value.
    measured: Vec<Measured>,
    blocks: HashMap<usize, BTreeMap<Block, Summary>>,
}

/// The source of a run's certificate, and the zeros that it counts by block.
type Certified = (Arc<str>, Option<Shares>);

impl Records {
    /// Reads the results of every cell from the store.
    pub fn collect(study: &Study<'_>, store: &Store) -> Result<Self, ReportError> {
        let axes = study.axes()?;
        let asked = study.values()?;
        let heat = study.report.figures.iter().any(|figure| figure.kind == FigureKind::HeatMap);
        let costs = asked.iter().any(Quantity::is_cost);
        let mut reader = Reader::new(store, study.cells, heat, costs)?;
        let mut points: Vec<Point> = Vec::new();
        let mut index: HashMap<Point, usize> = HashMap::new();
        let mut cells: Vec<Recorded> = Vec::with_capacity(study.cells.len());
        let mut measured: Vec<Measured> = Vec::new();
        let mut runs: HashMap<&str, bool> = HashMap::new();

        // Parts of a task's score are known once some cell has it; then every cell is expected to have them.
        let found = reader.parts().into_iter();
        let found = found.flat_map(|(task, parts)| parts.into_iter().map(move |part| Quantity::Part(task, part)));
        // What a model took is another number on another machine: it stands in the records only where somebody asks for it.
        let asked = asked.into_iter().filter(|value| matches!(value, Quantity::Part(..)) || value.is_cost());
        let parts: BTreeSet<Quantity> = found.chain(asked).collect();
        let names = Quantity::names();
        let shown: Vec<Quantity> = names.iter().filter_map(|name| name.parse().ok()).chain(parts).collect();
        let values: Vec<String> = shown.iter().map(ToString::to_string).collect();
        let columns: Vec<Column> = shown.into_iter().map(Column::of).collect();

        let mut measurements = Vec::with_capacity(columns.len());
        let mut trainings = Trainings::new(store);
        let mut certified: HashMap<usize, Vec<Certified>> = HashMap::new();
        for cell in study.cells {
            let point = Point { name: cell.point.clone(), labels: axes.iter().map(|axis| cell.label(axis)).collect() };
            let at = index.get(&point).copied().unwrap_or_else(|| {
                points.push(point.clone());
                measured.resize(points.len() * values.len(), Measured::default());
                index.insert(point, points.len() - 1);
                points.len() - 1
            });
            trainings.add(at, cell);
            let complete = reader.is_complete(cell);
            if heat {
                let source = reader.certificate_source(cell);
                let seeds = certified.entry(at).or_default();
                if !seeds.iter().any(|(known, _)| *known == source) {
                    seeds.push((source, reader.blocks(cell)));
                }
            }
            runs.insert(&cell.run_id, complete);
            reader.measure(cell, &columns, &mut measurements);
            for (position, Measurement { number, source }) in measurements.drain(..) {
                let sample = Sample { seed: cell.seed, number, source, distinct: false, cell: cells.len() as u32 };
                measured[at * values.len() + position].samples.push(sample);
            }
            let run = cell.run_id.chars().take(12).collect();
            cells.push(Recorded { point: at as u32, run, seed: cell.seed });
        }
        measured.iter_mut().for_each(Measured::aggregate);
        let (scores, provenance) = reader.into_parts();
        Ok(Self {
            done: runs.values().filter(|complete| **complete).count(),
            expected: runs.len(),
            provenance,
            items: Items::new(store, study.cells, scores),
            trainings,
            everywhere: dense::everywhere(study.cells, &axes, &points),
            axes,
            points,
            cells,
            columns: values.iter().cloned().enumerate().map(|(column, name)| (name, column)).collect(),
            values,
            measured,
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
        let mut known = HashSet::new();
        let labels = points.iter().filter_map(|&point| self.label(point, axis));
        labels.filter(|label| known.insert(*label)).map(str::to_owned).collect()
    }

    /// The aggregate of a value at a point; `None` where the point cannot have the value.
    pub fn summary(&self, point: usize, value: &str) -> Option<Summary> {
        self.measured(point, value)?.summary
    }

    fn measured(&self, point: usize, value: &str) -> Option<&Measured> {
        self.measured.get(point * self.values.len() + *self.columns.get(value)?)
    }

    /// Names of the parts of tasks' scores that are there, in alphabetical order.
    pub fn parts(&self) -> Vec<String> {
        let is_there = |column: usize| {
            self.measured.iter().skip(column).step_by(self.values.len()).any(|measured| !measured.samples.is_empty())
        };
        let named = self.values.iter().enumerate().filter(|(column, name)| name.contains('/') && is_there(*column));
        let distinct: BTreeSet<&String> = named.map(|(_, name)| name).collect();
        distinct.into_iter().cloned().collect()
    }

    /// The measurements of a value at a point, one per seed.
    pub fn samples(&self, point: usize, value: &str) -> &[Sample] {
        self.measured(point, value).map_or(&[], |measured| &measured.samples)
    }

    /// The one point among several; points that hold the same measurements are one.
    /// `Err` names an axis on which they differ, with its labels.
    pub fn only(&self, points: &[usize], value: &str) -> Result<Option<usize>, (String, Vec<String>)> {
        let sources = |point: usize| -> BTreeSet<&str> {
            self.samples(point, value).iter().map(|sample| &*sample.source).collect()
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

/// Aggregates blocks over distinct measurements.
fn of_blocks(seeds: Vec<Certified>) -> BTreeMap<Block, Summary> {
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

//! The paper's numbers, shown beside ours and never mixed into any statistics.
//!
//! They were measured on InstructBLIP with billions of weights and the real benchmarks. An experiment on published checkpoints and benchmarks is
//! of the same scale; one in the embedded world has a small model, and only the shapes of its curves are comparable.

use std::path::Path;

use ressa_experiment::{Cell, config::DataSource};
use serde::Deserialize;

use crate::ReportError;

/// What published numbers are to the experiment that they stand beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Published checkpoints on the published benchmarks: the same quantity, drawn on the same axis.
    Same,
    /// Another model or other data: levels are not comparable.
    #[default]
    Other,
}

impl Scale {
    /// The scale of an experiment: the published one where all its runs prune published checkpoints and are evaluated on files of data.
    pub fn of(cells: &[Cell]) -> Self {
        let is_published =
            |cell: &Cell| cell.run.model.checkpoint.is_some() && cell.run.data.source != DataSource::Shapes;
        if !cells.is_empty() && cells.iter().all(is_published) { Scale::Same } else { Scale::Other }
    }

    /// How published numbers are marked.
    pub fn mark(self) -> &'static str {
        match self {
            Scale::Same => "published (InstructBLIP)",
            Scale::Other => "published (InstructBLIP, other scale)",
        }
    }

    /// Their column in tables of numbers.
    pub fn column(self) -> &'static str {
        match self {
            Scale::Same => "published",
            Scale::Other => "published_other_scale",
        }
    }
}

/// A published number: row of `experiments/paper/expected.csv`. Other columns of the file are for people.
#[derive(Clone, Debug, Deserialize)]
struct Number {
    /// What tables and figures refer to.
    id: String,
    /// Label on the x axis: of a column, a row or a bar.
    x: String,
    /// Label of the series, which may be rows or columns too; empty fits any.
    #[serde(default)]
    series: String,
    /// The value that was measured; empty fits any.
    #[serde(default)]
    metric: String,
    /// The number, in the paper's points.
    value: f64,
}

/// Every published number.
#[derive(Clone, Debug, Default)]
pub struct Published {
    numbers: Vec<Number>,
    /// What they are to the experiment beside which they stand.
    pub scale: Scale,
}

impl Published {
    /// Reads the table of published numbers; a missing file is an empty table.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let wrong = |what: String| ReportError::Published { path: path.to_owned(), what };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(wrong(e.to_string())),
        };
        Self::parse(&bytes).map_err(|e| wrong(e.to_string()))
    }

    /// Parses the table.
    pub fn parse(bytes: &[u8]) -> Result<Self, csv::Error> {
        let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(bytes);
        let numbers = reader.deserialize().collect::<Result<Vec<Number>, _>>()?;
        Ok(Self { numbers, scale: Scale::default() })
    }

    /// The number of some ids for a value at the place that has these labels.
    pub fn find(&self, ids: &[String], value: &str, labels: &[&str]) -> Option<f64> {
        let fits = |n: &&Number| {
            ids.contains(&n.id)
                && (n.metric.is_empty() || n.metric == value)
                && labels.contains(&n.x.as_str())
                && (n.series.is_empty() || labels.contains(&n.series.as_str()))
        };
        self.numbers.iter().find(fits).map(|n| n.value)
    }
}

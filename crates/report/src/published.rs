//! The paper's numbers, shown beside ours and never mixed into any statistics.
//!
//! They were measured on InstructBLIP with billions of weights and the real benchmarks; ours, by default, on a small model in a generated
//! world. Levels are not comparable, shapes of curves are.

use std::path::Path;

use serde::Deserialize;

use crate::ReportError;

/// How every published number is marked.
pub const MARK: &str = "published (InstructBLIP, other scale)";

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
        Ok(Self { numbers })
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

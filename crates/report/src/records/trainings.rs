//! Trainings of points, and their loss curves as the stage `adapt` publishes them.

use std::{collections::HashMap, fs};

use ressa_experiment::{Cell, Stage, StageKey, loading::domains};
use ressa_store::{Store, StoreError};

/// File in which a training stores its losses, a line for each step.
const LOSSES: &str = "losses.csv";

/// Trainings by point.
#[derive(Debug)]
pub(crate) struct Trainings {
    store: Store,
    of_points: HashMap<usize, Vec<StageKey>>,
    /// Domains whose weights change, by training.
    weighed: HashMap<StageKey, Vec<&'static str>>,
}

/// What is there of a training's losses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Curve {
    /// The training has not run.
    Missing,
    /// The training ran, and its file is missing or damaged, or lacks the column.
    Unreadable,
    /// A value for each step.
    Read(Vec<f64>),
}

/// The last training of a cell, if it has one, and the domains whose weights change in it.
fn training(cell: &Cell) -> Option<(StageKey, Vec<&'static str>)> {
    cell.stages.iter().rev().find_map(|node| match &*node.stage {
        Stage::Adapt { training, data, .. } if training.loading.is_on() => Some((node.key, domains(data))),
        Stage::Adapt { .. } => Some((node.key, Vec::new())),
        _ => None,
    })
}

/// Whether a cell has a training whose losses have a column.
pub(crate) fn is_trained(cell: &Cell, column: &str) -> bool {
    training(cell).is_some_and(|(_, weighed)| has(column, &weighed))
}

/// Whether a training has a column: all have all but weights of domains.
fn has(column: &str, weighed: &[&str]) -> bool {
    column.strip_prefix("weight-").is_none_or(|domain| weighed.contains(&domain))
}

impl Trainings {
    /// No trainings yet, of a store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), of_points: HashMap::new(), weighed: HashMap::new() }
    }

    /// Adds the training of a point's cell. Cells that share a training have it once.
    pub fn add(&mut self, point: usize, cell: &Cell) {
        let Some((key, weighed)) = training(cell) else { return };
        self.weighed.insert(key, weighed);
        let known = self.of_points.entry(point).or_default();
        if !known.contains(&key) {
            known.push(key);
        }
    }

    /// Trainings of a point that have a column.
    pub fn of<'a>(&'a self, point: usize, column: &'a str) -> impl Iterator<Item = &'a StageKey> {
        let weighed = |key| self.weighed.get(key).map_or(&[][..], Vec::as_slice);
        self.of_points.get(&point).into_iter().flatten().filter(move |key| has(column, weighed(key)))
    }

    /// A column of a training's losses.
    ///
    /// # Errors
    /// When the store cannot be read. Damage is no error: it gives [`Curve::Unreadable`].
    pub fn curve(&self, key: &StageKey, column: &str) -> Result<Curve, StoreError> {
        let entry = match self.store.entry(&key.hex()) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(Curve::Missing),
            Err(e) if e.is_damage() => return Ok(Curve::Unreadable),
            Err(e) => return Err(e),
        };
        let published = entry.manifest.files.get(LOSSES).map(|file| file.bytes);
        let text = entry.file(LOSSES).ok().and_then(|path| fs::read_to_string(path).ok());
        let whole = text.filter(|text| Some(text.len() as u64) == published);
        Ok(whole.and_then(|text| parse(&text, column)).map_or(Curve::Unreadable, Curve::Read))
    }
}

/// A column of a file of losses; `None` for a file of another form.
fn parse(text: &str, column: &str) -> Option<Vec<f64>> {
    let mut lines = text.lines();
    // Columns are named as in a table, keys of experiments with dashes.
    let column = column.replace('-', "_");
    let at = lines.next()?.split(',').position(|name| name == column)?;
    let value = |line: &str| line.split(',').nth(at)?.parse().ok().filter(|value: &f64| value.is_finite());
    let values: Vec<f64> = lines.map(value).collect::<Option<_>>()?;
    (!values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_whole_files_are_read() {
        let text = "step,total,gradient_norm\n0,4.5,1\n1,3.25,2\n";
        assert_eq!(parse(text, "total"), Some(vec![4.5, 3.25]));
        assert_eq!(parse(text, "gradient-norm"), Some(vec![1.0, 2.0]));
        for (text, column) in [(text, "captions"), ("", "total"), ("step,total\n", "total")] {
            assert_eq!(parse(text, column), None);
        }
        for last in ["1", "1,", "1,nan", "1,x"] {
            assert_eq!(parse(&format!("step,total\n0,4.5\n{last}\n"), "total"), None, "{last}");
        }
    }
}

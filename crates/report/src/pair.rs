//! Two runs beside each other: every value that both have, with the difference over the same items.

use ressa_experiment::{Cell, output::Report, value::Value};
use ressa_store::Store;

use crate::{
    ReportError,
    evidence::{Difference, Sides},
    names,
    records::Records,
    study::Study,
};

/// Name of the axis that tells the two apart.
const SIDE: &str = "side";

/// A value of two runs.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Its name, see [`ressa_experiment::value`].
    pub value: String,
    /// Digits after the point.
    pub decimals: usize,
    /// Of the first run; `None` where it has no result.
    pub a: Option<f64>,
    /// Of the second run.
    pub b: Option<f64>,
    /// The second minus the first, where both have it.
    pub difference: Option<Difference>,
}

/// Compares two runs, each given by one of its cells, in every value that one of them has: averages, tasks and their parts, certified figures.
///
/// # Errors
/// A store that cannot be read.
pub fn compare(a: &Cell, b: &Cell, store: &Store) -> Result<Vec<Compared>, ReportError> {
    // The seeds of two runs need not be the same; their items are.
    let side = |cell: &Cell, side: &str| Cell {
        coordinates: [(SIDE.to_owned(), side.to_owned())].into(),
        point: None,
        seed: 0,
        ..cell.clone()
    };
    let cells = [side(a, "a"), side(b, "b")];
    let report = Report::default();
    let study = Study { name: "", description: "", report: &report, claims: &[], cells: &cells };
    let records = Records::collect(&study, store)?;
    let value = |name: &str| {
        let of = |point: usize| records.samples(point, name).first().and_then(|sample| Some(sample.number?.value));
        let (a, b) = (of(0), of(1));
        let difference = Sides::of(&[1], &[0], name, &records).compare().map(|(.., difference)| difference);
        let (_, decimals) = names::value(name);
        (a.is_some() || b.is_some()).then(|| Compared { value: name.to_owned(), decimals, a, b, difference })
    };
    let mut all: Vec<String> = Value::names();
    all.extend(records.parts());
    Ok(all.iter().filter_map(|name| value(name)).collect())
}

//! What a comparison rests on: the same items answered by both sides, seeds as a second level, and how many looks were taken.
//!
//! Claims, bold entries, notes and captions are all made from this. [`Sides`] pairs two groups of points seed by seed and item by item,
//! [`Difference`] is their mean difference with its [`Spread`] over seeds and items, [`looks`] corrects for several comparisons at once,
//! and `power` says what a comparison could have seen.

mod difference;
mod items;
pub mod looks;
mod power;
mod sides;
mod spread;
mod words;

pub use difference::{Basis, Difference, ROUNDING, Seeds};
pub use items::{ItemScores, Items, contributions};
pub use power::Needed;
pub use sides::{Pair, Side, Sides};
pub use spread::{Group, Part, Row, Spread, TestSet};
pub use words::{Replicates, bold_note, interval, replicates};

use ressa_experiment::value::Value;

use crate::records::Records;

/// Two-sided level behind bold entries: the best of a column is bold with a probability of at least 95 %.
const BOLD: f64 = 0.1;

/// One comparison with its numbers.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Label at which it was made.
    pub place: String,
    /// Left side.
    pub a: f64,
    /// Right side.
    pub b: f64,
    /// `a - b`; `None` where nothing could be compared.
    pub difference: Option<Difference>,
    /// Distinct pairs there are.
    pub there: usize,
    /// Distinct pairs planned.
    pub expected: usize,
    /// Digits after the point.
    pub decimals: usize,
}

impl Evidence {
    /// Compares two sides.
    pub fn of(place: String, sides: &Sides, decimals: usize) -> Self {
        let (a, b, difference) = match sides.compare() {
            Some((a, b, difference)) => (a, b, Some(difference)),
            None => (f64::NAN, f64::NAN, None),
        };
        let there = sides.distinct().count();
        Self { place, a, b, difference, there, expected: sides.expected, decimals }
    }

    /// Whether it rests on fewer seeds than planned.
    pub fn is_incomplete(&self) -> bool {
        self.there < self.expected
    }

    /// `+3.1 ± 0.8 (n = 3 seeds, 1000 items)`.
    pub fn text(&self) -> String {
        match &self.difference {
            Some(d) if self.is_incomplete() => interval(d, d.half_width(), self.decimals, Some(self.expected)),
            Some(d) => interval(d, d.half_width(), self.decimals, None),
            None => "no result yet".to_owned(),
        }
    }
}

/// Which of several points cannot be told from the best of them.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// One per point: the best, and those whose difference to it could be zero or cannot be computed.
    pub tied: Vec<bool>,
    /// The differences of the best to the others.
    pub differences: Vec<Difference>,
}

/// Items below which a ranking says nothing, so that nothing is bold.
const FEWEST: usize = 10;

/// Compares the best of some points, each with its mean, with the others. The level holds for all comparisons together, so the point that
/// is truly best is among the tied ones with 95 % probability. `None` where nothing can be compared.
pub fn rank(points: &[(usize, f64)], value: &str, records: &Records) -> Option<Ranking> {
    let falls = value.parse::<Value>().is_ok_and(|value| value.lower_is_better());
    let order = |a: &&(usize, f64), b: &&(usize, f64)| if falls { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) };
    let best = points.iter().max_by(order)?.0;
    let side = |point| Side::points(&[point], value, records);
    let of_best = side(best);
    let compare = |&(point, _): &(usize, f64)| {
        if point == best { None } else { Some(Sides::new(of_best.clone(), side(point)).compare()?.2) }
    };
    let compared: Vec<Option<Difference>> = points.iter().map(compare).collect();
    let differences: Vec<Difference> = compared.iter().flatten().cloned().collect();
    // On a handful of items everything would stand as not told apart from the best, 0 beside 100.
    if differences.is_empty() || differences.iter().any(|difference| difference.items < FEWEST) {
        return None;
    }
    let level = looks::max_level(&differences.iter().collect::<Vec<_>>(), points.len() - 1, BOLD);
    let beaten = |d: &Difference| if falls { d.is_below(0.0, level) } else { d.is_above(0.0, level) };
    let tied = compared.iter().map(|d| d.as_ref().is_none_or(|d| !beaten(d))).collect();
    Some(Ranking { tied, differences })
}

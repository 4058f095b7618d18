//! A difference of two means with what it rests on.

use super::spread::{Group, Row, Spread, TestSet};
use crate::statistics::LEVEL;

/// Differences up to this size are rounding of sums in double precision and decide nothing.
pub const ROUNDING: f64 = 1e-9;

/// Measurements on both sides of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// Seeds that both sides have, subtracted seed by seed.
    Paired(usize),
    /// The sides have measurements for different seeds.
    Apart(usize, usize),
}

impl Seeds {
    /// Measurements on the side that has fewer.
    pub fn n(self) -> usize {
        match self {
            Seeds::Paired(n) => n,
            Seeds::Apart(a, b) => a.min(b),
        }
    }
}

/// How the error over items was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Both sides' points are subtracted item by item.
    Items,
    /// Standard errors of both scores, taken as independent: the points of single items are not stored.
    Errors,
}

/// A difference of means.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Mean of `a - b`.
    pub mean: f64,
    /// Distinct measurements.
    pub seeds: Seeds,
    /// Items behind it, over all test sets.
    pub items: usize,
    /// How the error over items was found.
    pub basis: Basis,
    /// How it varies over seeds and items.
    pub spread: Spread,
}

impl Difference {
    /// A paired difference from the contributions of each seed.
    ///
    /// # Example
    /// ```
    /// use ressa_report::evidence::{Difference, Row, TestSet};
    /// // Two seeds, four items of which one differs.
    /// let set = TestSet { weights: vec![1.0; 4], reach: 100.0 };
    /// let row = Row { value: 25.0, sets: vec![vec![0.0, 0.0, 0.0, 100.0]] };
    /// let difference = Difference::paired(&[set], vec![row.clone(), row], 4).unwrap();
    /// assert_eq!(difference.mean, 25.0);
    /// assert!(!difference.is_above(0.0, 0.05));
    /// ```
    pub fn paired(sets: &[TestSet], rows: Vec<Row>, items: usize) -> Option<Self> {
        let seeds = Seeds::Paired(rows.len());
        Self::of(sets, vec![Group { rows, sign: 1.0 }], seeds, items)
    }

    /// A difference of two sides with seeds of their own.
    pub fn apart(sets: &[TestSet], a: Vec<Row>, b: Vec<Row>, items: usize) -> Option<Self> {
        let seeds = Seeds::Apart(a.len(), b.len());
        Self::of(sets, vec![Group { rows: a, sign: 1.0 }, Group { rows: b, sign: -1.0 }], seeds, items)
    }

    fn of(sets: &[TestSet], groups: Vec<Group>, seeds: Seeds, items: usize) -> Option<Self> {
        let spread = Spread::of(sets, &groups)?;
        let mean = |group: &Group| group.rows.iter().map(|row| row.value).sum::<f64>() / group.rows.len() as f64;
        let mean = groups.iter().map(|group| group.sign * mean(group)).sum();
        Some(Self { mean, seeds, items, basis: Basis::Items, spread })
    }

    /// Half-width of the 95 % interval.
    pub fn half_width(&self) -> f64 {
        self.spread.half_width(LEVEL)
    }

    /// Whether the interval at a two-sided level lies above a limit.
    pub fn is_above(&self, limit: f64, level: f64) -> bool {
        self.mean - self.spread.half_width(level) > limit + ROUNDING
    }

    /// Whether the interval at a two-sided level lies below a limit.
    pub fn is_below(&self, limit: f64, level: f64) -> bool {
        self.mean + self.spread.half_width(level) < limit - ROUNDING
    }

    /// Whether the interval at a two-sided level reaches at most up to a limit.
    pub fn is_within(&self, limit: f64, level: f64) -> bool {
        self.mean + self.spread.half_width(level) <= limit + ROUNDING
    }
}

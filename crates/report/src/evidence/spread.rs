//! Variance of a mean difference over seeds and items, and intervals from it.
//!
//! Items are crossed with seeds: every run answers the same items. A difference `d[s][i]` of seed `s` at item `i` is a mean, an effect of
//! the seed, an effect of the item and a rest, so the variance of the mean over `n` seeds and `m` items is
//!
//! ```text
//! seed/n + item/m + rest/(n m)
//! ```
//!
//! Three mean squares estimate it: that of seed means over n, `S`, expects `seed/n + rest/(n m)`; that of item means over m, `I`, expects
//! `item/m + rest/(n m)`; that of the rest over n m, `R`, expects the last term. So `S + (I - R)` expects the variance. `S` has n - 1
//! degrees of freedom and may be two; the others have hundreds. The interval is therefore not Student's with one number of degrees but
//!
//! ```text
//! half-width^2 = t(n - 1)^2 S + t(m - 1)^2 (I - R)
//! ```
//!
//! which covers at least its nominal share whatever the ratio of the two (Banerjee, Sankhya 1961: the probability that a normal deviate
//! is below a bound is concave in the bound's square), and is never less than `t(m - 1)^2 I`, what the items alone ask for. With one seed
//! only that is left. Several test sets add their variances; seeds are taken over the whole, since one seed moves all test sets.
//!
//! Where points are bounded, two items that were not seen, one won and one lost, are added to the squares: where few or no items differ,
//! their observed variance says less than is so (Agresti and Min, 2005; without any differing item it is the rule of three).

use crate::statistics::t_quantile;

/// An estimated variance with its degrees of freedom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// The variance, of a mean.
    pub variance: f64,
    /// Degrees of freedom.
    pub freedom: f64,
}

impl Part {
    /// The square of a half-width at a two-sided level from this variance alone.
    fn square(&self, level: f64) -> f64 {
        if self.variance > 0.0 { t_quantile(level, self.freedom).powi(2) * self.variance } else { 0.0 }
    }
}

/// How a mean difference varies.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Over seeds, `S`; none with a single seed, two where the sides have different seeds.
    pub(super) seeds: Vec<Part>,
    /// Over the items of each test set, `I`.
    pub(super) items: Vec<Part>,
    /// Of each test set, what `items` and `seeds` both contain, `R`.
    pub(super) rest: Vec<f64>,
    /// What each unit of each test set adds to the deviation of the mean; empty where items are not known.
    pub(super) influence: Vec<Vec<f64>>,
}

/// One test set of a comparison.
#[derive(Clone, Debug)]
pub struct TestSet {
    /// Size of each unit, 1 on average.
    pub weights: Vec<f64>,
    /// The most by which one item can move one unit's contribution.
    pub reach: f64,
}

/// One seed's contributions.
#[derive(Clone, Debug)]
pub struct Row {
    /// The value: the sum over test sets of the mean contribution.
    pub value: f64,
    /// Contributions per test set and unit.
    pub sets: Vec<Vec<f64>>,
}

/// Rows whose mean enters a difference: paired differences, or one of two sides with seeds of its own.
#[derive(Clone, Debug)]
pub struct Group {
    /// One row per distinct measurement.
    pub rows: Vec<Row>,
    /// 1, or -1 for a side that is subtracted.
    pub sign: f64,
}

impl Spread {
    /// From contributions; `None` with fewer than two units in a test set, or a group without rows.
    pub fn of(sets: &[TestSet], groups: &[Group]) -> Option<Self> {
        if sets.iter().any(|set| set.weights.len() < 2) || groups.iter().any(|group| group.rows.is_empty()) {
            return None;
        }
        let mut spread = Self { seeds: Vec::new(), items: Vec::new(), rest: Vec::new(), influence: Vec::new() };
        for group in groups {
            let values: Vec<f64> = group.rows.iter().map(|row| row.value).collect();
            spread.seeds.extend(over_seeds(&values));
        }
        for (at, set) in sets.iter().enumerate() {
            let units = set.weights.len() as f64;
            let mut combined = vec![0.0; set.weights.len()];
            let mut rest = 0.0;
            for group in groups {
                let n = group.rows.len() as f64;
                let mut mean = vec![0.0; set.weights.len()];
                for row in &group.rows {
                    mean.iter_mut().zip(&row.sets[at]).for_each(|(sum, value)| *sum += value / n);
                }
                if group.rows.len() > 1 {
                    let squares: f64 = group.rows.iter().map(|row| crossed(&row.sets[at], &mean, &set.weights)).sum();
                    rest += squares / ((n - 1.0) * (units - 1.0)) / (n * units);
                }
                combined.iter_mut().zip(&mean).for_each(|(sum, value)| *sum += group.sign * value);
            }
            let center = combined.iter().sum::<f64>() / units;
            combined.iter_mut().zip(&set.weights).for_each(|(value, weight)| *value -= center * weight);
            let squares = combined.iter().map(|r| r * r).sum::<f64>() + 2.0 * set.reach * set.reach;
            spread.items.push(Part { variance: squares / (units * (units - 1.0)), freedom: units - 1.0 });
            spread.rest.push(rest);
            let scale = 1.0 / (units * (units - 1.0)).sqrt();
            spread.influence.push(combined.into_iter().map(|r| r * scale).collect());
        }
        Some(spread)
    }

    /// From standard errors of both sides, where single items are not known: they are taken as independent, which is too wide where both
    /// sides answer the same items, as they do.
    pub fn of_errors(groups: &[Vec<f64>], error: f64, items: u64) -> Self {
        Self {
            seeds: groups.iter().flat_map(|values| over_seeds(values)).collect(),
            items: vec![Part { variance: error * error, freedom: (items as f64 - 1.0).max(1.0) }],
            rest: vec![0.0],
            influence: Vec::new(),
        }
    }

    /// Half-width of the interval at a two-sided level.
    pub fn half_width(&self, level: f64) -> f64 {
        let seeds: f64 = self.seeds.iter().map(|part| part.square(level)).sum();
        let items: f64 = self.items.iter().map(|part| part.square(level)).sum();
        let only = |(part, rest): (&Part, &f64)| Part { variance: (part.variance - rest).max(0.0), ..*part };
        let apart: f64 = self.items.iter().zip(&self.rest).map(only).map(|part| part.square(level)).sum();
        (seeds + apart).max(items).sqrt()
    }

    /// `S`, `I` and `R`, over all test sets.
    pub fn mean_squares(&self) -> (f64, f64, f64) {
        let sum = |parts: &[Part]| parts.iter().map(|part| part.variance).sum::<f64>();
        (sum(&self.seeds), sum(&self.items), self.rest.iter().sum())
    }

    /// Estimated variance of the mean difference, `S + (I - R)` and at least `I`.
    pub fn variance(&self) -> f64 {
        let (seeds, items, rest) = self.mean_squares();
        (seeds + (items - rest).max(0.0)).max(items)
    }

    /// Covariance over items with another difference on the same items; 0 where that is not known.
    pub(super) fn shared(&self, other: &Spread) -> f64 {
        if self.influence.len() != other.influence.len() {
            return 0.0;
        }
        let product = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let same = self.influence.iter().zip(&other.influence).all(|(a, b)| a.len() == b.len());
        if same { self.influence.iter().zip(&other.influence).map(product).sum() } else { 0.0 }
    }
}

/// Variance of the mean over seeds; `None` with a single one.
fn over_seeds(values: &[f64]) -> Option<Part> {
    let n = values.len() as f64;
    let (_, std) = crate::statistics::mean_std(values);
    (values.len() > 1).then(|| Part { variance: std * std / n, freedom: n - 1.0 })
}

/// Sum of squares of what one seed's contributions have beside the effects of seed and item.
fn crossed(row: &[f64], mean: &[f64], weights: &[f64]) -> f64 {
    let units = row.len() as f64;
    let shift = row.iter().zip(mean).map(|(value, mean)| value - mean).sum::<f64>() / units;
    let rest = |((value, mean), weight): ((&f64, &f64), &f64)| (value - mean - shift * weight).powi(2);
    row.iter().zip(mean).zip(weights).map(rest).sum()
}

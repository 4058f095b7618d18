//! Two groups of points, averaged seed by seed and item by item, and subtracted.
//!
//! Averages over points and labels are taken item by item before anything is squared: points answer the same items, so their errors are
//! not independent. A seed counts only if every point of a side has a result for it, and seeds that share all their stages count once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ressa_experiment::value::Value;

use super::{Basis, Difference, ItemScores, Row, Seeds, Spread, TestSet};
use crate::records::Records;

/// Points of an item that is fully right.
const FULL: f64 = 100.0;

/// A side: what it scores with each seed.
#[derive(Clone, Debug, Default)]
pub struct Side(BTreeMap<u64, Measured>);

/// One seed of a side.
#[derive(Clone, Debug)]
struct Measured {
    /// Stages behind it.
    source: Arc<str>,
    /// The score, once all of it is there.
    score: Option<SideScore>,
}

#[derive(Clone, Debug)]
struct SideScore {
    value: f64,
    error: f64,
    /// Items behind it, where only their number is known.
    items: u64,
    sets: Option<Vec<Set>>,
}

/// Contributions to a side's value from one test set.
#[derive(Clone, Debug)]
struct Set {
    scores: Arc<ItemScores>,
    /// Share of the test set's mean in the value.
    share: f64,
    /// Contributions, where they are not the scores' own: means over several points.
    own: Option<Vec<f64>>,
}

impl Set {
    fn values(&self) -> &[f64] {
        self.own.as_deref().unwrap_or(&self.scores.values)
    }
}

impl Side {
    /// What one point scores.
    fn point(point: usize, value: &str, records: &Records) -> Self {
        let kind = value.parse::<Value>().ok();
        let measured = |sample: &crate::records::Sample| {
            let score = sample.number.map(|number| {
                let scores = kind.as_ref().and_then(|kind| records.items.of(&sample.source, kind));
                let sets = scores.map(|scores| {
                    let share = 1.0 / scores.len() as f64;
                    scores.into_iter().map(|scores| Set { scores, share, own: None }).collect()
                });
                SideScore { value: number.value, error: number.standard_error, items: number.items, sets }
            });
            (sample.seed, Measured { source: sample.source.clone(), score })
        };
        Self(records.samples(point, value).iter().map(measured).collect())
    }

    /// The mean over points; points that cannot have the value are left out.
    pub fn points(points: &[usize], value: &str, records: &Records) -> Self {
        let there = points.iter().filter(|point| !records.samples(**point, value).is_empty());
        Self::mean(&there.map(|point| Self::point(*point, value, records)).collect::<Vec<_>>())
    }

    /// The mean of several sides, for the seeds that all have.
    pub fn mean(sides: &[Side]) -> Self {
        match sides {
            [] => Self::default(),
            [one] => one.clone(),
            [first, ..] => {
                let seeds = first.0.keys().filter(|seed| sides.iter().all(|side| side.0.contains_key(seed)));
                Self(seeds.map(|seed| (*seed, mean(&sides.iter().map(|s| &s.0[seed]).collect::<Vec<_>>()))).collect())
            }
        }
    }

    /// Distinct measurements there are.
    fn distinct(&self) -> Vec<&SideScore> {
        let mut sources = BTreeSet::new();
        let new = self.0.values().filter(|m| m.score.is_some()).filter(|m| sources.insert(&m.source));
        new.filter_map(|m| m.score.as_ref()).collect()
    }
}

fn mean(measured: &[&Measured]) -> Measured {
    let source = measured.iter().map(|m| &*m.source).collect::<Vec<_>>().join(" ").into();
    let scores: Option<Vec<&SideScore>> = measured.iter().map(|m| m.score.as_ref()).collect();
    let n = measured.len() as f64;
    let score = scores.map(|scores| SideScore {
        value: scores.iter().map(|s| s.value).sum::<f64>() / n,
        // The same items: at most the mean of the errors, and close to it.
        error: scores.iter().map(|s| s.error).sum::<f64>() / n,
        items: scores.iter().map(|s| s.items).max().unwrap_or(0),
        sets: mean_sets(&scores),
    });
    Measured { source, score }
}

fn mean_sets(scores: &[&SideScore]) -> Option<Vec<Set>> {
    let all: Vec<&Vec<Set>> = scores.iter().map(|score| score.sets.as_ref()).collect::<Option<_>>()?;
    let first = all.first()?;
    let lists = |sets: &[Set]| sets.iter().map(|set| set.scores.list).collect::<Vec<u64>>();
    if all.iter().any(|sets| lists(sets) != lists(first)) {
        return None;
    }
    let at = |(at, set): (usize, &Set)| {
        let mut own = vec![0.0; set.values().len()];
        for sets in &all {
            own.iter_mut().zip(sets[at].values()).for_each(|(sum, value)| *sum += value / all.len() as f64);
        }
        Set { own: Some(own), ..set.clone() }
    };
    Some(first.iter().enumerate().map(at).collect())
}

/// One seed that both sides have.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The seed.
    pub seed: u64,
    /// Left side.
    pub a: f64,
    /// Right side.
    pub b: f64,
    /// Whether an earlier seed has the same stages, so that this one is no new measurement.
    pub repeated: bool,
}

/// Both sides of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Sides {
    /// Left side.
    pub a: Side,
    /// Right side.
    pub b: Side,
    /// Seeds with a result on both sides.
    pub pairs: Vec<Pair>,
    /// Distinct pairs planned.
    pub expected: usize,
}

impl Sides {
    /// Two sides with the seeds that both have.
    pub fn new(a: Side, b: Side) -> Self {
        let mut sides = Sides { a, b, pairs: Vec::new(), expected: 0 };
        let mut sources = BTreeSet::new();
        for (seed, a) in &sides.a.0 {
            let Some(b) = sides.b.0.get(seed) else { continue };
            let repeated = !sources.insert((&a.source, &b.source));
            sides.expected += usize::from(!repeated);
            if let (Some(a), Some(b)) = (&a.score, &b.score) {
                sides.pairs.push(Pair { seed: *seed, a: a.value, b: b.value, repeated });
            }
        }
        sides
    }

    /// Two groups of points.
    pub fn of(a: &[usize], b: &[usize], value: &str, records: &Records) -> Self {
        Self::new(Side::points(a, value, records), Side::points(b, value, records))
    }

    /// Pairs that are measurements of their own.
    pub fn distinct(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(|pair| !pair.repeated)
    }

    /// Means of both sides and their difference; `None` where a side has no result.
    pub fn compare(&self) -> Option<(f64, f64, Difference)> {
        let pairs: Vec<&Pair> = self.distinct().collect();
        let (a, b) = (self.a.distinct(), self.b.distinct());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        // With at most one seed in common, more is known from the seeds of each side.
        if pairs.len() > 1 || (!pairs.is_empty() && a.len() <= 1 && b.len() <= 1) {
            let of = |side: &Side| pairs.iter().filter_map(|p| side.0[&p.seed].score.clone()).collect::<Vec<_>>();
            let (left, right) = (of(&self.a), of(&self.b));
            let means = (
                mean(&pairs.iter().map(|p| p.a).collect::<Vec<_>>()),
                mean(&pairs.iter().map(|p| p.b).collect::<Vec<_>>()),
            );
            let (left, right): (Vec<_>, Vec<_>) = (left.iter().collect(), right.iter().collect());
            let same = pairs.iter().all(|p| self.a.0[&p.seed].source == self.b.0[&p.seed].source);
            return Some((means.0, means.1, paired(&left, &right, same)));
        }
        if a.is_empty() || b.is_empty() {
            return None;
        }
        let values = |side: &[&SideScore]| side.iter().map(|score| score.value).collect::<Vec<f64>>();
        Some((mean(&values(&a)), mean(&values(&b)), apart(&a, &b)))
    }
}

/// `same` says that both sides are one measurement, whose difference to itself has no error.
fn paired(a: &[&SideScore], b: &[&SideScore], same: bool) -> Difference {
    let items = test_sets(a, b).and_then(|(mut sets, items)| {
        if same {
            sets.iter_mut().for_each(|set| set.reach = 0.0);
        }
        let row = |(a, b): (&&SideScore, &&SideScore)| {
            let (left, right) = (a.sets.as_ref()?, b.sets.as_ref()?);
            let set = |(x, y): (&Set, &Set)| {
                x.values().iter().zip(y.values()).map(|(x_u, y_u)| x.share * (x_u - y_u)).collect()
            };
            Some(Row { value: a.value - b.value, sets: left.iter().zip(right).map(set).collect() })
        };
        Difference::paired(&sets, a.iter().zip(b).map(row).collect::<Option<_>>()?, items)
    });
    let values = || a.iter().zip(b).map(|(a, b)| a.value - b.value).collect::<Vec<f64>>();
    items.unwrap_or_else(|| {
        let mut difference = from_errors(a, b, vec![values()], Seeds::Paired(a.len()));
        if same {
            difference.spread = Spread::of_errors(&[values()], 0.0, 0);
        }
        difference
    })
}

fn apart(a: &[&SideScore], b: &[&SideScore]) -> Difference {
    let items = test_sets(a, b).and_then(|(sets, items)| {
        let row = |score: &&SideScore| {
            let set = |set: &Set| set.values().iter().map(|value| set.share * value).collect();
            Some(Row { value: score.value, sets: score.sets.as_ref()?.iter().map(set).collect() })
        };
        let rows = |side: &[&SideScore]| side.iter().map(row).collect::<Option<Vec<Row>>>();
        Difference::apart(&sets, rows(a)?, rows(b)?, items)
    });
    let values = |side: &[&SideScore]| side.iter().map(|score| score.value).collect::<Vec<f64>>();
    items.unwrap_or_else(|| from_errors(a, b, vec![values(a), values(b)], Seeds::Apart(a.len(), b.len())))
}

/// The test sets that all scores have in common with their number of items; `None` where they differ or are not known.
fn test_sets(a: &[&SideScore], b: &[&SideScore]) -> Option<(Vec<TestSet>, usize)> {
    let all: Vec<&Vec<Set>> = a.iter().chain(b).map(|score| score.sets.as_ref()).collect::<Option<_>>()?;
    let first = all.first()?;
    let same = |sets: &&&Vec<Set>| {
        sets.len() == first.len() && sets.iter().zip(*first).all(|(x, y)| x.scores.list == y.scores.list)
    };
    if !all.iter().all(|sets| same(&sets)) {
        return None;
    }
    let set = |(at, set): (usize, &Set)| {
        let reach = set.scores.reach.unwrap_or_else(|| {
            // Without a bound: as far as the points that there are lie apart.
            let values = || all.iter().flat_map(|sets| sets[at].values());
            values().copied().fold(f64::NEG_INFINITY, f64::max) - values().copied().fold(f64::INFINITY, f64::min)
        });
        TestSet { weights: set.scores.weights.clone(), reach: set.share * reach }
    };
    let sets = first.iter().enumerate().map(set).collect();
    Some((sets, first.iter().map(|set| set.scores.items).sum()))
}

fn from_errors(a: &[&SideScore], b: &[&SideScore], groups: Vec<Vec<f64>>, seeds: Seeds) -> Difference {
    let square = |side: &[&SideScore]| side.iter().map(|s| s.error * s.error).sum::<f64>() / side.len() as f64;
    let items = a.iter().chain(b).map(|score| score.items).min().unwrap_or(0);
    let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let mean = match groups.as_slice() {
        [differences] => mean(differences),
        [a, b] => mean(a) - mean(b),
        _ => 0.0,
    };
    // Two items that were not seen, as where items are known; a counted value has no items, and no error over them.
    let n = items as f64;
    let unseen = if items == 0 { 0.0 } else { 2.0 * FULL * FULL / (n * (n - 1.0).max(1.0)) };
    let spread = Spread::of_errors(&groups, (square(a) + square(b) + unseen).sqrt(), items);
    Difference { mean, seeds, items: items as usize, basis: Basis::Errors, spread }
}

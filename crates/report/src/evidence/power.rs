//! What a comparison could have seen, and what it would take to decide it.

use super::{
    Difference,
    spread::{Part, Spread},
};
use crate::statistics::LEVEL;

/// Two-sided level whose one-sided quantile is passed with 80 % probability.
const POWER: f64 = 0.4;
/// More seeds than this are not proposed.
const MOST_SEEDS: usize = 200;
/// More items than so many times those of now are not proposed.
const MOST_ITEMS: f64 = 10_000.0;

/// What would decide a comparison if the difference is what it was found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Needed {
    /// Seeds in all, with the items of now; `None` where no number of them would do, or a single seed says nothing about their spread.
    pub seeds: Option<usize>,
    /// Items in all, with the seeds of now; `None` where no number of them would do.
    pub items: Option<usize>,
}

impl Difference {
    /// The least difference that is seen with 80 % probability by a test at the level of the 95 % interval.
    pub fn detectable(&self) -> f64 {
        detectable(&self.spread, LEVEL)
    }

    /// What would show a difference of `gap` with 80 % probability at a two-sided level.
    pub fn needed(&self, gap: f64, level: f64) -> Needed {
        if gap <= super::ROUNDING {
            return Needed::default();
        }
        let n = self.seeds.n();
        let seeds = least(n, MOST_SEEDS, |seeds| detectable(&self.with(seeds, 1.0), level) <= gap);
        let items = least(100, (100.0 * MOST_ITEMS) as usize, |percent| {
            detectable(&self.with(n, percent as f64 / 100.0), level) <= gap
        });
        Needed {
            seeds: seeds.filter(|_| !self.spread.seeds.is_empty()),
            items: items.map(|percent| (self.items as f64 * percent as f64 / 100.0).ceil() as usize),
        }
    }

    /// The spread with another number of seeds, and so many times the items.
    fn with(&self, seeds: usize, items: f64) -> Spread {
        let rest: f64 = self.spread.rest.iter().sum();
        // Where there is a single seed, nothing is known about others and nothing is divided.
        let fewer = match self.spread.seeds.is_empty() {
            true => 1.0,
            false => self.seeds.n() as f64 / seeds as f64,
        };
        let of_seeds = |part: &Part| {
            let own = (part.variance - rest / self.spread.seeds.len() as f64).max(0.0);
            let variance = fewer * (own + (part.variance - own) / items);
            Part { variance, freedom: (seeds as f64 - 1.0).max(1.0) }
        };
        let of_items = |(part, rest): (&Part, &f64)| Part {
            variance: ((part.variance - rest).max(0.0) + rest * fewer) / items,
            freedom: (part.freedom + 1.0) * items - 1.0,
        };
        Spread {
            seeds: self.spread.seeds.iter().map(of_seeds).collect(),
            items: self.spread.items.iter().zip(&self.spread.rest).map(of_items).collect(),
            rest: self.spread.rest.iter().map(|rest| rest * fewer / items).collect(),
            influence: Vec::new(),
        }
    }
}

fn detectable(spread: &Spread, level: f64) -> f64 {
    spread.half_width(level) + spread.half_width(POWER)
}

/// The least number from `from` to `to` that is enough, where more is never worse.
fn least(from: usize, to: usize, enough: impl Fn(usize) -> bool) -> Option<usize> {
    let to = to.max(from);
    if !enough(to) {
        return None;
    }
    let (mut low, mut high) = (from.saturating_sub(1), to);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle.max(1)) { high = middle } else { low = middle }
    }
    Some(high)
}

//! Worlds in which the truth is known: items that are right or wrong, with what runs have in common.
//!
//! An item is right if a normal deviate is below a bound that its score asks for. The deviate is the sum of what the item is for every
//! run, what it is for one side whatever the seed, what the seed is for every item of a side, and what is left.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use ressa_report::{
    evidence::{Difference, Row, TestSet},
    statistics::normal_quantile,
};

/// A study.
#[derive(Clone, Copy)]
pub struct Design {
    /// What is special about it.
    pub name: &'static str,
    /// Labels compared.
    pub labels: usize,
    /// Seeds of each side.
    pub seeds: usize,
    /// Items of the test set.
    pub items: usize,
    /// Share of the variance that an item has for every run.
    pub common: f64,
    /// Share that it has for all seeds of one side.
    pub own: f64,
    /// Standard deviation of what a seed is to all items; 0.05 are two points.
    pub seed_std: f64,
    /// Items about one image, which are alike.
    pub cluster: usize,
}

/// Points of all items in one run.
#[derive(Clone)]
pub struct Run {
    /// 0 or 100 for each item, or a mean of such.
    pub points: Vec<f64>,
    /// Their mean.
    pub value: f64,
}

impl Run {
    fn of(points: Vec<f64>) -> Self {
        let value = points.iter().sum::<f64>() / points.len() as f64;
        Self { points, value }
    }
}

impl Design {
    /// Runs of several sides with the given true scores in points.
    pub fn draw(&self, scores: &[f64], seed: u64) -> Vec<Vec<Run>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut normals = |count: usize, variance: f64| -> Vec<f64> {
            let std = variance.max(0.0).sqrt();
            // Items about one image have half of it in common.
            let mut image = 0.0;
            let mut one = |item: usize| {
                let own: f64 = StandardNormal.sample(&mut rng);
                if self.cluster == 1 {
                    return std * own;
                }
                if item.is_multiple_of(self.cluster) {
                    image = StandardNormal.sample(&mut rng);
                }
                std * std::f64::consts::FRAC_1_SQRT_2 * (own + image)
            };
            (0..count).map(&mut one).collect()
        };
        let common = normals(self.items, self.common);
        let left = 1.0 - self.common - self.own - self.seed_std * self.seed_std;
        scores
            .iter()
            .map(|score| {
                let bound = bound(*score);
                let own = normals(self.items, self.own);
                (0..self.seeds)
                    .map(|_| {
                        let seed = normals(1, self.seed_std * self.seed_std)[0];
                        let rest = if left > 1e-9 { normals(self.items, left) } else { vec![0.0; self.items] };
                        let right = |item: usize| common[item] + own[item] + seed + rest[item] < bound;
                        Run::of((0..self.items).map(|item| if right(item) { 100.0 } else { 0.0 }).collect())
                    })
                    .collect()
            })
            .collect()
    }

    /// The difference of two sides, seed by seed and item by item.
    pub fn difference(&self, a: &[Run], b: &[Run]) -> Difference {
        let units = self.items / self.cluster;
        let set = TestSet { weights: vec![1.0; units], reach: 100.0 / self.cluster as f64 };
        let row = |(a, b): (&Run, &Run)| {
            let points: Vec<f64> = a.points.iter().zip(&b.points).map(|(a, b)| a - b).collect();
            let unit = |items: &[f64]| items.iter().sum::<f64>() / items.len() as f64;
            Row { value: a.value - b.value, sets: vec![points.chunks(self.cluster).map(unit).collect()] }
        };
        let rows = a.iter().zip(b).map(row).collect();
        Difference::paired(&[set], rows, self.items).expect("more than one image")
    }

    /// The mean of several sides, seed by seed.
    pub fn mean(&self, sides: &[&[Run]]) -> Vec<Run> {
        let point = |seed: usize, item: usize| sides.iter().map(|side| side[seed].points[item]).sum::<f64>();
        let run = |seed: usize| Run::of((0..self.items).map(|item| point(seed, item) / sides.len() as f64).collect());
        (0..self.seeds).map(run).collect()
    }
}

/// The bound below which a standard normal deviate lies with a probability given in percent.
fn bound(percent: f64) -> f64 {
    let above = percent > 50.0;
    let tail = if above { 100.0 - percent } else { percent };
    let bound = normal_quantile(tail / 50.0);
    if above { bound } else { -bound }
}

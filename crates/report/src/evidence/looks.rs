//! Several looks at one question: corrections that keep the rate of a false "somewhere" at its level.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use super::Difference;
use crate::statistics::{normal_quantile, normal_two_sided_p};

/// Draws behind the distribution of a maximum: its tail of 2.5 % is known to 0.1 %.
const DRAWS: usize = 20_000;
/// Every report draws the same.
const SEED: u64 = 0x7265_7373_6164_7261;

/// Holm's procedure: which of `planned` looks reject at a level that holds for all of them together. `rejects` tests one at a given level.
pub fn holm(
    found: &[&Difference],
    planned: usize,
    level: f64,
    rejects: impl Fn(&Difference, f64) -> bool,
) -> Vec<bool> {
    let planned = planned.max(found.len());
    let mut rejected = vec![false; found.len()];
    loop {
        let left = planned - rejected.iter().filter(|r| **r).count();
        let now: Vec<bool> =
            found.iter().zip(&rejected).map(|(d, known)| *known || rejects(d, level / left.max(1) as f64)).collect();
        if now == rejected {
            return now;
        }
        rejected = now;
    }
}

/// The two-sided level at which each of several differences can be tested on one side, so that one of them is falsely rejected at half
/// of `level` at most: from the distribution of the largest of them. What they share is what they share over items; what they share over
/// seeds is taken as nothing, which is cautious. `planned` is how many there will be.
pub fn max_level(found: &[&Difference], planned: usize, level: f64) -> f64 {
    let planned = planned.max(found.len()).max(1);
    let bonferroni = level / planned as f64;
    if planned == 1 || found.len() < planned || found.iter().any(|d| d.spread.influence.is_empty()) {
        return bonferroni;
    }
    let own = |d: &Difference| d.spread.variance().max(d.spread.shared(&d.spread)).max(f64::MIN_POSITIVE);
    let scale: Vec<f64> = found.iter().map(|d| own(d).sqrt()).collect();
    let correlation = |a: usize, b: usize| match a == b {
        true => 1.0,
        false => found[a].spread.shared(&found[b].spread) / (scale[a] * scale[b]),
    };
    let factor = factor(found.len(), correlation);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut largest: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let normal: Vec<f64> = (0..found.len()).map(|_| StandardNormal.sample(&mut rng)).collect();
            let at = |row: &Vec<f64>| row.iter().zip(&normal).map(|(f, z)| f * z).sum::<f64>();
            factor.iter().map(at).fold(f64::NEG_INFINITY, f64::max)
        })
        .collect();
    largest.sort_unstable_by(f64::total_cmp);
    let critical = largest[((1.0 - 0.5 * level) * DRAWS as f64) as usize];
    // A maximum is at least as large as one of its members and at most what as many independent looks would ask for.
    normal_two_sided_p(critical.max(normal_quantile(level))).max(bonferroni)
}

/// The lower Cholesky factor of a correlation matrix; a pivot of nothing leaves its column empty.
fn factor(size: usize, of: impl Fn(usize, usize) -> f64) -> Vec<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(size);
    for i in 0..size {
        let mut row = vec![0.0; i + 1];
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| row[k] * if j == i { row[k] } else { rows[j][k] }).sum();
            let left = of(i, j) - known;
            row[j] = match j == i {
                true => left.max(0.0).sqrt(),
                false if rows[j][j] > 1e-9 => left / rows[j][j],
                false => 0.0,
            };
        }
        rows.push(row);
    }
    rows
}

//! Which rows of a training's batches are drawn from which domain, where the weights of domains change on the way.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use ressa_data::stream::{Purpose, distinct, stream};

/// Domains of rows: functions of a seed, a step and the weights up to that step.
pub(crate) struct Mix {
    seed: u64,
    /// Rows of a batch.
    rows: usize,
    /// Names of the domains, and the shares that the data has.
    domains: Vec<(String, f64)>,
    drawn: Mutex<Drawn>,
}

/// What is known of the steps so far.
struct Drawn {
    /// Weights, and the first step that is drawn by them; steps rise.
    weights: Vec<(u32, Vec<f64>)>,
    /// For each step, how many rows of each domain there were before it; as far as was asked.
    before: Vec<Vec<u64>>,
}

impl Mix {
    /// Of domains with these names and shares, which need not add up to 1.
    pub fn new(domains: Vec<(String, f64)>, rows: usize, seed: u64) -> Self {
        let sum: f64 = domains.iter().map(|(_, share)| share).sum();
        let domains: Vec<(String, f64)> = domains.into_iter().map(|(name, share)| (name, share / sum)).collect();
        let shares = domains.iter().map(|(_, share)| *share).collect();
        let drawn = Drawn { weights: vec![(0, shares)], before: vec![vec![0; domains.len()]] };
        Self { seed, rows, domains, drawn: Mutex::new(drawn) }
    }

    /// Names of the domains, and the shares that the data has, which add up to 1.
    pub fn domains(&self) -> &[(String, f64)] {
        &self.domains
    }

    /// Steps from this one on are drawn by these weights.
    pub fn weigh(&self, step: u32, weights: &[f64]) {
        let mut drawn = self.drawn();
        drawn.weights.retain(|(from, _)| *from < step);
        drawn.weights.push((step, weights.to_vec()));
        drawn.before.truncate(step as usize + 1);
    }

    /// Of each row of a step its domain, and how many rows of that domain came before it since the first step.
    pub fn rows(&self, step: u32) -> Vec<(usize, u64)> {
        let mut drawn = self.drawn();
        while drawn.before.len() <= step as usize {
            let last = drawn.before.len() - 1;
            let mut counts = drawn.before[last].clone();
            self.divided(&drawn, last as u32).into_iter().for_each(|domain| counts[domain] += 1);
            drawn.before.push(counts);
        }
        let mut counts = drawn.before[step as usize].clone();
        let number = |domain: usize| {
            counts[domain] += 1;
            (domain, counts[domain] - 1)
        };
        self.divided(&drawn, step).into_iter().map(number).collect()
    }

    fn divided(&self, drawn: &Drawn, step: u32) -> Vec<usize> {
        let of_step = drawn.weights.iter().rev().find(|(from, _)| *from <= step);
        let mut rng = stream(self.seed, Purpose::RestorationDomains, u64::from(step));
        let start = rng.random();
        let rows = divided(of_step.map_or(&[], |(_, weights)| weights), self.rows, start);
        // Rows of a domain are anywhere in the batch.
        distinct(&mut rng, self.rows, self.rows).into_iter().map(|row| rows[row]).collect()
    }

    fn drawn(&self) -> MutexGuard<'_, Drawn> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Systematic sampling: `rows` points at equal distances, the first at `start` (below 1) of a distance, and each point's domain on a line that the weights
/// divide. A domain has its share of the rows in the mean, and never a whole row more or less.
fn divided(weights: &[f64], rows: usize, start: f64) -> Vec<usize> {
    let (mut domain, mut end) = (0, weights.first().copied().unwrap_or(1.0));
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
    let of_row = |row: usize| {
        let point = (row as f64 + start) / rows as f64;
        // The sum of the weights is 1 up to rounding, which must not lead to a domain without any.
        while point >= end && domain < last {
            domain += 1;
            end += weights[domain];
        }
        domain
    };
    (0..rows).map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix() -> Mix {
        Mix::new(vec![("a".to_owned(), 3.0), ("b".to_owned(), 1.0)], 8, 5)
    }

    fn count(rows: &[(usize, u64)], domain: usize) -> usize {
        rows.iter().filter(|(found, _)| *found == domain).count()
    }

    #[test]
    fn a_domain_has_its_share_of_every_batch() {
        assert_eq!(divided(&[0.5, 0.25, 0.25], 4, 0.0), [0, 0, 1, 2]);
        // Shares of 1.2, 0.6 and 2.2 rows.
        let starts = [0.1, 0.25, 0.5, 0.9].map(|start| divided(&[0.3, 0.15, 0.55], 4, start));
        assert_eq!(starts, [[0, 0, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2], [0, 2, 2, 2]]);
        assert_eq!(divided(&[0.5, 0.5 - 1e-12, 0.0], 2, 1.0 - 1e-13), [0, 1]);
        assert_eq!(mix().domains(), [("a".to_owned(), 0.75), ("b".to_owned(), 0.25)]);
        assert!((0..20).all(|step| count(&mix().rows(step), 0) == 6));
    }

    #[test]
    fn rows_follow_from_the_weights_so_far_in_whatever_order_they_are_asked_for() {
        let whole = mix();
        let told = |mix: &Mix| {
            mix.weigh(3, &[0.25, 0.75]);
            mix.weigh(5, &[0.0, 1.0]);
        };
        let mut seen: Vec<_> = (0..3).map(|step| whole.rows(step)).collect();
        told(&whole);
        seen.extend((3..7).map(|step| whole.rows(step)));
        assert_eq!(seen.iter().map(|rows| count(rows, 0)).collect::<Vec<_>>(), [6, 6, 6, 2, 2, 0, 0]);
        // Each row of a domain once, in order.
        for domain in 0..2 {
            let numbers: Vec<u64> = seen.iter().flatten().filter(|row| row.0 == domain).map(|row| row.1).collect();
            assert!(numbers.iter().copied().eq(0..numbers.len() as u64));
        }
        let resumed = mix();
        told(&resumed);
        assert_eq!([6, 4, 5, 0].map(|step| resumed.rows(step as u32)), [6, 4, 5, 0].map(|step| seen[step].clone()));
        assert!(seen.windows(2).any(|pair| pair[0].iter().map(|row| row.0).ne(pair[1].iter().map(|row| row.0))));
    }
}

//! The rule before: intervals over seeds alone from three seeds on, over items as if the sides were independent below, no correction for
//! the number of looks, and a peak that holds by its point estimate.

use ressa_report::{
    Verdict,
    statistics::{half_width, mean_std},
};

use super::world::Run;

/// One pair of values with their test-set standard errors.
struct Pair {
    difference: f64,
    error_a: f64,
    error_b: f64,
}

fn error(run: &Run) -> f64 {
    mean_std(&run.points).1 / (run.points.len() as f64).sqrt()
}

/// Mean and half-width of the 95 % interval.
fn interval(pairs: &[Pair]) -> (f64, f64) {
    let n = pairs.len();
    let differences: Vec<f64> = pairs.iter().map(|p| p.difference).collect();
    let (mean, std) = mean_std(&differences);
    if n >= 3 {
        return (mean, half_width(std, n).unwrap_or(0.0));
    }
    let items = pairs.iter().map(|p| p.error_a * p.error_a + p.error_b * p.error_b).sum::<f64>() / n as f64;
    (mean, 1.96 * (items + std * std / n as f64).sqrt())
}

fn pairs(a: &[Run], b: &[Run]) -> Vec<Pair> {
    let pair = |(a, b): (&Run, &Run)| Pair { difference: a.value - b.value, error_a: error(a), error_b: error(b) };
    a.iter().zip(b).map(pair).collect()
}

pub fn greater(places: &[(&[Run], &[Run])]) -> Verdict {
    let all: Vec<Vec<Pair>> = places.iter().map(|(a, b)| pairs(a, b)).collect();
    let intervals: Vec<(f64, f64)> = all.iter().map(|pairs| interval(pairs)).collect();
    let n = all.len() as f64;
    let seeds = all.iter().map(Vec::len).min().unwrap_or(0);
    let balance: Vec<Pair> = (0..seeds)
        .map(|seed| {
            let error = |of: fn(&Pair) -> f64| all.iter().map(|p| of(&p[seed]).powi(2)).sum::<f64>().sqrt() / n;
            let difference = all.iter().map(|p| p[seed].difference).sum::<f64>() / n;
            Pair { difference, error_a: error(|p| p.error_a), error_b: error(|p| p.error_b) }
        })
        .collect();
    let balance = interval(&balance);
    if intervals.iter().all(|(mean, half)| mean - half > 0.0) {
        Verdict::Holds
    } else if intervals.iter().chain([&balance]).any(|(mean, half)| mean + half < 0.0) {
        Verdict::DoesNotHold
    } else {
        Verdict::Undecided
    }
}

pub fn peak(leads: &[(&[Run], &[Run])], tolerance: f64) -> Verdict {
    let best = leads.iter().map(|(a, b)| interval(&pairs(a, b))).max_by(|a, b| a.0.total_cmp(&b.0));
    let (mean, half) = best.filter(|best| best.0 > 0.0).unwrap_or((0.0, 0.0));
    if mean - half > tolerance {
        Verdict::DoesNotHold
    } else if mean <= tolerance {
        Verdict::Holds
    } else {
        Verdict::Undecided
    }
}

//! `equals`: a counted value is exactly what it must be.

use ressa_experiment::output::Equals;

use super::{Tested, Verdict};
use crate::{evidence::ROUNDING, names, records::Records};

pub(super) fn test(claim: &Equals, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let constant = claim.to.0.parse::<f64>().ok();
    let (mut checked, mut missing, mut wrong) = (0usize, 0usize, Vec::new());
    let mut farthest: f64 = 0.0;
    for point in records.select(&claim.only) {
        let samples = records.samples(point, &claim.metric);
        for (position, sample) in samples.iter().enumerate() {
            if samples[..position].iter().any(|earlier| earlier.source == sample.source) {
                continue;
            }
            let target = constant.or_else(|| {
                let targets = records.samples(point, &claim.to.0);
                targets.iter().find(|t| t.seed == sample.seed)?.number.map(|n| n.value)
            });
            let (Some(number), Some(target)) = (sample.number, target) else {
                missing += 1;
                continue;
            };
            checked += 1;
            let distance = (number.value - target).abs();
            farthest = farthest.max(distance);
            if distance > claim.tolerance + ROUNDING {
                let labels: Vec<&str> = records.points[point].labels.iter().flatten().map(String::as_str).collect();
                let (found, must) = (names::fixed(number.value, decimals), names::fixed(target, decimals));
                wrong.push(format!("{found} instead of {must} at {}, seed {}", labels.join(", "), sample.seed));
            }
        }
    }
    let (verdict, reason) = match (wrong.first(), checked, missing) {
        (Some(first), ..) => (Verdict::DoesNotHold, format!("{} of {checked} contradict: {first}", wrong.len())),
        (None, 0, _) => (Verdict::Undecided, "no result yet".to_owned()),
        (None, _, 0) => (Verdict::Holds, format!("all {checked} {}", agree(claim, constant, farthest, decimals))),
        (None, ..) => {
            let agree = agree(claim, constant, farthest, decimals);
            (Verdict::Undecided, format!("{checked} {agree}; {missing} have no result yet"))
        }
    };
    Tested::counted(verdict, reason, Vec::new())
}

/// `are exactly 0`, `are the target sparsity (vision); largest deviation 0.002, tolerance 0.005`.
fn agree(claim: &Equals, constant: Option<f64>, farthest: f64, decimals: usize) -> String {
    let target = match constant {
        Some(number) => names::fixed(number, decimals),
        None => format!("the {}", names::value(&claim.to.0).0.to_lowercase()),
    };
    if claim.tolerance == 0.0 {
        return format!("are exactly {target}");
    }
    format!("are {target}; largest deviation {}, tolerance {}", names::fixed(farthest, decimals), claim.tolerance)
}

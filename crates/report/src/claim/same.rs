//! `same`: two groups of cells have the same value, seed by seed, at every label of an axis.

use ressa_experiment::output::Comparison;

use super::{Tested, Verdict, places};
use crate::{names, records::Records};

/// What the mean of a few numbers in double precision may cost.
const ROUNDING: f64 = 1e-9;

pub(super) fn test(claim: &Comparison, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let places = places(claim, records);
    let (mut compared, mut missing, mut other) = (0, 0, Vec::new());
    for (place, sides) in &places {
        let distinct: Vec<_> = sides.rows.iter().filter(|row| !row.repeated).collect();
        compared += distinct.len();
        missing += sides.expected - distinct.len();
        for row in distinct.into_iter().filter(|row| (row.a - row.b).abs() > ROUNDING) {
            let (a, b) = (names::fixed(row.a, decimals), names::fixed(row.b, decimals));
            other.push(format!("{a} against {b} at {place}, seed {}", row.seed));
        }
    }
    let evidence = places.iter().map(|(place, sides)| sides.evidence(place.clone(), decimals)).collect();
    let (verdict, reason) = match (other.first(), compared, missing) {
        (Some(first), ..) => (Verdict::DoesNotHold, format!("{} of {compared} differ: {first}", other.len())),
        (None, 0, _) => (Verdict::Undecided, "no cells to compare".to_owned()),
        (None, _, 0) => (Verdict::Holds, format!("all {compared} are equal")),
        (None, ..) => (Verdict::Undecided, format!("{compared} are equal; {missing} have no result yet")),
    };
    (verdict, reason, evidence)
}

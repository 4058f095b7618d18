//! `same`: two groups of cells have the same value, seed by seed, at every label of an axis.

use ressa_experiment::output::Comparison;

use super::{Tested, Verdict, places};
use crate::{
    evidence::{Evidence, ROUNDING, Sides},
    names,
    records::Records,
};

pub(super) fn test(claim: &Comparison, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let places = places(claim, records);
    let of = |a: &[usize], b: &[usize]| Sides::of(a, b, &claim.metric, records);
    let (mut compared, mut missing, mut other) = (0, 0, Vec::new());
    for place in &places {
        // Equal means of unequal values are not the same: groups of one size are compared point by point.
        let pairs: Vec<Sides> = match place.a.len() == place.b.len() {
            true => place.a.iter().zip(&place.b).map(|(&a, &b)| of(&[a], &[b])).collect(),
            false => vec![of(&place.a, &place.b)],
        };
        for sides in &pairs {
            let there = sides.distinct().count();
            compared += there;
            missing += sides.expected - there;
            for pair in sides.distinct().filter(|pair| (pair.a - pair.b).abs() > ROUNDING) {
                let (a, b) = (names::fixed(pair.a, decimals), names::fixed(pair.b, decimals));
                other.push(format!("{a} against {b} at {}, seed {}", place.name, pair.seed));
            }
        }
    }
    let evidence = places.iter().map(|p| Evidence::of(p.name.clone(), &of(&p.a, &p.b), decimals)).collect();
    let (verdict, reason) = match (other.first(), compared, missing) {
        (Some(first), ..) => (Verdict::DoesNotHold, format!("{} of {compared} differ: {first}", other.len())),
        (None, 0, 0) => (Verdict::Undecided, "no cells to compare".to_owned()),
        (None, 0, _) => (Verdict::Undecided, "no result yet".to_owned()),
        (None, _, 0) => (Verdict::Holds, format!("all {compared} are equal")),
        (None, ..) => (Verdict::Undecided, format!("{compared} are equal; {missing} have no result yet")),
    };
    Tested::counted(verdict, reason, evidence)
}

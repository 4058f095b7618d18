//! `greater`: one group of cells scores above another, at every label of an axis.

use ressa_experiment::output::Comparison;

use super::{Power, Tested, Verdict, places, power::Open};
use crate::{
    evidence::{Difference, Evidence, ROUNDING, Side, Sides, interval, looks},
    names,
    records::Records,
    statistics::LEVEL,
};

/// What the differences say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Outcome.
    pub verdict: Verdict,
    /// Labels at which `a` is above.
    pub above: usize,
    /// Labels at which `a` is below, corrected for the number of looks.
    pub below: usize,
}

/// Decides from the difference at each label (`None` where there is none yet) and on balance over all of several labels.
pub fn decide(places: &[Option<&Difference>], balance: Option<&Difference>) -> Decision {
    let found: Vec<&Difference> = places.iter().flatten().copied().collect();
    let above = found.iter().filter(|d| d.is_above(0.0, LEVEL)).count();
    let planned = looks(places.len());
    let looked: Vec<&Difference> = found.iter().copied().chain(balance.filter(|_| places.len() > 1)).collect();
    let rejected = looks::holm(&looked, planned, LEVEL, |d, level| d.is_below(0.0, level));
    let below = rejected[..found.len()].iter().filter(|r| **r).count();
    let verdict = if !places.is_empty() && above == places.len() {
        Verdict::Holds
    } else if rejected.contains(&true) {
        Verdict::DoesNotHold
    } else {
        Verdict::Undecided
    };
    Decision { verdict, above, below }
}

/// Looks at so many labels: those that are planned, and the balance over several.
fn looks(labels: usize) -> usize {
    labels + usize::from(labels > 1)
}

pub(super) fn test(claim: &Comparison, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let places = places(claim, records);
    if places.is_empty() {
        return Tested::counted(Verdict::Undecided, "no cells to compare", Vec::new());
    }
    let sides: Vec<Sides> = places.iter().map(|p| Sides::of(&p.a, &p.b, &claim.metric, records)).collect();
    let evidence: Vec<Evidence> =
        places.iter().zip(&sides).map(|(place, sides)| Evidence::of(place.name.clone(), sides, decimals)).collect();
    let balance =
        on_balance(&sides).compare().map(|(_, _, d)| d).filter(|_| evidence.iter().all(|e| e.difference.is_some()));
    let differences: Vec<Option<&Difference>> = evidence.iter().map(|e| e.difference.as_ref()).collect();
    let Decision { verdict, above, below } = decide(&differences, balance.as_ref());

    let of = evidence.len();
    let missing = evidence.iter().filter(|e| e.difference.is_none()).count();
    let mut reason = match (of, &balance) {
        (1, _) if evidence[0].difference.is_some() => {
            let number = |value: f64| names::fixed(value, decimals);
            format!("{} against {}: {}", number(evidence[0].a), number(evidence[0].b), evidence[0].text())
        }
        (1, _) => evidence[0].text(),
        (_, Some(d)) => {
            let fewest = evidence.iter().filter(|e| e.is_incomplete()).map(|e| e.expected).max();
            let balance = interval(d, d.half_width(), decimals, fewest);
            format!("above at {above} of {of}, below at {below}; on balance {balance}")
        }
        (_, None) => format!("above at {above} of {of}, below at {below}"),
    };
    if missing > 0 && of > 1 {
        reason.push_str(&format!("; {missing} of {of} have no result yet"));
    }
    let found = || differences.iter().flatten().copied();
    let whole = missing == 0;
    let open: Vec<Open<'_>> = found().filter(|d| whole && !d.is_above(0.0, LEVEL)).map(|d| (d, d.mean)).collect();
    let against: Vec<Open<'_>> = found().filter(|d| d.mean < -ROUNDING).map(|d| (d, -d.mean)).collect();
    let power = Power::of(&found().collect::<Vec<_>>(), &open, &against, LEVEL / looks(of) as f64);
    Tested { verdict, reason, evidence, power }
}

/// Both sides averaged over all labels.
fn on_balance(labels: &[Sides]) -> Sides {
    let side = |of: fn(&Sides) -> &Side| Side::mean(&labels.iter().map(|sides| of(sides).clone()).collect::<Vec<_>>());
    Sides::new(side(|s| &s.a), side(|s| &s.b))
}

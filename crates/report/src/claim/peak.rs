//! `peak`: a label of an axis is at the top, or near it.

use ressa_experiment::output::Peak;

use super::{Sides, Tested, Verdict, interval};
use crate::{names, records::Records};

pub(super) fn test(claim: &Peak, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let within = records.select(&claim.only);
    let at = |label: &str| -> Vec<usize> {
        within.iter().copied().filter(|&point| records.label(point, &claim.x) == Some(label)).collect()
    };
    let labels = records.labels(&within, &claim.x);
    let expected = at(&claim.at.0);
    let name = names::label(&claim.x, &claim.at.0);
    if expected.is_empty() {
        return (Verdict::Undecided, format!("no cells at {name}"), Vec::new());
    }
    let evidence: Vec<_> = labels
        .iter()
        .map(|label| {
            let sides = Sides::of(&at(label), &expected, &claim.metric, records);
            sides.evidence(names::label(&claim.x, label), decimals)
        })
        .collect();
    let best = evidence
        .iter()
        .filter(|e| e.difference.is_some())
        .max_by(|a, b| a.difference.map(|d| d.mean).partial_cmp(&b.difference.map(|d| d.mean)).expect("finite scores"));
    let Some((best, shortfall)) = best.and_then(|e| Some((e, e.difference?))) else {
        return (Verdict::Undecided, format!("no result at {name} yet"), evidence);
    };
    let missing = evidence.iter().filter(|e| e.difference.is_none()).count();
    let verdict = if shortfall.mean - shortfall.half_width > claim.tolerance && shortfall.mean > claim.tolerance {
        Verdict::DoesNotHold
    } else if shortfall.mean <= claim.tolerance && missing == 0 {
        Verdict::Holds
    } else {
        Verdict::Undecided
    };
    let mut reason = if best.place == name || shortfall.mean <= 0.0 {
        let own = format!("{name} is the best of {} with {}", labels.len(), names::fixed(best.b, decimals));
        let others = evidence.iter().filter(|e| e.place != name).filter_map(|e| Some((e, e.difference?)));
        match others.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)) {
            Some((next, behind)) => {
                let a = names::fixed(next.a, decimals);
                format!("{own}; next is {} with {a}: {}", next.place, interval(&behind, decimals))
            }
            None => own,
        }
    } else {
        let (a, b) = (names::fixed(best.a, decimals), names::fixed(best.b, decimals));
        let (of, tolerance) = (labels.len(), claim.tolerance);
        let gap = interval(&shortfall, decimals);
        format!("{} is the best of {of} with {a}, {name} has {b}: {gap}, tolerance {tolerance}", best.place)
    };
    if missing > 0 {
        reason.push_str(&format!("; {missing} of {} labels have no result yet", labels.len()));
    }
    (verdict, reason, evidence)
}

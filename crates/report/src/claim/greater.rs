//! `greater`: one group of cells scores above another, at every label of an axis.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::output::{Comparison, Where};

use super::{Sides, Tested, Verdict, interval};
use crate::{
    names,
    records::Records,
    statistics::{Difference, Pair},
};

pub(super) fn test(claim: &Comparison, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let both = |side: &Where| -> Vec<usize> {
        let within = records.select(&claim.only);
        records.select(side).into_iter().filter(|point| within.contains(point)).collect()
    };
    let (a, b) = (both(&claim.a), both(&claim.b));
    let labels: Vec<Option<String>> = match &claim.over {
        None => vec![None],
        Some(axis) => {
            let (mut left, right) = (records.labels(&a, axis), records.labels(&b, axis));
            // A side without labels on the axis stands at every label of the other.
            match (left.is_empty(), right.is_empty()) {
                (true, _) => left = right,
                (false, true) => {}
                (false, false) => left.retain(|label| right.contains(label)),
            }
            left.into_iter().map(Some).collect()
        }
    };
    if a.is_empty() || b.is_empty() || labels.is_empty() {
        return (Verdict::Undecided, "no cells to compare".to_owned(), Vec::new());
    }

    let mut evidence = Vec::new();
    let mut balance: BTreeMap<u64, Vec<(Pair, String)>> = BTreeMap::new();
    for label in &labels {
        let at = |points: &[usize]| -> Vec<usize> {
            let stands = |point: &&usize| match (&claim.over, label) {
                (Some(axis), Some(label)) => records.label(**point, axis).is_none_or(|own| own == label),
                _ => true,
            };
            points.iter().filter(stands).copied().collect()
        };
        let sides = Sides::of(&at(&a), &at(&b), &claim.metric, records);
        for row in &sides.rows {
            balance.entry(row.seed).or_default().push((row.pair, row.source.clone()));
        }
        let place = match (&claim.over, label) {
            (Some(axis), Some(label)) => names::label(axis, label),
            _ => "overall".to_owned(),
        };
        evidence.push(sides.evidence(place, decimals));
    }
    let balance = on_balance(&balance, labels.len());

    let count = |test: fn(&Difference) -> bool| {
        evidence.iter().filter_map(|e| e.difference.as_ref()).filter(|d| test(d)).count()
    };
    let (above, below) = (count(Difference::is_positive), count(Difference::is_negative));
    let of = evidence.len();
    let verdict = if above == of {
        Verdict::Holds
    } else if below > 0 || balance.is_some_and(|d| d.is_negative()) {
        Verdict::DoesNotHold
    } else {
        Verdict::Undecided
    };
    let missing = evidence.iter().filter(|e| e.difference.is_none()).count();
    let mut reason = match (of, &balance) {
        (1, _) if evidence[0].difference.is_some() => {
            let number = |value: f64| names::fixed(value, decimals);
            format!("{} against {}: {}", number(evidence[0].a), number(evidence[0].b), evidence[0].text())
        }
        (1, _) => evidence[0].text(),
        (_, Some(d)) => format!("above at {above} of {of}, below at {below}; on balance {}", interval(d, decimals)),
        (_, None) => format!("above at {above} of {of}, below at {below}"),
    };
    if missing > 0 && of > 1 {
        reason.push_str(&format!("; {missing} of {of} have no result yet"));
    }
    (verdict, reason, evidence)
}

/// The mean over all labels, seed by seed; only seeds that have every label.
fn on_balance(seeds: &BTreeMap<u64, Vec<(Pair, String)>>, labels: usize) -> Option<Difference> {
    let mut sources = BTreeSet::new();
    let is_new = |pairs: &&Vec<(Pair, String)>| {
        let behind: Vec<String> = pairs.iter().map(|(_, source)| source.clone()).collect();
        sources.insert(behind)
    };
    let whole = seeds.values().filter(|pairs| pairs.len() == labels).filter(is_new);
    let pairs: Vec<Pair> = whole
        .map(|pairs| {
            let n = pairs.len() as f64;
            let error = |of: fn(&Pair) -> f64| pairs.iter().map(|(p, _)| of(p) * of(p)).sum::<f64>().sqrt() / n;
            Pair {
                difference: pairs.iter().map(|(p, _)| p.difference).sum::<f64>() / n,
                error_a: error(|p| p.error_a),
                error_b: error(|p| p.error_b),
            }
        })
        .collect();
    Difference::of(&pairs)
}

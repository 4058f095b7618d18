//! `greater`: one group of cells scores above another, at every label of an axis.

use std::collections::{BTreeMap, BTreeSet};

use ressa_experiment::output::Comparison;

use super::{Tested, Verdict, interval, places};
use crate::{
    names,
    records::Records,
    statistics::{Difference, Pair},
};

pub(super) fn test(claim: &Comparison, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let places = places(claim, records);
    if places.is_empty() {
        return (Verdict::Undecided, "no cells to compare".to_owned(), Vec::new());
    }

    let mut evidence = Vec::new();
    let mut balance: BTreeMap<u64, Vec<(Pair, String)>> = BTreeMap::new();
    for (place, sides) in &places {
        for row in &sides.rows {
            balance.entry(row.seed).or_default().push((row.pair, row.source.clone()));
        }
        evidence.push(sides.evidence(place.clone(), decimals));
    }
    let balance = on_balance(&balance, places.len());

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

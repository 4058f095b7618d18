//! Numbers of a comparison as readers see them: what n is, what varies, which test.

use super::{Basis, Difference, Seeds};
use crate::{names, records::Summary};

/// `+3.1 ± 0.8 (n = 3 seeds, 1000 items)`; `planned` is named where fewer seeds are there.
pub fn interval(d: &Difference, half_width: f64, decimals: usize, planned: Option<usize>) -> String {
    let sign = if d.mean >= 0.0 { "+" } else { "" };
    let of = planned.map(|planned| format!(" of {planned}")).unwrap_or_default();
    let seeds = match d.seeds {
        Seeds::Paired(1) if of.is_empty() => "n = 1 seed".to_owned(),
        Seeds::Paired(n) => format!("n = {n}{of} seeds"),
        Seeds::Apart(a, b) => format!("n = {a} and {b} seeds, unpaired"),
    };
    let items = match d.basis {
        Basis::Items => format!(", {} items", d.items),
        Basis::Errors if d.items == 0 => String::new(),
        Basis::Errors => format!(", {} items, unpaired", d.items),
    };
    format!("{sign}{} ± {} ({seeds}{items})", names::fixed(d.mean, decimals), names::fixed(half_width, decimals))
}

/// What bold means in a table, and what was compared; `None` without comparisons.
pub fn bold_note(differences: &[Difference]) -> Option<String> {
    let range = |of: &dyn Fn(&Difference) -> usize| {
        let (low, high) = (differences.iter().map(of).min()?, differences.iter().map(of).max()?);
        Some(if low == high { format!("{low}") } else { format!("{low} to {high}") })
    };
    let (seeds, items) = (range(&|d| d.seeds.n())?, range(&|d| d.items)?);
    let paired = match differences.iter().all(|d| d.basis == Basis::Items) {
        true => "paired item by item",
        false => "with the standard errors of both over items",
    };
    let varies = match seeds.as_str() {
        "1" => format!("over {items} items with one seed, so other seeds are not covered"),
        _ => format!("over n = {seeds} seeds and {items} items"),
    };
    Some(format!(
        "Bold: the best of its column and what cannot be told from it (differences {paired}, {varies}; 5 %, one-sided, for all rows together)."
    ))
}

/// How many replicates stand behind the means of a table or figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicates {
    /// `3`, or `1 to 3 of 3 planned`.
    pub n: String,
    /// Whether some setting does not depend on the seed, so that one measurement is all there is.
    pub single: bool,
    /// Whether there are several anywhere, so that an interval can be formed.
    pub several: bool,
}

/// Counts replicates; `None` while nothing is there.
pub fn replicates<'a>(summaries: impl Iterator<Item = &'a Summary>) -> Option<Replicates> {
    let there: Vec<&Summary> = summaries.filter(|summary| summary.n > 0).collect();
    let planned = there.iter().map(|summary| summary.expected).max()?;
    let seeded = || there.iter().filter(|summary| summary.expected > 1 || planned == 1).map(|summary| summary.n);
    let (low, high) = (seeded().min()?, seeded().max()?);
    let n = match (low == high, there.iter().any(|summary| summary.is_incomplete())) {
        (true, false) => format!("{high}"),
        (false, false) => format!("{low} to {high}"),
        (true, true) => format!("{high} of {planned} planned"),
        (false, true) => format!("{low} to {high} of {planned} planned"),
    };
    let single = planned > 1 && there.iter().any(|summary| summary.expected == 1);
    Some(Replicates { n, single, several: high > 1 })
}

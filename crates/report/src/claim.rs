//! Claims: sentences of the paper as tests over results, with three verdicts.
//!
//! Everything rests on differences over the same items, with seeds as a second level (see [`crate::evidence`]). Points and labels that
//! are averaged are averaged item by item, seed by seed; a seed counts only if every cell of both sides has a result for it, and seeds
//! that share all their stages count once. A verdict errs on one side only, so intervals are 95 % and each side of them 2.5 %:
//!
//! - `greater`: **holds** if at every label of `over` the interval of `a - b` lies above zero (no correction: *all* must be above, which
//!   is rarer than one). **Does not hold** if at any label, or on balance (the mean over all labels), it lies below zero, corrected by
//!   Holm's procedure for the number of labels. **Undecided** otherwise.
//! - `same`: **holds** if at every label of `over` and for every seed both sides have the same value, **does not hold** if anywhere they
//!   have not, **undecided** while a result is missing and none contradicts. No statistics: for what must not differ at all.
//! - `peak`: a label is near-optimal if no other is above it by more than `tolerance`. **Holds** if for every other label the whole interval
//!   of its lead is within `tolerance` (non-inferiority; no correction, as *all* must be). **Does not hold** if any lead lies beyond
//!   `tolerance`, by the distribution of the largest of all leads. **Undecided** otherwise.
//! - `equals`: **holds** if every selected cell's value is within `tolerance` of what it must be, **does not hold** if any is not,
//!   **undecided** while one is missing and none contradicts. No statistics: certificates are counted.
//!
//! A verdict of `greater` or `peak` from fewer seeds than planned is provisional and says so. With a single seed planned, items alone
//! decide, and the numbers say that n is 1. A dense point stands at every label of an axis that only says how to prune or restore.

mod equals;
pub mod greater;
mod json;
pub mod peak;
mod power;
mod same;

use std::fmt;

use ressa_experiment::output::{self, ClaimTest, Comparison, OneOrMany};
use serde::Serialize;

pub use json::json;
pub use power::{Decisive, Power};

use crate::{evidence::Evidence, names, records::Records};

/// Outcome of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The results support the sentence.
    Holds,
    /// The results contradict it.
    DoesNotHold,
    /// They do neither.
    Undecided,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Holds => "holds",
            Verdict::DoesNotHold => "does not hold",
            Verdict::Undecided => "undecided",
        })
    }
}

/// A tested claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Short name.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// Outcome.
    pub verdict: Verdict,
    /// Seeds behind a verdict that rests on fewer than planned, and those planned.
    pub provisional: Option<(usize, usize)>,
    /// Why, in one sentence with numbers.
    pub reason: String,
    /// What stands left and right in the evidence.
    pub sides: (String, String),
    /// The numbers that decided.
    pub evidence: Vec<Evidence>,
    /// What the comparison could have seen; `None` where nothing is estimated.
    pub power: Option<Power>,
}

impl Claim {
    /// `holds`, or `holds (provisional, 1 of 3 seeds)`.
    pub fn outcome(&self) -> String {
        match self.provisional {
            Some((there, planned)) => format!("{} (provisional, {there} of {planned} seeds)", self.verdict),
            None => self.verdict.to_string(),
        }
    }
}

/// Tests a claim.
pub fn test(claim: &output::Claim, records: &Records) -> Claim {
    let Tested { verdict, mut reason, evidence, power } = match &claim.test {
        ClaimTest::Greater(comparison) => greater::test(comparison, records),
        ClaimTest::Same(comparison) => same::test(comparison, records),
        ClaimTest::Peak(peak) => peak::test(peak, records),
        ClaimTest::Equals(equals) => equals::test(equals, records),
    };
    let sides = match &claim.test {
        ClaimTest::Greater(comparison) | ClaimTest::Same(comparison) => (side(&comparison.a), side(&comparison.b)),
        ClaimTest::Peak(peak) => {
            (format!("this {}", names::axis(&peak.x).to_lowercase()), names::label(&peak.x, &peak.at.0))
        }
        ClaimTest::Equals(_) => (String::new(), String::new()),
    };
    let estimated = matches!(claim.test, ClaimTest::Greater(_) | ClaimTest::Peak(_));
    let fewest = evidence.iter().filter(|e| e.is_incomplete()).map(|e| (e.there, e.expected)).min();
    let provisional = fewest.filter(|_| estimated && verdict != Verdict::Undecided);
    let power = power.map(|power| Power { needed: power.needed.filter(|_| verdict == Verdict::Undecided), ..power });
    if let Some(power) = &power {
        reason.push_str(&power.text(evidence.first().map_or(1, |e| e.decimals)));
    }
    Claim {
        id: claim.id.clone(),
        text: claim.text.trim().to_owned(),
        verdict,
        provisional,
        reason,
        sides,
        evidence,
        power,
    }
}

/// The reader's name of one side: its labels.
fn side(filter: &output::Where) -> String {
    let mut names = Vec::new();
    for (axis, labels) in filter {
        match labels {
            OneOrMany::One(label) => names.push(names::label(axis, &label.0)),
            OneOrMany::Many(labels) => names.extend(labels.iter().map(|label| names::label(axis, &label.0))),
        }
    }
    names.join(", ")
}

/// What a test finds.
struct Tested {
    verdict: Verdict,
    reason: String,
    evidence: Vec<Evidence>,
    power: Option<Power>,
}

impl Tested {
    /// A verdict without estimates.
    fn counted(verdict: Verdict, reason: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { verdict, reason: reason.into(), evidence, power: None }
    }
}

/// Where two groups of points are compared.
struct Place {
    /// The reader's name of the label.
    name: String,
    a: Vec<usize>,
    b: Vec<usize>,
}

/// Both sides of a comparison at each place where it is made: the labels of `over`, or everything. Nothing where a side has no cells.
fn places(claim: &Comparison, records: &Records) -> Vec<Place> {
    let both = |side: &output::Where| -> Vec<usize> {
        records.select(side).into_iter().filter(|&point| within(&claim.only, point, records)).collect()
    };
    let (a, b) = (both(&claim.a), both(&claim.b));
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    let Some(axis) = &claim.over else {
        return vec![Place { name: "overall".to_owned(), a, b }];
    };
    let own = |points: &[usize]| {
        let own: Vec<usize> = points.iter().copied().filter(|&point| !records.is_everywhere(point, axis)).collect();
        records.labels(&own, axis)
    };
    let (mut labels, right) = (own(&a), own(&b));
    // A side without labels of its own on the axis stands at every label of the other.
    match (labels.is_empty(), right.is_empty()) {
        (true, _) => labels = right,
        (false, true) => {}
        (false, false) => labels.retain(|label| right.contains(label)),
    }
    let at = |points: &[usize], label: &String| -> Vec<usize> {
        let stands = |point: &&usize| {
            records.is_everywhere(**point, axis) || records.label(**point, axis).is_none_or(|own| own == label)
        };
        points.iter().filter(stands).copied().collect()
    };
    let place = |label: String| Place { name: names::label(axis, &label), a: at(&a, &label), b: at(&b, &label) };
    labels.into_iter().map(place).collect()
}

/// Whether a filter lets a point through, which passes on the axes where it stands at every label.
fn within(only: &output::Where, point: usize, records: &Records) -> bool {
    only.iter().all(|(axis, labels)| {
        records.is_everywhere(point, axis) || records.label(point, axis).is_some_and(|label| labels.contains(label))
    })
}

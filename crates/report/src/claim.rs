//! Claims: sentences of the paper as tests over results, with three verdicts.
//!
//! Everything rests on paired differences. For each replicate seed the values of both sides are averaged over their cells and subtracted;
//! a seed counts only if every cell of both sides has a result for it, and seeds that share all their stages count once. From three
//! pairs on, the interval is Student's at 95 % over seeds. With fewer, it is the normal 95 % interval from both test-set standard errors,
//! combined as if the two were independent, plus the spread over two seeds where there are two; since both sides answer the same items,
//! that is wider than need be, so it errs towards *undecided*.
//!
//! - `greater`: at every label of `over`, `a` is *above* if the interval of `a - b` lies above zero, *below* if it lies below zero, else
//!   *open*. **Holds** if `a` is above at every label. **Does not hold** if it is below at any label, or below on balance (the per-seed mean
//!   over all labels). **Undecided** otherwise. Cells without a label on `over`, such as a dense point, stand at every label.
//! - `same`: **holds** if at every label of `over` and for every seed both sides have the same value, **does not hold** if anywhere they
//!   have not, **undecided** while a result is missing and none contradicts. No statistics: for what must not differ at all.
//! - `peak`: the shortfall is the best label's value minus that of `at`. **Holds** if its mean is within `tolerance`. **Does not hold** if its
//!   whole interval lies beyond `tolerance`. **Undecided** otherwise, or where a label has no result yet.
//! - `equals`: **holds** if every selected cell's value is within `tolerance` of what it must be, **does not hold** if any is not,
//!   **undecided** while one is missing and none contradicts. No statistics: certificates are counted.
//!
//! Where several labels are tested, each is tested at 5 %; there is no correction, because *all* must be above.

mod equals;
mod greater;
mod peak;
mod same;

use std::{collections::BTreeSet, fmt};

use ressa_experiment::output::{self, ClaimTest, Comparison, OneOrMany};

use crate::{
    names,
    records::Records,
    statistics::{Basis, Difference, Pair},
};

/// Outcome of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Why, in one sentence with numbers.
    pub reason: String,
    /// What stands left and right in the evidence.
    pub sides: (String, String),
    /// The numbers that decided.
    pub evidence: Vec<Evidence>,
}

/// One comparison behind a verdict.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Label at which it was made.
    pub place: String,
    /// Left side.
    pub a: f64,
    /// Right side.
    pub b: f64,
    /// Interval of `a - b`; `None` where nothing could be compared.
    pub difference: Option<Difference>,
    /// Pairs planned.
    pub expected: usize,
    /// Digits after the point.
    pub decimals: usize,
}

impl Evidence {
    /// `+3.1 ± 0.8 (n = 3)`.
    pub fn text(&self) -> String {
        match &self.difference {
            Some(d) => interval(d, self.decimals),
            None => "no result yet".to_owned(),
        }
    }
}

/// A difference with its interval and what it rests on.
pub fn interval(d: &Difference, decimals: usize) -> String {
    let sign = if d.mean >= 0.0 { "+" } else { "" };
    let basis = match d.basis {
        Basis::Seeds => format!("n = {}", d.n),
        Basis::TestSet => format!("n = {}, test-set error", d.n),
    };
    format!("{sign}{} ± {} ({basis})", names::fixed(d.mean, decimals), names::fixed(d.half_width, decimals))
}

/// Tests a claim.
pub fn test(claim: &output::Claim, records: &Records) -> Claim {
    let (verdict, reason, evidence) = match &claim.test {
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
    Claim { id: claim.id.clone(), text: claim.text.trim().to_owned(), verdict, reason, sides, evidence }
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

type Tested = (Verdict, String, Vec<Evidence>);

/// Both sides averaged per seed and subtracted.
#[derive(Clone, Debug, Default)]
struct Sides {
    /// Seeds with a result on both sides.
    rows: Vec<SeedRow>,
    /// Distinct pairs planned.
    expected: usize,
}

/// One seed of a comparison.
#[derive(Clone, Debug)]
struct SeedRow {
    seed: u64,
    a: f64,
    b: f64,
    pair: Pair,
    /// Stages behind both sides.
    source: String,
    /// Whether an earlier seed has the same stages, so that this one is no new measurement.
    repeated: bool,
}

impl Sides {
    fn of(a: &[usize], b: &[usize], value: &str, records: &Records) -> Self {
        let a: Vec<usize> = a.iter().copied().filter(|&p| !records.samples(p, value).is_empty()).collect();
        let b: Vec<usize> = b.iter().copied().filter(|&p| !records.samples(p, value).is_empty()).collect();
        let mut sides = Sides::default();
        if a.is_empty() || b.is_empty() {
            return sides;
        }
        let seeds: BTreeSet<u64> =
            a.iter().flat_map(|&p| records.samples(p, value)).map(|sample| sample.seed).collect();
        let mut sources = BTreeSet::new();
        for seed in seeds {
            let side = |points: &[usize]| {
                let mut source = String::new();
                let (mut mean, mut variance, mut whole) = (0.0, 0.0, true);
                for &point in points {
                    let sample = records.samples(point, value).iter().find(|s| s.seed == seed)?;
                    source.push_str(&sample.source);
                    source.push(' ');
                    match sample.number {
                        Some(number) => {
                            mean += number.value / points.len() as f64;
                            variance += number.standard_error * number.standard_error;
                        }
                        None => whole = false,
                    }
                }
                Some((source, whole.then(|| (mean, variance.sqrt() / points.len() as f64))))
            };
            let (Some((source_a, x)), Some((source_b, y))) = (side(&a), side(&b)) else { continue };
            let source = format!("{source_a}| {source_b}");
            let repeated = !sources.insert(source.clone());
            sides.expected += usize::from(!repeated);
            if let (Some((a, error_a)), Some((b, error_b))) = (x, y) {
                let pair = Pair { difference: a - b, error_a, error_b };
                sides.rows.push(SeedRow { seed, a, b, pair, source, repeated });
            }
        }
        sides
    }

    fn evidence(&self, place: String, decimals: usize) -> Evidence {
        let distinct = || self.rows.iter().filter(|row| !row.repeated);
        let n = distinct().count() as f64;
        let pairs: Vec<Pair> = distinct().map(|row| row.pair).collect();
        Evidence {
            place,
            a: distinct().map(|row| row.a).sum::<f64>() / n,
            b: distinct().map(|row| row.b).sum::<f64>() / n,
            difference: Difference::of(&pairs),
            expected: self.expected,
            decimals,
        }
    }
}

/// Both sides of a comparison at each place where it is made: the labels of `over`, or everything. Nothing where a side has no cells.
fn places(claim: &Comparison, records: &Records) -> Vec<(String, Sides)> {
    let both = |side: &output::Where| -> Vec<usize> {
        let within = records.select(&claim.only);
        records.select(side).into_iter().filter(|point| within.contains(point)).collect()
    };
    let (a, b) = (both(&claim.a), both(&claim.b));
    if a.is_empty() || b.is_empty() {
        return Vec::new();
    }
    let Some(axis) = &claim.over else {
        return vec![("overall".to_owned(), Sides::of(&a, &b, &claim.metric, records))];
    };
    let (mut labels, right) = (records.labels(&a, axis), records.labels(&b, axis));
    // A side without labels on the axis stands at every label of the other.
    match (labels.is_empty(), right.is_empty()) {
        (true, _) => labels = right,
        (false, true) => {}
        (false, false) => labels.retain(|label| right.contains(label)),
    }
    let at = |points: &[usize], label: &String| -> Vec<usize> {
        let stands = |point: &&usize| records.label(**point, axis).is_none_or(|own| own == label);
        points.iter().filter(stands).copied().collect()
    };
    let sides = |label: &String| Sides::of(&at(&a, label), &at(&b, label), &claim.metric, records);
    labels.into_iter().map(|label| (names::label(axis, &label), sides(&label))).collect()
}

//! `peak`: a label of an axis is at the top, or near it.

use ressa_experiment::output::Peak;

use super::{Power, Tested, Verdict, power::Open, within};
use crate::{
    evidence::{Difference, Evidence, ROUNDING, Sides, interval, looks},
    names,
    records::Records,
    statistics::LEVEL,
};

/// What the leads of the other labels say.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Outcome.
    pub verdict: Verdict,
    /// Two-sided level at which each lead is tested, so that the largest of them keeps the level of one.
    pub level: f64,
}

/// Decides from the lead of each other label over the one expected at the top; `None` where there is none yet.
pub fn decide(leads: &[Option<&Difference>], tolerance: f64) -> Decision {
    let found: Vec<&Difference> = leads.iter().flatten().copied().collect();
    let level = looks::max_level(&found, leads.len(), LEVEL);
    let verdict = if found.iter().any(|lead| lead.is_above(tolerance, level)) {
        Verdict::DoesNotHold
    } else if found.len() == leads.len() && found.iter().all(|lead| lead.is_within(tolerance, LEVEL)) {
        Verdict::Holds
    } else {
        Verdict::Undecided
    };
    Decision { verdict, level }
}

pub(super) fn test(claim: &Peak, records: &Records) -> Tested {
    let decimals = names::value(&claim.metric).1;
    let stands = |point: usize| within(&claim.only, point, records) && !records.is_everywhere(point, &claim.x);
    let points: Vec<usize> = (0..records.points.len()).filter(|&point| stands(point)).collect();
    let at = |label: &str| -> Vec<usize> {
        points.iter().copied().filter(|&point| records.label(point, &claim.x) == Some(label)).collect()
    };
    let labels = records.labels(&points, &claim.x);
    let name = names::label(&claim.x, &claim.at.0);
    let Some(own) = labels.iter().position(|label| *label == claim.at.0) else {
        return Tested::counted(Verdict::Undecided, format!("no cells at {name}"), Vec::new());
    };
    let expected = at(&claim.at.0);
    let compare = |label: &String| {
        let sides = Sides::of(&at(label), &expected, &claim.metric, records);
        Evidence::of(names::label(&claim.x, label), &sides, decimals)
    };
    let evidence: Vec<Evidence> = labels.iter().map(compare).collect();
    let others = || evidence.iter().enumerate().filter(|(index, _)| *index != own).map(|(_, e)| e);
    let leads: Vec<Option<&Difference>> = others().map(|e| e.difference.as_ref()).collect();
    let Decision { verdict, level } = decide(&leads, claim.tolerance);

    let ahead = others().filter_map(|e| Some((e, e.difference.as_ref()?)));
    let Some((next, lead)) = ahead.max_by(|a, b| a.1.mean.total_cmp(&b.1.mean)) else {
        let (of, missing) = (labels.len(), leads.len());
        let (verdict, reason) = match &evidence[own].difference {
            Some(_) if missing == 0 => (Verdict::Holds, format!("{name} is the only one")),
            Some(_) => {
                let b = names::fixed(evidence[own].b, decimals);
                (Verdict::Undecided, format!("{name} has {b}; {missing} of {of} labels have no result yet"))
            }
            None => (Verdict::Undecided, format!("no result at {name} yet")),
        };
        return Tested::counted(verdict, reason, evidence);
    };
    let (of, tolerance) = (labels.len(), claim.tolerance);
    let (a, b) = (names::fixed(next.a, decimals), names::fixed(next.b, decimals));
    let planned = next.is_incomplete().then_some(next.expected);
    let gap = interval(lead, lead.half_width(), decimals, planned);
    let mut reason = if lead.mean <= 0.0 {
        format!("{name} is the best of {of} with {b}; next is {} with {a}: {gap}, tolerance {tolerance}", next.place)
    } else {
        format!("{} is the best of {of} with {a}, {name} has {b}: {gap}, tolerance {tolerance}", next.place)
    };
    if lead.mean > tolerance && of > 2 {
        let wide = names::fixed(lead.spread.half_width(level), decimals);
        reason.push_str(&format!(" (± {wide} as the largest of {})", of - 1));
    }
    let missing = leads.iter().filter(|lead| lead.is_none()).count();
    if missing > 0 {
        reason.push_str(&format!("; {missing} of {of} labels have no result yet"));
    }
    let found = || leads.iter().flatten().copied();
    let mut open: Vec<Open<'_>> =
        found().filter(|d| !d.is_within(tolerance, LEVEL)).map(|d| (d, tolerance - d.mean)).collect();
    let rivals: Vec<&Difference> = if open.is_empty() { vec![lead] } else { open.iter().map(|(d, _)| *d).collect() };
    if missing > 0 {
        open.clear();
    }
    let against: Vec<Open<'_>> =
        found().filter(|d| d.mean > tolerance + ROUNDING).map(|d| (d, d.mean - tolerance)).collect();
    let power = Power::of(&rivals, &open, &against, level);
    // A label's lead over itself says nothing.
    let mut evidence = evidence;
    evidence.remove(own);
    Tested { verdict, reason, evidence, power }
}

//! What a claim's comparisons could have seen, and what would decide it.

use serde::Serialize;

use super::Verdict;
use crate::{
    evidence::{Difference, Needed, ROUNDING},
    names,
    statistics::LEVEL,
};

/// What the comparisons of a claim could have seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Power {
    /// The least difference that is seen with 80 % probability: at every label, or for `peak` at every label that could be the best.
    pub detectable: f64,
    /// What would decide an undecided claim; `None` where it is decided, results are missing, or nothing points either way.
    pub needed: Option<Decisive>,
}

/// What would decide a claim with 80 % probability if the differences are what they were found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Decisive {
    /// The verdict that would follow.
    pub verdict: Verdict,
    /// How much of what it takes.
    #[serde(flatten)]
    pub needed: Needed,
}

/// A comparison with the difference that it must show.
pub(super) type Open<'a> = (&'a Difference, f64);

impl Power {
    /// From the comparisons that matter; those that keep a claim from holding, each with what it must show, none where results are
    /// missing; and those that speak against it, with the level at which one of them is enough.
    pub(super) fn of(matter: &[&Difference], open: &[Open<'_>], against: &[Open<'_>], level: f64) -> Option<Self> {
        let detectable = matter.iter().map(|d| d.detectable()).max_by(f64::total_cmp)?;
        let needed = if open.is_empty() {
            None
        } else if against.is_empty() {
            // All must be shown: the most that any asks for.
            let needed: Vec<Needed> = open.iter().map(|(d, gap)| d.needed(*gap, LEVEL)).collect();
            let most =
                |of: fn(&Needed) -> Option<usize>| needed.iter().map(of).collect::<Option<Vec<_>>>()?.into_iter().max();
            let needed = Needed { seeds: most(|n| n.seeds), items: most(|n| n.items) };
            open.iter().all(|(_, gap)| *gap > ROUNDING).then_some(Decisive { verdict: Verdict::Holds, needed })
        } else {
            // One is enough: the least that any asks for.
            let needed: Vec<Needed> = against.iter().map(|(d, gap)| d.needed(*gap, level)).collect();
            let least = |of: fn(&Needed) -> Option<usize>| needed.iter().filter_map(of).min();
            let needed = Needed { seeds: least(|n| n.seeds), items: least(|n| n.items) };
            Some(Decisive { verdict: Verdict::DoesNotHold, needed })
        };
        Some(Self { detectable, needed })
    }

    /// `; differences of 2.1 are seen with 80 % power; as found, 9 seeds or 14000 items would show that it holds`.
    pub(super) fn text(&self, decimals: usize) -> String {
        let mut text = format!("; differences of {} are seen with 80 % power", names::fixed(self.detectable, decimals));
        if let Some(Decisive { verdict, needed }) = self.needed {
            let seeds = needed.seeds.map(|seeds| format!("{seeds} seeds"));
            let items = needed.items.map(|items| format!("{items} items"));
            let ways: Vec<String> = seeds.into_iter().chain(items).collect();
            text.push_str(&match ways.is_empty() {
                true => format!("; as found, neither more seeds nor more items alone would show that it {verdict}"),
                false => format!("; as found, about {} would show that it {verdict}", ways.join(" or ")),
            });
        }
        text
    }
}

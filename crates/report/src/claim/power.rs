//! What a claim's comparisons could have seen, and what would decide it.

use serde::Serialize;

use super::Verdict;
use crate::{
    evidence::{Difference, Needed},
    names,
    statistics::LEVEL,
};

/// What the comparisons of a claim could have seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Power {
    /// The least difference that every comparison sees with 80 % probability.
    pub detectable: f64,
    /// What would make the claim hold with 80 % probability if the differences are what they were found to be; `None` where some of them
    /// point the other way, or nothing is open.
    pub needed: Option<Needed>,
}

impl Power {
    /// From all comparisons, and those that are open with what each must show; `None` without any.
    pub(super) fn of(all: &[Option<&Difference>], open: Vec<(&Difference, f64)>) -> Option<Self> {
        let detectable = all.iter().flatten().map(|d| d.detectable()).max_by(f64::total_cmp)?;
        let missing = all.iter().any(Option::is_none);
        let needed: Vec<Needed> = open.iter().map(|(d, gap)| d.needed(*gap, LEVEL)).collect();
        // Every open comparison must be decided: the most that any asks for.
        let most = |of: fn(&Needed) -> Option<usize>| {
            let all: Option<Vec<usize>> = needed.iter().map(of).collect();
            all.and_then(|all| all.into_iter().max())
        };
        let reachable = !missing && !open.is_empty() && open.iter().all(|(_, gap)| *gap > 0.0);
        let needed = reachable.then(|| Needed { seeds: most(|n| n.seeds), items: most(|n| n.items) });
        Some(Self { detectable, needed })
    }

    /// `; sees 2.1 with 80 % power; to hold as found: 9 seeds or 14000 items`.
    pub(super) fn text(&self, verdict: Verdict, decimals: usize) -> String {
        let mut text = format!("; differences of {} are seen with 80 % power", names::fixed(self.detectable, decimals));
        if let (Verdict::Undecided, Some(needed)) = (verdict, self.needed) {
            let seeds = needed.seeds.map(|seeds| format!("{seeds} seeds"));
            let items = needed.items.map(|items| format!("{items} items"));
            let ways: Vec<String> = seeds.into_iter().chain(items).collect();
            match ways.is_empty() {
                true => text.push_str("; neither more seeds nor more items alone would decide it as found"),
                false => text.push_str(&format!("; {} would decide it as found", ways.join(" or "))),
            }
        }
        text
    }
}

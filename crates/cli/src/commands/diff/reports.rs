//! Two reports: verdicts that changed.

use std::path::Path;

use ressa_report::{
    Verdicts,
    verdicts::{Changed, Judged},
};
use serde::Serialize;

use super::list;
use crate::{exit::Failure, text::say};

/// What differs.
#[derive(Serialize)]
pub struct Difference {
    pub differs: bool,
    a: Side,
    b: Side,
    /// Claims that are in one alone, or whose verdicts differ.
    pub changed: Vec<Changed>,
    /// Claims with one verdict.
    pub unchanged: usize,
}

/// What a report is of.
#[derive(Serialize)]
struct Side {
    path: String,
    of: Option<String>,
    runs: Option<(usize, usize)>,
}

impl Difference {
    /// Compares the reports at two paths.
    pub fn of(a: &Path, b: &Path) -> Result<Self, Failure> {
        let (left, right) = (Verdicts::read(a)?, Verdicts::read(b)?);
        let changed = left.changes(&right);
        let both = left.claims.iter().filter(|claim| right.claims.iter().any(|other| other.id == claim.id)).count();
        let differing = changed.iter().filter(|change| change.a.is_some() && change.b.is_some()).count();
        let side = |path: &Path, of: Verdicts| Side { path: path.display().to_string(), of: of.of, runs: of.runs };
        let counts = left.runs.zip(right.runs);
        let differs = !changed.is_empty() || counts.is_some_and(|(a, b)| a != b);
        Ok(Self { differs, a: side(a, left), b: side(b, right), changed, unchanged: both - differing })
    }

    /// Prints it.
    pub fn print(&self) {
        for (name, side) in [("a", &self.a), ("b", &self.b)] {
            let of = side.of.as_ref().map(|of| format!("  {of}")).unwrap_or_default();
            let runs = side.runs.map(|(done, all)| format!(", {done} of {all} runs")).unwrap_or_default();
            say(format_args!("{name}  {}{of}{runs}", side.path));
        }
        list("verdicts that changed", &self.changed.iter().flat_map(lines).collect::<Vec<_>>());
        say(format_args!("\n{} changed, {} unchanged", self.changed.len(), self.unchanged));
    }
}

/// A claim in two lines: its verdicts, and the numbers behind them.
pub fn lines(change: &Changed) -> Vec<String> {
    let outcome = |judged: &Option<Judged>| judged.as_ref().map_or("not there".to_owned(), Judged::outcome);
    let mut lines = vec![format!("{}: {} -> {}", change.id, outcome(&change.a), outcome(&change.b))];
    let reason =
        |name: &str, judged: &Option<Judged>| judged.as_ref().map(|judged| format!("    {name}  {}", judged.reason));
    lines.extend(reason("a", &change.a).into_iter().chain(reason("b", &change.b)));
    lines
}

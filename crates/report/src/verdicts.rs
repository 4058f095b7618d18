//! The verdicts of a report that was written earlier, and how those of two reports differ.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ReportError, saved::Saved};

/// File of the verdicts alone.
const CLAIMS: &str = "claims.json";

/// What a report says about its claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// Which experiment it is of, in words; none where only the claims are known.
    pub of: Option<String>,
    /// Distinct runs with every result, and those planned.
    pub runs: Option<(usize, usize)>,
    /// The claims in order.
    pub claims: Vec<Judged>,
}

/// A claim with its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Short name.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// `holds`, `does not hold` or `undecided`.
    pub verdict: String,
    /// Whether seeds that were planned are missing.
    pub provisional: bool,
    /// The numbers that decided.
    pub reason: String,
}

impl Judged {
    /// The verdict, with a word where seeds are missing.
    pub fn outcome(&self) -> String {
        format!("{}{}", self.verdict, if self.provisional { " (provisional)" } else { "" })
    }
}

/// A claim of two reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its short name.
    pub id: String,
    /// The sentence.
    pub text: String,
    /// What the first report says; none where it has no such claim.
    pub a: Option<Judged>,
    /// What the second one says.
    pub b: Option<Judged>,
}

/// As `claims.json` has it.
#[derive(Deserialize)]
struct Line {
    id: String,
    text: String,
    verdict: String,
    provisional: Value,
    reason: String,
}

impl Verdicts {
    /// Whether a path is a report: its folder, its `report.json`, or a `claims.json`.
    pub fn are_at(path: &Path) -> bool {
        let is_file = |path: &Path| path.extension().is_some_and(|ending| ending == "json") && path.is_file();
        is_file(path) || is_file(&path.join(crate::saved::FILE)) || is_file(&path.join(CLAIMS))
    }

    /// Reads the verdicts at a path.
    ///
    /// # Errors
    /// A file that cannot be read, or that is neither a report of this version nor its claims.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let file = match path.is_dir() {
            false => path.to_owned(),
            true if path.join(crate::saved::FILE).is_file() => path.join(crate::saved::FILE),
            true => path.join(CLAIMS),
        };
        let wrong = |what: String| ReportError::Saved { path: file.clone(), what };
        let value: Value = fs::read(&file)
            .map_err(|e| wrong(e.to_string()))
            .and_then(|text| serde_json::from_slice(&text).map_err(|e| wrong(format!("it is not JSON: {e}"))))?;
        if value.is_array() {
            let lines: Vec<Line> =
                serde_json::from_value(value).map_err(|e| wrong(format!("it is no list of claims: {e}")))?;
            let judged = |line: Line| Judged {
                id: line.id,
                text: line.text,
                verdict: line.verdict.replace('-', " "),
                provisional: !line.provisional.is_null(),
                reason: line.reason,
            };
            return Ok(Self { claims: lines.into_iter().map(judged).collect(), ..Self::default() });
        }
        let saved =
            Saved::of_json(value).ok_or_else(|| wrong("it is no report of this version of ressa".to_owned()))?;
        let judged = |claim: crate::saved::SavedClaim| Judged {
            id: claim.id,
            text: claim.text,
            verdict: claim.verdict,
            provisional: claim.provisional,
            reason: claim.reason,
        };
        Ok(Self {
            of: Some(saved.origin.to_string()),
            runs: Some((saved.done, saved.expected)),
            claims: saved.claims.into_iter().map(judged).collect(),
        })
    }

    /// Claims that are only in one of two reports, or whose verdicts differ; in the order of the first, then of the second.
    pub fn changes(&self, other: &Self) -> Vec<Changed> {
        let find = |list: &[Judged], id: &str| list.iter().find(|claim| claim.id == id).cloned();
        let ours = self.claims.iter().map(|a| (Some(a.clone()), find(&other.claims, &a.id)));
        let theirs =
            other.claims.iter().filter(|b| find(&self.claims, &b.id).is_none()).map(|b| (None, Some(b.clone())));
        let differ = |(a, b): &(Option<Judged>, Option<Judged>)| {
            a.as_ref().map(Judged::outcome) != b.as_ref().map(Judged::outcome)
        };
        let changed = |(a, b): (Option<Judged>, Option<Judged>)| {
            let one = a.as_ref().or(b.as_ref())?;
            Some(Changed { id: one.id.clone(), text: one.text.clone(), a, b })
        };
        ours.chain(theirs).filter(differ).filter_map(changed).collect()
    }
}

//! `report.json`: whose a report is, and what its page shows, so that the page of all experiments is made from what is there.

use std::{fs, path::Path};

use ressa_experiment::Origin;
use serde::{Deserialize, Serialize};

use crate::{
    claim::Verdict,
    figure::output,
    page,
    rendered::{Drawn, Rendered},
    table,
};

/// Version of the format; files of another are not read.
const FORMAT: u32 = 1;
/// Name of the file.
pub(crate) const FILE: &str = "report.json";

/// What a report's page shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub format: u32,
    /// Name of the folder.
    pub name: String,
    pub origin: Origin,
    pub question: String,
    /// Distinct runs with every result.
    pub done: usize,
    /// Distinct runs.
    pub expected: usize,
    pub figures: Vec<SavedFigure>,
    pub tables: Vec<SavedTable>,
    pub claims: Vec<SavedClaim>,
    /// What ran where: name and text.
    pub provenance: Vec<(String, String)>,
}

/// A figure; its drawing is the SVG file beside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedFigure {
    pub id: String,
    pub caption: String,
    /// Whether it is as wide as a page.
    pub wide: bool,
}

/// A table, as HTML.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedTable {
    pub id: String,
    pub html: String,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SavedClaim {
    pub id: String,
    pub text: String,
    /// `holds`, `does not hold` or `undecided`.
    pub verdict: String,
    /// Whether seeds that were planned are missing.
    #[serde(default)]
    pub provisional: bool,
    pub reason: String,
    /// With its numbers, as HTML.
    pub html: String,
}

impl Saved {
    /// What is kept of a rendered report.
    pub fn of(rendered: &Rendered) -> Self {
        let figure = |Drawn { model, .. }: &Drawn| SavedFigure {
            id: model.id.clone(),
            caption: model.caption.clone(),
            wide: model.width > 5.0,
        };
        let claims = rendered.claims.iter().map(|claim| SavedClaim {
            id: claim.id.clone(),
            text: claim.text.clone(),
            verdict: claim.verdict.to_string(),
            provisional: claim.provisional.is_some(),
            reason: claim.reason.clone(),
            html: page::claim_html(claim),
        });
        Self {
            format: FORMAT,
            name: rendered.name.clone(),
            origin: rendered.origin.clone(),
            question: rendered.question.clone(),
            done: rendered.done,
            expected: rendered.expected,
            figures: rendered.figures.iter().map(figure).collect(),
            tables: rendered
                .tables
                .iter()
                .map(|table| SavedTable { id: table.id.clone(), html: table::html::render(table) })
                .collect(),
            claims: claims.collect(),
            provenance: rendered.provenance.clone(),
        }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let text = serde_json::to_string_pretty(&Self { format: FORMAT, ..self.clone() });
        text.unwrap_or_default() + "\n"
    }

    /// What a folder's report says; `None` where there is none of this format.
    pub fn read(folder: &Path) -> Option<Self> {
        Self::of_json(serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()?)
    }

    /// What the file says; `None` where it is not of this format.
    pub fn of_json(value: serde_json::Value) -> Option<Self> {
        let saved: Self = serde_json::from_value(value).ok()?;
        (saved.format == FORMAT).then_some(saved)
    }

    /// The drawings of its figures, read from the folder; nothing for one that is not there.
    pub fn drawings(&self, folder: &Path) -> Vec<String> {
        let read = |figure: &SavedFigure| fs::read_to_string(folder.join(format!("{}.svg", figure.id)));
        self.figures
            .iter()
            .map(|figure| read(figure).map(|svg| output::without_font(&svg)).unwrap_or_default())
            .collect()
    }

    /// Names of the files beside it that show its tables, figures and claims.
    pub fn files(&self) -> Vec<String> {
        let of = |id: &str, kinds: &[&str]| kinds.iter().map(|kind| format!("{id}.{kind}")).collect::<Vec<_>>();
        let figures = self.figures.iter().flat_map(|figure| of(&figure.id, &["svg", "png", "pdf", "csv"]));
        let tables = self.tables.iter().flat_map(|table| of(&table.id, &["tex", "md", "csv"]));
        let claims = if self.claims.is_empty() { Vec::new() } else { of("claims", &["md", "csv", "json"]) };
        figures.chain(tables).chain(claims).collect()
    }

    /// How many claims have each verdict, and how many of those are provisional.
    pub fn tally(&self) -> Vec<(Verdict, usize, usize)> {
        let count = |verdict: Verdict| {
            let these = || self.claims.iter().filter(|claim| claim.verdict == verdict.to_string());
            (verdict, these().count(), these().filter(|claim| claim.provisional).count())
        };
        let verdicts = [Verdict::Holds, Verdict::DoesNotHold, Verdict::Undecided].into_iter();
        verdicts.map(count).filter(|(_, count, _)| *count > 0).collect()
    }
}

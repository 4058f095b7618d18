//! An experiment rendered: everything its pages show.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use ressa_experiment::Origin;

use crate::{
    ReportError,
    claim::{self, Claim},
    evidence::Difference,
    figure::{self, Figure},
    measure::Provenance,
    names, page, pieces,
    place::{self, Place},
    published::Published,
    records::Records,
    saved::{self, Saved},
    study::Study,
    table::{self, Table},
};

/// What was rendered of one experiment.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Name of the folder under `results/`: the experiment's own, or one beside it.
    pub name: String,
    /// The file, overrides and selection that it is the report of.
    pub origin: Origin,
    /// The question it answers.
    pub question: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// Distinct runs with every result.
    pub done: usize,
    /// Distinct runs.
    pub expected: usize,
    /// Figures in order.
    pub figures: Vec<Drawn>,
    /// Tables in order.
    pub tables: Vec<Table>,
    /// Claims in order, with their verdicts.
    pub claims: Vec<Claim>,
    /// What ran where: name and text.
    pub provenance: Vec<(String, String)>,
    /// What whoever asked for it must be told: another folder than the experiment's own, characters that cannot be drawn.
    pub notes: Vec<String>,
}

/// A figure with its drawing.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// What is drawn.
    pub model: Figure,
    /// The drawing, without its font.
    pub svg: String,
}

impl Rendered {
    /// Builds everything in memory.
    pub(crate) fn build(
        study: &Study<'_>,
        records: &Records,
        published: &Published,
        origin: &Origin,
        results: &Path,
    ) -> Result<Self, ReportError> {
        let tables = study.report.tables.iter().map(|spec| Table::build(spec, records, published, study.name));
        let figures = study.report.figures.iter().map(|spec| {
            let model = Figure::build(spec, records, published)?;
            Ok(Drawn { svg: figure::output::svg(&model)?, model })
        });
        let tables: Vec<Table> = tables.collect::<Result<_, ReportError>>()?;
        let figures: Vec<Drawn> = figures.collect::<Result<_, ReportError>>()?;
        let Place { folder: name, note } = place::of(results, study.name, origin)?;
        let mut notes: Vec<String> = note.into_iter().collect();
        notes.extend(figures.iter().filter_map(|figure| boxes(&figure.model)));
        notes.extend(figures.iter().filter_map(|figure| crowded(&figure.model)));
        notes.extend(figures.iter().filter_map(|figure| unreadable(&figure.model)));
        notes.extend(tables.iter().filter_map(codes));
        Ok(Self {
            folder: results.join(&name),
            name,
            origin: origin.clone(),
            question: study.description.trim().to_owned(),
            done: records.done,
            expected: records.expected,
            tables,
            figures,
            claims: study.claims.iter().map(|claim| claim::test(claim, records)).collect(),
            provenance: provenance(&records.provenance, records),
            notes,
        })
    }

    /// Whether every run has every result.
    pub fn is_complete(&self) -> bool {
        self.done == self.expected
    }

    /// Writes every file; those that are already there with the same content are left alone.
    pub(crate) fn write(&self, records: &Records) -> Result<(), ReportError> {
        fs::create_dir_all(&self.folder).map_err(|source| ReportError::Write { path: self.folder.clone(), source })?;
        let file = |name: &str, bytes: &[u8]| write(&self.folder.join(name), bytes);
        let before = Saved::read(&self.folder);
        // First of all, so that a folder is never filled without saying whose it is.
        file(saved::FILE, Saved::of(self).text().as_bytes())?;
        pieces::write(&self.folder.join("records.csv"), |out| Ok(records.write_records(out)?))?;
        pieces::write(&self.folder.join("summary.csv"), |out| records.write_summary(out))?;
        for table in &self.tables {
            file(&format!("{}.tex", table.id), table::latex::render(table).as_bytes())?;
            file(&format!("{}.md", table.id), table::markdown::render(table).as_bytes())?;
            file(&format!("{}.csv", table.id), table::csv::render(table).as_bytes())?;
        }
        for Drawn { model, svg } in &self.figures {
            let png_path = self.folder.join(format!("{}.png", model.id));
            // The drawing decides the raster: one that was made from the same drawing is still right.
            let is_current = fs::read(&png_path).is_ok_and(|png| figure::output::is_raster_of(&png, svg));
            if !is_current {
                write(&png_path, &figure::output::png(model, svg)?)?;
            }
            file(&format!("{}.pdf", model.id), &figure::output::pdf(model, svg)?)?;
            file(&format!("{}.svg", model.id), figure::output::with_font(svg).as_bytes())?;
            file(&format!("{}.csv", model.id), model.csv().as_bytes())?;
        }
        if !self.claims.is_empty() {
            file("claims.md", self.claims_markdown().as_bytes())?;
            file("claims.csv", self.claims_csv().as_bytes())?;
            file("claims.json", claim::json(&self.claims).as_bytes())?;
        }
        file("report.md", self.markdown().as_bytes())?;
        let saved = Saved::of(self);
        let drawings: Vec<String> = self.figures.iter().map(|figure| figure.svg.clone()).collect();
        file("report.html", page::report(&saved, &drawings).as_bytes())?;
        // What an earlier report of this origin had and this one has not: beside the new numbers it would pass for current.
        let now = saved.files();
        for name in
            before.map(|before| before.files()).unwrap_or_default().into_iter().filter(|name| !now.contains(name))
        {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ReportError::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        use table::markdown::escape;
        let mut out = format!("# {}\n\n", escape(&self.name));
        if !self.question.is_empty() {
            let _ = writeln!(out, "{}\n", escape(&self.question));
        }
        let state = if self.is_complete() { "complete" } else { "provisional" };
        if !self.origin.is_whole() {
            let _ = writeln!(out, "A selection, not the whole experiment: {}\n", escape(&self.origin.to_string()));
        }
        let _ = writeln!(out, "Status: {state}, {}/{} runs.", self.done, self.expected);
        for figure in &self.figures {
            let id = &figure.model.id;
            let _ = writeln!(out, "\n![{}]({id}.png)\n", escape(&figure.model.description));
            let _ =
                writeln!(out, "{} ([PDF]({id}.pdf), [SVG]({id}.svg), [data]({id}.csv))", escape(&figure.model.caption));
        }
        for table in &self.tables {
            let _ = write!(out, "\n{}", table::markdown::render(table));
        }
        if !self.claims.is_empty() {
            let _ = write!(out, "\n## Claims\n\n{}", self.claims_table());
        }
        out.push_str("\n## Where the numbers come from\n\n");
        for (name, text) in &self.provenance {
            let _ = writeln!(out, "- {}: {}", escape(name), escape(text));
        }
        out.push_str("- every value of every cell, with the stages it was computed from: [records.csv](records.csv)\n");
        out.push_str("- means over seeds: [summary.csv](summary.csv)\n");
        out
    }

    fn claims_table(&self) -> String {
        use table::markdown::escape;
        let mut out = String::from("| claim | verdict | numbers that decided |\n| --- | --- | --- |\n");
        for claim in &self.claims {
            let _ = writeln!(out, "| {} | {} | {} |", escape(&claim.text), claim.outcome(), escape(&claim.reason));
        }
        out
    }

    fn claims_markdown(&self) -> String {
        use table::markdown::escape;
        let mut out = format!("# Claims of {}\n\n{}", escape(&self.name), self.claims_table());
        for claim in self.claims.iter().filter(|claim| claim.evidence.len() > 1) {
            let _ = write!(out, "\n## {}\n\n{} **{}**\n\n", escape(&claim.id), escape(&claim.text), claim.outcome());
            let (a, b) = (escape(&claim.sides.0), escape(&claim.sides.1));
            let _ =
                writeln!(out, "| at | {a} | {b} | difference, 95 % interval of each |\n| --- | ---: | ---: | --- |");
            for evidence in &claim.evidence {
                let number = |value: f64| {
                    if value.is_finite() { names::fixed(value, evidence.decimals) } else { "–".to_owned() }
                };
                let (a, b) = (number(evidence.a), number(evidence.b));
                let _ = writeln!(out, "| {} | {a} | {b} | {} |", escape(&evidence.place), evidence.text());
            }
        }
        out
    }

    fn claims_csv(&self) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let head = [
            "claim",
            "verdict",
            "at",
            "a",
            "b",
            "difference",
            "half_width_95",
            "n",
            "expected",
            "items",
            "detectable_80",
            "reason",
        ];
        // Writing to memory cannot fail, and every record has the head's length.
        let _ = writer.write_record(head);
        let number =
            |value: Option<f64>| value.filter(|v| v.is_finite()).map(|v| names::fixed(v, 6)).unwrap_or_default();
        for claim in &self.claims {
            let verdict = claim.outcome();
            let mut summary = vec![String::new(); head.len()];
            (summary[0], summary[1]) = (claim.id.clone(), verdict.clone());
            summary[10] = number(claim.power.map(|power| power.detectable));
            summary[11] = claim.reason.clone();
            let _ = writer.write_record(&summary);
            for evidence in &claim.evidence {
                let d = evidence.difference.as_ref();
                let _ = writer.write_record([
                    claim.id.clone(),
                    verdict.clone(),
                    evidence.place.clone(),
                    number(Some(evidence.a)),
                    number(Some(evidence.b)),
                    number(d.map(|d| d.mean)),
                    number(d.map(Difference::half_width)),
                    evidence.there.to_string(),
                    evidence.expected.to_string(),
                    d.map(|d| d.items.to_string()).unwrap_or_default(),
                    number(d.map(Difference::detectable)),
                    String::new(),
                ]);
            }
        }
        String::from_utf8(writer.into_inner().unwrap_or_default()).unwrap_or_default()
    }
}

/// Which characters of a figure PNG and PDF cannot show.
fn boxes(figure: &Figure) -> Option<String> {
    let list = |characters: Vec<char>| -> String {
        characters.iter().map(|&c| format!("{c} (U+{:04X})", u32::from(c))).collect::<Vec<_>>().join(", ")
    };
    let boxes = figure.boxes();
    (!boxes.is_empty()).then(|| {
        format!(
            "figure `{}`: the font of PNG and PDF has no glyph for {}, so a box stands there; the SVG shows it where the reader's fonts do",
            figure.id,
            list(boxes)
        )
    })
}

/// That the x axis of a figure is not to scale.
fn crowded(figure: &Figure) -> Option<String> {
    figure.is_crowded().then(|| {
        format!(
            "figure `{}`: some values along x lie closer together than a thousandth of their range, so all stand at equal distances; divide them among figures for an axis to scale",
            figure.id
        )
    })
}

/// That trainings of a figure have no losses to read.
fn unreadable(figure: &Figure) -> Option<String> {
    let found = &figure.trainings;
    (found.unreadable > 0).then(|| {
        format!(
            "figure `{}`: `losses.csv` of {} of {} trainings is missing, damaged or of another version, so they are left out; `ressa verify` finds damage",
            figure.id, found.unreadable, found.planned
        )
    })
}

/// Which characters of a table pdfLaTeX cannot show.
fn codes(table: &Table) -> Option<String> {
    let foreign: Vec<String> = table::latex::foreign(table).iter().map(char::to_string).collect();
    (!foreign.is_empty()).then(|| {
        format!(
            "table `{}`: pdfLaTeX prints codes for {}; LuaLaTeX and XeLaTeX print the signs",
            table.id,
            foreign.join(", ")
        )
    })
}

fn provenance(found: &Provenance, records: &Records) -> Vec<(String, String)> {
    let join = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join("; ");
    let mut lines = vec![
        ("Runs".to_owned(), format!("{} of {} distinct runs have every result", records.done, records.expected)),
        ("Program".to_owned(), join(&found.programs)),
        ("libtorch".to_owned(), join(&found.libtorch)),
        ("Device".to_owned(), join(&found.devices)),
    ];
    let items: Vec<String> = found
        .items
        .iter()
        .map(|(task, counts)| format!("{task} {}", counts.iter().map(u64::to_string).collect::<Vec<_>>().join("/")))
        .collect();
    lines.push(("Items per task".to_owned(), items.join(", ")));
    let certificates = match found.violations.first() {
        None => format!("{} read, all hold", found.certificates),
        Some(first) => format!("{} read, {} violations: {first}", found.certificates, found.violations.len()),
    };
    lines.push(("Certificates".to_owned(), certificates));
    for failure in &found.failures {
        lines.push(("Failed".to_owned(), failure.clone()));
    }
    lines.retain(|(_, text)| !text.is_empty());
    lines
}

/// Replaces a file whole, unless it has this content already.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let failed = |source| ReportError::Write { path: path.to_owned(), source };
    pieces::replace(path, failed, |file| file.write_all(bytes).map_err(failed))
}

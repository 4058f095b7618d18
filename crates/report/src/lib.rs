//! Records in, tables and figures out.
//!
//! `render` looks up the results of an experiment's cells in the store, aggregates them over replicate seeds and writes into
//! `results/<experiment>/`: `records.csv` and `summary.csv`, every table as LaTeX, Markdown and CSV, every figure as SVG, PNG and data, the
//! verdicts on claims, and `report.html` and `report.md` with all of it. `render_index` writes the page that leads to everything.
//!
//! Nothing here runs or changes a stage, nothing depends on the clock, and the same store gives the same bytes. What is missing is shown as
//! missing (`n/N` and a dagger), never averaged away.

pub mod claim;
pub mod error;
pub mod evidence;
pub mod figure;
pub mod measure;
pub mod names;
pub mod page;
pub mod published;
pub mod records;
mod remarks;
pub mod rendered;
pub mod statistics;
pub mod study;
pub mod table;

use std::path::{Path, PathBuf};

use ressa_experiment::Experiment;
use ressa_store::Store;

pub use claim::{Claim, Verdict};
pub use error::ReportError;
pub use rendered::Rendered;

use crate::{published::Published, records::Records, study::Study};

/// Where to render, and how strictly.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The results folder; the experiment gets a folder in it.
    pub results: PathBuf,
    /// The table of published numbers, `experiments/paper/expected.csv`; a missing file means none.
    pub published: Option<PathBuf>,
    /// Refuse to render a sweep that is not complete.
    pub strict: bool,
}

/// Renders an experiment into `<results>/<name>/`.
///
/// # Errors
/// [`ReportError::Nothing`] while no cell has a result, [`ReportError::Incomplete`] with `strict`, a table or figure that would average over
/// an axis it does not show, an unknown axis or value, and whatever the disk says.
pub fn render(experiment: &Experiment, store: &Store, options: &Options) -> Result<Rendered, ReportError> {
    let study = Study {
        name: &experiment.name,
        description: experiment.description.as_deref().unwrap_or_default(),
        report: &experiment.report,
        claims: &experiment.claims,
        cells: &experiment.cells,
    };
    render_study(&study, store, options)
}

/// Renders the parts of an experiment; see [`render`].
///
/// # Errors
/// As [`render`].
pub fn render_study(study: &Study<'_>, store: &Store, options: &Options) -> Result<Rendered, ReportError> {
    let published = match &options.published {
        Some(path) => Published::read(path)?,
        None => Published::default(),
    };
    let records = Records::collect(study, store)?;
    if !records.has_any() {
        return Err(ReportError::Nothing(study.name.to_owned()));
    }
    if options.strict && records.done < records.expected {
        let (done, expected) = (records.done, records.expected);
        return Err(ReportError::Incomplete { name: study.name.to_owned(), done, expected });
    }
    let rendered = Rendered::build(study, &records, &published, options.results.join(study.name))?;
    rendered.write(&records)?;
    Ok(rendered)
}

/// Writes `<results>/index.html` with everything that was rendered, and links to what earlier renderings left there. Returns its path.
///
/// # Errors
/// When the file cannot be written.
pub fn render_index(results: &Path, rendered: &[Rendered]) -> Result<PathBuf, ReportError> {
    let folders = walkdir::WalkDir::new(results).min_depth(1).max_depth(1).sort_by_file_name();
    let others: Vec<String> = folders
        .into_iter()
        .filter_map(Result::ok)
        .filter(|folder| folder.path().join("report.html").is_file())
        .map(|folder| folder.file_name().to_string_lossy().into_owned())
        .filter(|name| rendered.iter().all(|one| one.name != *name))
        .collect();
    let path = results.join("index.html");
    rendered::write(&path, page::index(rendered, &others).as_bytes())?;
    Ok(path)
}

//! Records in, tables and figures out.
//!
//! `render` looks up the results of an experiment's cells in the store, aggregates them over replicate seeds and writes into
//! `results/<experiment>/`: `records.csv` and `summary.csv`, every table as LaTeX, Markdown and CSV, every figure as SVG, PDF, PNG and data, the
//! verdicts on claims, and `report.html` and `report.md` with all of it. `report.json` says which file, overrides and selection the folder belongs to; another
//! origin of the same name writes beside it. `render_index` writes the page that leads to every report that is there. [`check`] finds the mistakes of
//! tables and figures before anything runs.
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
pub mod pair;
mod pieces;
mod place;
mod planned;
pub mod published;
pub mod records;
mod remarks;
pub mod rendered;
mod results;
mod saved;
pub mod statistics;
pub mod study;
pub mod table;
pub mod verdicts;

use std::path::{Path, PathBuf};

use ressa_experiment::{Experiment, Origin};
use ressa_store::Store;

pub use claim::{Claim, Verdict};
pub use error::ReportError;
pub use pair::{Compared, compare};
pub use planned::check;
pub use rendered::Rendered;
pub use verdicts::Verdicts;

use crate::{
    published::{Published, Scale},
    records::Records,
    saved::Saved,
    study::Study,
};

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

/// Renders an experiment into `<results>/<name>/`, or beside it where that folder is another's.
///
/// # Errors
/// [`ReportError::Nothing`] while no cell has a result, [`ReportError::Incomplete`] with `strict`, what [`check`] finds, and files that cannot be
/// written.
pub fn render(experiment: &Experiment, store: &Store, options: &Options) -> Result<Rendered, ReportError> {
    render_study(&study_of(experiment), &experiment.origin, store, options)
}

/// The parts of an experiment that a report looks at.
fn study_of(experiment: &Experiment) -> Study<'_> {
    Study {
        name: &experiment.name,
        description: experiment.description.as_deref().unwrap_or_default(),
        report: &experiment.report,
        claims: &experiment.claims,
        cells: &experiment.cells,
    }
}

/// Renders the parts of an experiment that comes from somewhere; see [`render`].
///
/// # Errors
/// As [`render`].
pub fn render_study(
    study: &Study<'_>,
    origin: &Origin,
    store: &Store,
    options: &Options,
) -> Result<Rendered, ReportError> {
    let mut published = match &options.published {
        Some(path) => Published::read(path)?,
        None => Published::default(),
    };
    published.scale = Scale::of(study.cells);
    let records = Records::collect(study, store)?;
    if options.strict && records.done < records.expected {
        let (done, expected) = (records.done, records.expected);
        return Err(ReportError::Incomplete { name: study.name.to_owned(), done, expected });
    }
    if !records.has_any() {
        return Err(ReportError::Nothing(study.name.to_owned()));
    }
    let rendered = Rendered::build(study, &records, &published, origin, &options.results)?;
    rendered.write(&records)?;
    Ok(rendered)
}

/// Writes `<results>/index.html` with every report that is there, whichever command made it. Returns its path.
///
/// # Errors
/// When the file cannot be written.
pub fn render_index(results: &Path) -> Result<PathBuf, ReportError> {
    let (mut reports, mut others) = (Vec::new(), Vec::new());
    let folders = walkdir::WalkDir::new(results).min_depth(1).max_depth(1).sort_by_file_name();
    for folder in folders.into_iter().filter_map(Result::ok) {
        let name = folder.file_name().to_string_lossy().into_owned();
        match Saved::read(folder.path()) {
            // The folder's own name: a copy of it may have another than it was rendered with.
            Some(saved) => {
                let drawings = saved.drawings(folder.path());
                reports.push((Saved { name, ..saved }, drawings));
            }
            None if folder.path().join("report.html").is_file() => others.push(name),
            None => {}
        }
    }
    let path = results.join("index.html");
    rendered::write(&path, page::index(&reports, &others).as_bytes())?;
    Ok(path)
}

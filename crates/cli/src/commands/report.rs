//! `ressa report`: tables and figures from what is in the store.

use std::path::PathBuf;

use ressa_report::{Rendered, ReportError};
use ressa_store::Store;
use serde_json::json;

use crate::{
    arguments::{Global, ReportOptions},
    exit::{Exit, Failure, Outcome},
    study::Study,
    text::{count, note, say, say_json},
    workspace::Workspace,
};

/// What was rendered.
pub struct Rendering {
    /// The page that leads to everything.
    pub index: PathBuf,
    /// Distinct runs per experiment, summed.
    pub runs: usize,
    /// Those of them whose results are all there.
    pub complete: usize,
    /// What must be said about the reports.
    pub notes: Vec<String>,
}

/// Renders the selected experiments.
pub fn run(global: &Global, options: &ReportOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let mut study = Study::load(&workspace, &options.selection)?;
    if study.is_of_stages() {
        let message = "`kind` and `task` select single stages; a report is about runs, so leave them out of -E";
        return Err(Failure::new(Exit::Usage, message));
    }
    study.check_reports(&workspace)?.iter().filter(|_| !global.quiet).for_each(note);
    let rendering = render(&workspace, &study, &store, options.strict)?;
    let open = rendering.runs - rendering.complete;
    if global.json {
        let index = rendering.index.display().to_string();
        say_json(
            &json!({ "index": index, "runs": rendering.runs, "complete": rendering.complete, "notes": rendering.notes }),
        );
    } else {
        rendering.notes.iter().for_each(|note| say(format_args!("note: {note}")));
        if open > 0 {
            let all = count(rendering.runs, "run");
            say(format_args!("provisional: {open} of {all} have no complete results yet; `ressa sweep` makes them"));
        }
        say(format_args!("report: {}", workspace.show(&rendering.index)));
    }
    Ok(Exit::Done)
}

/// Renders experiments, one thread each, and the index of all reports that are there. Those without any result are left
/// out, unless all are.
pub fn render(workspace: &Workspace, study: &Study, store: &Store, strict: bool) -> Result<Rendering, Failure> {
    let published = Some(workspace.published());
    let options = ressa_report::Options { results: workspace.results.clone(), published, strict };
    let outcomes: Vec<Result<Rendered, ReportError>> = std::thread::scope(|scope| {
        let started: Vec<_> = study
            .experiments
            .iter()
            .map(|experiment| scope.spawn(|| ressa_report::render(experiment, store, &options)))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let (mut rendered, mut nothing) = (Vec::new(), None);
    for outcome in outcomes {
        match outcome {
            Ok(one) => rendered.push(one),
            Err(error @ ReportError::Nothing(_)) if !strict => nothing = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(error) = nothing.filter(|_| rendered.is_empty()) {
        return Err(error.into());
    }
    let index = ressa_report::render_index(&workspace.results)?;
    let runs = study.experiments.iter().map(|experiment| experiment.counts.runs).sum();
    let complete = rendered.iter().map(|one| one.done).sum();
    let notes = rendered.iter().flat_map(|one| one.notes.clone()).collect();
    Ok(Rendering { index, runs, complete, notes })
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        let exit = match &error {
            error if error.is_storage() => Exit::CannotWrite,
            ReportError::Incomplete { .. } => Exit::Incomplete,
            ReportError::Nothing(_) => Exit::NothingSelected,
            ReportError::Saved { .. } => Exit::Unusable,
            _ => Exit::Other,
        };
        Failure::new(exit, error.to_string())
    }
}

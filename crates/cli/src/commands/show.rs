//! `ressa show`: a run with the place of every setting, its stages, numbers and predictions.

mod loading;
mod numbers;
mod page;
mod pictures;
mod predictions;
pub mod settings;
mod stages;
mod steps;

use ressa_store::{Store, replace};
use serde::Serialize;

use crate::{
    arguments::{Global, show::ShowOptions},
    commands::show::{
        loading::Loading,
        numbers::{Numbers, Scored},
        predictions::Evaluated,
        settings::Setting,
        stages::StageShown,
        steps::StepShown,
    },
    exit::{Exit, Failure, Outcome},
    study::{Match, Study, find, short},
    text::{say, say_json},
    workspace::Workspace,
};

/// Predictions of each evaluation on a page that says no number.
const PREDICTIONS: usize = 12;

/// Everything that is shown of a run or stage.
#[derive(Serialize)]
struct Shown {
    /// Identity of the run, or key of the stage.
    id: String,
    label: String,
    /// Settings of the run that are not the default; all of them with --verbose and in JSON. None of a single stage, whose own configuration is
    /// shown with it.
    settings: Vec<Setting>,
    /// The run's steps, where it lists them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<StepShown>,
    stages: Vec<StageShown>,
    #[serde(flatten)]
    numbers: Numbers,
    /// Weights of the domains of trainings, where these changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loading: Vec<Loading>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    predictions: Vec<Evaluated>,
}

/// Shows a run or stage.
pub fn run(global: &Global, options: &ShowOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let store = workspace.reading();
    let study = Study::load(&workspace, &options.selection)?;
    let graph = study.graph(true);
    let (id, label, positions, cell) = match find(&graph, &options.which)? {
        Match::Run(run) => {
            let run = &graph.runs[run];
            (run.id.to_string(), run.label.clone(), run.stages.clone(), study.cell_of(&run.id))
        }
        Match::Stage(stage) => {
            (graph.stages[stage].node.key.to_string(), graph.label(stage).to_owned(), vec![stage], None)
        }
    };
    let settings = cell.map(|(experiment, cell)| settings::of(&workspace, experiment, cell)).unwrap_or_default();
    let steps = cell.map(|(_, cell)| steps::of(&cell.run)).unwrap_or_default();
    let nodes: Vec<_> = positions.iter().map(|&stage| &graph.stages[stage]).collect();
    let index = ressa_runlog::read(&store)?.index;
    let shown = |stage| StageShown::of(stage, (&store, &index), cell.is_none());
    let stages = nodes.iter().map(|stage| shown(stage)).collect::<Result<_, _>>()?;
    let mut numbers = Numbers::default();
    nodes.iter().try_for_each(|stage| numbers.add(&stage.node, &store))?;
    let loading = nodes.iter().map(|stage| Loading::of(&stage.node, &store));
    let loading = loading.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let wanted = options.predictions.map(|n| n as usize).or(options.html.as_ref().map(|_| PREDICTIONS));
    let evaluated = match wanted {
        Some(many) => evaluated(&nodes, many, &store, &workspace)?,
        None => Vec::new(),
    };
    let shown = Shown { id, label, settings, steps, stages, numbers, loading, predictions: evaluated };
    if let Some(file) = &options.html {
        let text = page::page(&shown);
        replace(file, text.as_bytes())?;
    }
    if global.json {
        let value = serde_json::to_value(&shown).map_err(|e| Failure::new(Exit::Other, e.to_string()))?;
        say_json(&value);
        return Ok(Exit::Done);
    }
    print(&shown, global.verbose, options.predictions.is_some());
    if let Some(file) = &options.html {
        say(format_args!("\npage: {}", workspace.show(file)));
    }
    Ok(Exit::Done)
}

/// The first predictions of each evaluation that is there.
fn evaluated(
    stages: &[&ressa_sweep::GraphStage],
    many: usize,
    store: &Store,
    workspace: &Workspace,
) -> Result<Vec<Evaluated>, Failure> {
    let found = stages.iter().map(|stage| predictions::read(&stage.node, many, store, &workspace.root));
    let found: Vec<Evaluated> = found.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    match found.is_empty() {
        true => {
            Err(Failure::new(Exit::NothingSelected, "no evaluation of it is in the store; `ressa sweep` makes them"))
        }
        false => Ok(found),
    }
}

fn print(shown: &Shown, verbose: bool, predictions: bool) {
    let id = short(&shown.id);
    say(format_args!("{id}  {}", shown.label));
    settings::print(&shown.settings, verbose);
    steps::print(&shown.steps);
    stages::print(&shown.stages);
    loading::print(&shown.loading);
    numbers::print(&shown.numbers, verbose);
    shown.predictions.iter().filter(|_| predictions).for_each(Evaluated::print);
}

/// A score in words: `81.9 ± 1.2 %`.
fn written(score: &Scored) -> String {
    format!("{:.1} ± {:.1} {}", score.value, score.standard_error, score.unit)
}

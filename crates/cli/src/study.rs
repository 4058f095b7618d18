//! The experiments a command is about, and the graph of their stages.

use std::{collections::HashSet, path::PathBuf};

use ressa_contents::{Contents, Findings};
use ressa_experiment::{Cell, Experiment, Filter, SourceFile, StageKey};
use ressa_sweep::Graph;

use crate::{
    arguments::Selection,
    chosen::{Chosen, Limited},
    exit::{Exit, Failure},
    workspace::Workspace,
};

/// Experiments of the default study, in `experiments/shapes`.
pub const DEFAULT_STUDY: [&str; 4] = ["allocation", "towers", "methods", "restoration"];

/// Loaded experiments.
#[derive(Debug)]
pub struct Study {
    /// In the order given.
    pub experiments: Vec<Experiment>,
    /// Overrides of the command line.
    pub overrides: Vec<String>,
    /// Options that chose some of the runs.
    pub selection: Vec<String>,
    /// Where a filter takes single stages.
    limited: Option<Limited>,
    /// What their stages read from outside the store.
    pub findings: Findings,
    /// Every file that decided about them, of experiments without a selected run too.
    pub sources: Vec<SourceFile>,
}

impl Study {
    /// Loads what is selected.
    pub fn load(workspace: &Workspace, selection: &Selection) -> Result<Self, Failure> {
        let Requested { files, overrides } = Requested::of(workspace, selection);
        let mut experiments: Vec<Experiment> = files
            .iter()
            .map(|file| Experiment::load(file, &workspace.experiments, &overrides))
            .collect::<Result<_, _>>()?;
        for (index, experiment) in experiments.iter().enumerate() {
            if let Some(first) = experiments[..index].iter().position(|other| other.name == experiment.name) {
                let message = format!(
                    "`{}` and `{}` are both named `{}`, so their reports would overwrite each other",
                    files[first].display(),
                    files[index].display(),
                    experiment.name
                );
                return Err(Failure::new(Exit::BadExperiment, message));
            }
        }
        let sources = experiments.iter().flat_map(|experiment| experiment.sources.iter().cloned()).collect();
        let chosen = Chosen::of(selection, &mut experiments)?;
        let findings = read_contents(workspace, &mut experiments)?;
        let limited = chosen.limited(&experiments);
        Ok(Self { experiments, overrides, selection: chosen.words, limited, findings, sources })
    }

    /// Whether single stages were selected rather than runs.
    pub fn is_of_stages(&self) -> bool {
        self.limited.is_some()
    }

    /// What the command line changed and chose, in words.
    pub fn words(&self) -> Vec<String> {
        self.overrides.iter().chain(&self.selection).cloned().collect()
    }

    /// The experiments with the selected stages.
    pub fn parts(&self) -> &[Experiment] {
        self.limited.as_ref().map_or(&self.experiments, |limited| &limited.experiments)
    }

    /// Positions of the selected stages in a graph: without those that are only there because a selected one reads them.
    pub fn selected(&self, graph: &Graph) -> Vec<usize> {
        let is_selected = |stage: &usize| {
            let node = &graph.stages[*stage].node;
            self.limited.as_ref().is_none_or(|limited| limited.stages.contains(&node.key))
        };
        (0..graph.stages.len()).filter(is_selected).collect()
    }

    /// Checks tables, figures and claims against the grid, before anything is spent on it. A selection on the command line may change the
    /// grid so that a table or figure of the file no longer fits: then it is left out, and the answer says so, a line each.
    ///
    /// # Errors
    /// The first mistake, with its place in the file.
    pub fn check_reports(&mut self, workspace: &Workspace) -> Result<Vec<String>, Failure> {
        let published = workspace.published();
        let mut left_out = Vec::new();
        for experiment in &mut self.experiments {
            while let Err(error) = ressa_report::check(experiment, Some(&published)) {
                let Some(item) = error.item() else { return Err(error.into()) };
                let report = &experiment.report;
                let count = report.tables.len() + report.figures.len();
                let mut rest = report.clone();
                rest.tables.retain(|table| table.id != item);
                rest.figures.retain(|figure| figure.id != item);
                if experiment.origin.is_whole() || rest.tables.len() + rest.figures.len() == count {
                    return Err(experiment.mistake(item, error.to_string()).into());
                }
                left_out.push(format!("left out of this report: {error}"));
                experiment.report = rest;
            }
        }
        Ok(left_out)
    }

    /// Stages of these experiments, and what they read; with `gated`, also the evaluations that dense gates ask for.
    pub fn graph_of(&self, stages: &HashSet<StageKey>, gated: bool) -> Graph {
        let mut experiments = self.experiments.clone();
        for experiment in &mut experiments {
            experiment.limit(&|_, node| stages.contains(&node.key));
            experiment.cells.retain(|cell| !cell.stages.is_empty());
            experiment.select(Vec::new(), &mut |_| true);
        }
        Graph::of(&experiments, gated)
    }

    /// The stages that a filter selects.
    ///
    /// # Errors
    /// What is wrong with the filter.
    pub fn stages_of(&self, filter: &Filter) -> Result<HashSet<StageKey>, Failure> {
        let bound = filter.bind(&self.experiments)?;
        let of = |(at, experiment): (usize, &Experiment)| -> Vec<StageKey> {
            let stages = experiment.cells.iter().flat_map(|cell| cell.stages.iter().map(move |node| (cell, node)));
            stages.filter(|(cell, node)| bound.selects_stage(at, cell, node)).map(|(_, node)| node.key).collect()
        };
        Ok(self.experiments.iter().enumerate().flat_map(of).collect())
    }

    /// The first cell that is a run, with its experiment.
    pub fn cell_of(&self, run: &str) -> Option<(&Experiment, &Cell)> {
        let cells = |experiment: &'_ Experiment| experiment.cells.iter().position(|cell| &*cell.run_id == run);
        let found = self.experiments.iter().find_map(|experiment| Some((experiment, cells(experiment)?)));
        found.map(|(experiment, at)| (experiment, &experiment.cells[at]))
    }

    /// The distinct stages of all experiments; with `gated`, also the evaluations that dense gates ask for.
    pub fn graph(&self, gated: bool) -> Graph {
        Graph::of(self.parts(), gated)
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub struct Requested {
    /// Experiment files, each once.
    pub files: Vec<PathBuf>,
    /// Overrides, which apply to every file.
    pub overrides: Vec<String>,
}

impl Requested {
    /// Words with `=` are overrides, unless a file of that name exists. Without a file, it is the default study.
    pub fn of(workspace: &Workspace, selection: &Selection) -> Self {
        let (mut files, mut overrides) = (Vec::new(), Vec::new());
        for word in &selection.what {
            if word.contains('=') && !PathBuf::from(word).exists() {
                overrides.push(word.clone());
            } else {
                let file = workspace.experiment_file(word);
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        if files.is_empty() {
            files = DEFAULT_STUDY.iter().map(|name| workspace.experiment_file(name)).collect();
        }
        Self { files, overrides }
    }
}

/// Looks at what stages read from outside the store, so that their keys are those of the contents.
pub fn read_contents(workspace: &Workspace, experiments: &mut [Experiment]) -> Result<Findings, Failure> {
    let store = workspace.reading();
    let contents = Contents::new(&store, &workspace.root);
    for experiment in experiments {
        experiment.mark_contents(&mut |stage| contents.readings(stage));
    }
    let findings = contents.into_findings();
    match &findings.unreadable {
        Some(error) => Err(Failure::new(Exit::Unusable, error.clone())),
        None => Ok(findings),
    }
}

/// What a word of the command line stands for.
#[derive(Debug, PartialEq)]
pub enum Match {
    /// A run, by its position in the graph.
    Run(usize),
    /// A stage, by its position.
    Stage(usize),
}

/// Finds a run or stage by the first digits of its key, or a run by words of its label.
pub fn find(graph: &Graph, word: &str) -> Result<Match, Failure> {
    let mut stages = Vec::new();
    if is_digits(word) {
        for (position, stage) in graph.stages.iter().enumerate() {
            if stage.node.key.hex().starts_with(word) {
                let what = ressa_sweep::describe(&stage.node.stage);
                stages.push((Match::Stage(position), format!("{}  {what}", stage.node.key.short())));
            }
        }
    }
    let runs = graph.runs.iter().map(|run| (&*run.id, run.label.as_str()));
    find_among(runs, stages, word)?.ok_or_else(|| {
        Failure::new(
            Exit::NothingSelected,
            format!("no run or stage is called `{word}`; `ressa plan -v` lists the runs"),
        )
    })
}

/// Whether a word may be the beginning of a key or a run's identity.
pub fn is_digits(word: &str) -> bool {
    word.len() >= 4 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Finds what a word means: one of `runs` (identity and label), or one of `stages`, which are those that it may mean. `None` where it is neither.
pub fn find_among<'a>(
    runs: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    stages: Vec<(Match, String)>,
    word: &str,
) -> Result<Option<Match>, Failure> {
    let is_key = is_digits(word);
    let shown =
        |(position, (id, label)): (usize, (&str, &str))| (Match::Run(position), format!("{}  {label}", short(id)));
    let named = runs.clone().enumerate().filter(|(_, (id, label))| is_key && id.starts_with(word) || *label == word);
    let mut found: Vec<(Match, String)> = named.map(shown).chain(stages).collect();
    if found.is_empty() {
        found = runs.enumerate().filter(|(_, (_, label))| mentions(label, word)).map(shown).collect();
    }
    match found.len() {
        0 | 1 => Ok(found.pop().map(|(what, _)| what)),
        many => {
            let shown: Vec<String> = found.iter().take(8).map(|(_, line)| format!("\n  {line}")).collect();
            let more = if many > 8 { format!("\n  and {} more", many - 8) } else { String::new() };
            let message = format!("`{word}` can mean {many} things:{}{more}", shown.concat());
            Err(Failure::new(Exit::NothingSelected, message))
        }
    }
}

/// Whether a label has every word of a question, in any order: `seed 1 wanda` finds `restoration: ressa wanda, seed 1`.
fn mentions(label: &str, question: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let separated = text.split([' ', ',']).map(|word| word.trim_end_matches(':').to_owned());
        separated.filter(|word| !word.is_empty()).collect()
    };
    let known = words(label);
    words(question).iter().all(|word| known.contains(word))
}

/// The first digits of a run's identity.
pub fn short(id: &str) -> String {
    id[..12.min(id.len())].to_owned()
}

impl Workspace {
    /// The file that a word names: a path from here or from `experiments`, or the name of a file in `experiments/shapes`.
    fn experiment_file(&self, word: &str) -> PathBuf {
        let path = PathBuf::from(word);
        let below = self.experiments.join(word);
        if !path.exists() && below.is_file() {
            // `shapes/smoke.yaml` means the same from any folder.
            return below;
        }
        let named = self.experiments.join("shapes").join(format!("{word}.yaml"));
        // In a results folder, reports lie in folders that are called as their experiments are.
        let is_folder_of_that_name = path.is_dir() && named.is_file();
        if word.contains(['/', '.']) || path.exists() && !is_folder_of_that_name {
            return path;
        }
        named
    }
}

//! An experiment: a file, its bases and overrides, expanded to cells and checked to the last name.
//!
//! A cell's settings come from, later ones winning: the defaults, the bases in the order they are listed, the file itself, overrides on the
//! command line, then the point of each axis: `axes`, `zip`, `variants`; or, for an `include` point, the axis labels it names and then its
//! own settings.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    Cell, Stage, StageKey, StageNode, Task,
    document::{AxisKind, Document},
    error::{ErrorKind, ExperimentError},
    expand::{self, IdleStep},
    gate::Gate,
    grammar,
    load::{self, Loaded},
    naming,
    origin::Origin,
    output::{Claim, Report},
    overrides,
    provenance::SourceFile,
    reading::Readings,
    shape::{Names, Shape},
    source::Location,
    yaml::{Node, Tree},
};

/// A loaded experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Name of the results folder.
    pub name: String,
    /// The file it was read from.
    pub path: PathBuf,
    /// The file and overrides, as results remember them.
    pub origin: Origin,
    /// The question it answers.
    pub description: Option<String>,
    /// Tables and figures.
    pub report: Report,
    /// Sentences as tests.
    pub claims: Vec<Claim>,
    /// Axes in the order of a cell's coordinates: product, zip (each followed by its tags), variants.
    pub axes: Vec<AxisInfo>,
    /// Replicate seeds.
    pub seeds: Vec<u64>,
    /// All points at all seeds: the product in file order with the last axis fastest, then `include` points; seeds innermost.
    pub cells: Vec<Cell>,
    /// Gates of the dense models that have one.
    pub gates: Vec<Gate>,
    /// How many of everything.
    pub counts: Counts,
    /// Steps that are listed and change nothing.
    pub idle_steps: Vec<IdleStep>,
    /// Every file that decided about it.
    pub sources: Vec<SourceFile>,
    /// Where tables, figures and claims are, by their ids.
    places: BTreeMap<String, Location>,
    /// What it was made of: the file over its bases, with overrides.
    pub(crate) document: Arc<Document>,
}

/// An axis as tables and figures see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AxisInfo {
    /// Name; for `axes:` the settings path.
    pub name: String,
    /// Where it comes from; `None` for a tag of a zip block, which varies together with the block.
    #[serde(skip)]
    pub kind: Option<AxisKind>,
    /// Labels in order; those that only `include` points name come last.
    pub labels: Vec<String>,
}

/// Sizes along the expansion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Points of the product, before exclusion.
    pub points: usize,
    /// Points, included ones among them, that `exclude` took out at every seed.
    pub excluded: usize,
    /// `include` points.
    pub included: usize,
    /// Replicate seeds.
    pub seeds: usize,
    /// Cells: points that are left, times seeds.
    pub cells: usize,
    /// Distinct runs behind the cells.
    pub runs: usize,
}

impl Experiment {
    /// Loads an experiment file.
    ///
    /// `root` is the experiments folder that bases must lie in. `overrides` are arguments such as `prune.metric=wanda,magnitude`,
    /// see [`crate::overrides`].
    ///
    /// # Errors
    /// Every mistake in the files or the overrides, with the place where it was made.
    pub fn load(path: &Path, root: &Path, overrides: &[String]) -> Result<Self, ExperimentError> {
        let Loaded { mut document, start, mut sources } = load::load(path, root)?;
        let (published, ids) = published(root);
        sources.push(published);
        let written = document.clone();
        overrides::apply(&mut document, overrides)?;
        let expansion = expand::expand(&document, &start, !overrides.is_empty())?;
        let tasks = common_tasks(&expansion.cells);
        let mut names = Names {
            axes: expansion.axes.iter().map(|axis| (axis.name.clone(), axis.labels.clone())).collect(),
            points: document.include.iter().flatten().map(|include| include.name.clone()).collect(),
            tasks,
            published: ids,
            steps: document.steps.clone(),
        };
        // Overrides may have narrowed an axis; what the file says about the labels it had is still right.
        for axis in &written.axes {
            if let Some((_, labels)) = names.axes.iter_mut().find(|(name, _)| *name == axis.name) {
                let lost = axis.points.iter().map(|point| &point.label).filter(|label| !labels.contains(label));
                let lost: Vec<String> = lost.cloned().collect();
                labels.extend(lost);
            }
            for (i, tag) in axis.tags.iter().enumerate() {
                if let Some((_, labels)) = names.axes.iter_mut().find(|(name, _)| name == tag) {
                    labels.extend(axis.points.iter().map(|point| point.tags[i].clone()));
                }
            }
        }
        let lenient = !overrides.is_empty();
        if lenient {
            names.tasks = Task::ALL.to_vec();
        }
        let mut places = Places::new();
        let report = match &document.report {
            Some(node) if !node.is_nothing() => report(node, &names, &mut places)?,
            _ => Report::default(),
        };
        let claims = match &document.claims {
            Some(node) if !node.is_nothing() => claims(node, &names, &mut places)?,
            _ => Vec::new(),
        };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        free_name(document.name.as_deref().unwrap_or(&stem), path)?;
        let alone = document.settings.iter().find(|o| o.address.path == "seed").and_then(|o| o.value.as_u64());
        Ok(Experiment {
            name: document.name.clone().unwrap_or(stem),
            path: path.to_owned(),
            origin: Origin::of(path, root, overrides),
            description: document.description.clone(),
            report,
            claims,
            axes: expansion.axes,
            seeds: document.seeds.clone().unwrap_or_else(|| vec![alone.unwrap_or_default()]),
            cells: expansion.cells,
            gates: expansion.gates,
            counts: expansion.counts,
            idle_steps: expansion.idle_steps,
            sources,
            places,
            document: Arc::new(document),
        })
    }

    /// A mistake in the table, figure or claim of an id, with its place.
    pub fn mistake(&self, id: &str, message: String) -> ExperimentError {
        match self.places.get(id) {
            Some(at) => at.error(ErrorKind::Report, message).label("this one"),
            None => ExperimentError::file(ErrorKind::Report, message),
        }
    }

    /// Keeps the runs that have a cell for which `keep` holds, with all their cells; `words` are the options that say so. Axes and what the
    /// stages share stay those of the whole grid, gates those of the dense models that are left.
    pub fn select(&mut self, words: Vec<String>, keep: &mut dyn FnMut(&Cell) -> bool) {
        let kept: HashSet<Arc<str>> =
            self.cells.iter().filter(|cell| keep(cell)).map(|cell| Arc::clone(&cell.run_id)).collect();
        self.cells.retain(|cell| kept.contains(&cell.run_id));
        let dense: HashSet<&StageKey> = self.cells.iter().flat_map(|cell| &cell.stages).map(|node| &node.key).collect();
        let is_there = |node: &Arc<StageNode>| node.inputs.iter().all(|key| dense.contains(key));
        self.gates.retain(|gate| gate.evaluate.iter().all(is_there));
        self.counts.cells = self.cells.len();
        self.counts.runs = kept.len();
        self.origin.selection.extend(words);
    }

    /// Keeps of every cell the stages for which `wanted` holds, and what they read.
    pub fn limit(&mut self, wanted: &dyn Fn(&Cell, &StageNode) -> bool) {
        for cell in &mut self.cells {
            let mut needed: HashSet<StageKey> = HashSet::new();
            // A stage stands behind what it reads.
            let kept: Vec<bool> = (cell.stages.iter().rev())
                .map(|node| {
                    let is_kept = needed.contains(&node.key) || wanted(cell, node);
                    needed.extend(node.inputs.iter().filter(|_| is_kept).copied());
                    is_kept
                })
                .collect();
            let mut kept = kept.into_iter().rev();
            cell.stages.retain(|_| kept.next().unwrap_or(false));
        }
    }

    /// Tells every stage what it reads from outside the store: `of` says it of a stage's configuration. Keys of stages that read something
    /// are from then on those of the contents.
    pub fn mark_contents(&mut self, of: &mut dyn FnMut(&Stage) -> Readings) {
        let reads = |node: &Arc<StageNode>| !node.stage.reads().is_empty();
        if self.cells.iter().flat_map(|cell| &cell.stages).any(reads) {
            let cells = self.cells.iter_mut().map(|cell| &mut cell.stages);
            crate::chain::mark_contents(cells.chain(self.gates.iter_mut().map(|gate| &mut gate.evaluate)), of);
        }
    }

    /// The axis of a name.
    pub fn axis(&self, name: &str) -> Option<&AxisInfo> {
        self.axes.iter().find(|axis| axis.name == name)
    }

    /// The cells of an `include` point, one per seed.
    pub fn point<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |cell| cell.point.as_deref() == Some(name))
    }

    /// The distinct stages of all runs and of the gates, inputs before what reads them.
    pub fn stages(&self) -> Vec<&Arc<StageNode>> {
        let nodes = self.cells.iter().flat_map(|cell| &cell.stages);
        let mut seen = HashSet::new();
        nodes.chain(self.gates.iter().flat_map(|gate| &gate.evaluate)).filter(|node| seen.insert(&node.key)).collect()
    }

    /// The distinct runs, each with its first cell, in the order of the cells.
    pub fn runs(&self) -> Vec<&Cell> {
        let mut seen = HashSet::new();
        self.cells.iter().filter(|cell| seen.insert(&*cell.run_id)).collect()
    }
}

fn common_tasks(cells: &[Cell]) -> Vec<Task> {
    let everywhere = |task: &Task| cells.iter().all(|cell| cell.run.evaluate.tasks.contains(task));
    Task::ALL.into_iter().filter(everywhere).collect()
}

/// The table of published numbers and its ids, where there is one.
fn published(root: &Path) -> (SourceFile, Option<Vec<String>>) {
    let path = root.join("paper/expected.csv");
    let content = std::fs::read(&path).ok();
    let file = SourceFile::new(&path, content.as_deref());
    (file, content.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| ids(&text)))
}

fn ids(text: &str) -> Vec<String> {
    let mut ids: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .filter_map(|line| Some(line.split(',').next()?.to_owned()))
        .collect();
    ids.dedup();
    ids
}

type Places = BTreeMap<String, Location>;

fn report(node: &Node, names: &Names, places: &mut Places) -> Result<Report, ExperimentError> {
    Shape::Object(grammar::REPORT).check("report", node, names)?;
    let mut ids = Places::new();
    for (section, list) in node.map("report")? {
        for item in list.list(&section.text)? {
            unique_id(item, &mut ids)?;
            free_id(item)?;
            if section.text == "tables" {
                single_value(item)?;
            }
        }
    }
    places.extend(ids);
    typed(node, "report")
}

fn claims(node: &Node, names: &Names, places: &mut Places) -> Result<Vec<Claim>, ExperimentError> {
    let mut ids = Places::new();
    for item in node.list("claims")? {
        Shape::Object(grammar::CLAIM).check("claim", item, names)?;
        unique_id(item, &mut ids)?;
    }
    for (id, at) in ids {
        // A claim may be named as a figure is; it is the figure whose mistakes need a place.
        places.entry(id).or_insert(at);
    }
    typed(node, "claims")
}

fn field<'a>(item: &'a Node, name: &str) -> Option<&'a Node> {
    match &item.tree {
        Tree::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
        _ => None,
    }
}

fn unique_id(item: &Node, ids: &mut BTreeMap<String, Location>) -> Result<(), ExperimentError> {
    let Some(id) = field(item, "id") else { return Ok(()) };
    let text = id.text("id")?.to_owned();
    match ids.get(&text) {
        Some(first) => Err(id
            .at
            .error(ErrorKind::DuplicateKey, format!("the id `{text}` is given twice"))
            .label("again here")
            .also(first, "first here")
            .help("ids name files and anchors: make every one its own")),
        None => {
            ids.insert(text, id.at.clone());
            Ok(())
        }
    }
}

/// A report lies in a folder of the experiment's name.
fn free_name(name: &str, path: &Path) -> Result<(), ExperimentError> {
    naming::check(name).map_err(|why| {
        ExperimentError::file(ErrorKind::BadValue, format!("the name `{name}` of `{}` {why}", path.display()))
            .help("names name folders: choose another with `name:`")
    })
}

/// The report writes files of these names itself.
fn free_id(item: &Node) -> Result<(), ExperimentError> {
    let Some(id) = field(item, "id") else { return Ok(()) };
    let text = id.text("id")?;
    match ["records", "summary", "claims", "report"].contains(&text) {
        true => Err(id
            .at
            .error(ErrorKind::BadValue, format!("the id `{text}` is taken: every report has files of that name"))
            .label("an id of the report itself")
            .help("ids name files: choose another, such as `main`")),
        false => Ok(()),
    }
}

/// A table whose columns are an axis has room for one value.
fn single_value(table: &Node) -> Result<(), ExperimentError> {
    let (Some(columns), Some(values)) = (field(table, "columns"), field(table, "values")) else { return Ok(()) };
    match values.list("values")? {
        [_, second, ..] if columns.text("columns")? != "metric" => Err(second
            .at
            .error(ErrorKind::BadValue, "a table with an axis as columns shows one value")
            .label("a second value")
            .help("write `columns: metric` to put every value in a column, or make a second table")),
        _ => Ok(()),
    }
}

/// The typed form of a part that its shape has passed.
fn typed<T: serde::de::DeserializeOwned>(node: &Node, name: &str) -> Result<T, ExperimentError> {
    serde_yaml::from_value(node.value())
        .map_err(|error| node.at.error(ErrorKind::BadValue, format!("`{name}` is not valid: {error}")))
}

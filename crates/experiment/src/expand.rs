//! From a document to cells, in a fixed order: product, zip, variants, include, exclude, canonicalise, de-duplicate.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_yaml::Value;

use crate::{
    Cell, RunConfig,
    canonical::{canonical, draws},
    chain::{Found, Planner, Run},
    conflict::conflict,
    document::{Axis, AxisKind, Document, Include, Override, Point},
    error::{ErrorKind, ExperimentError},
    exclude::Exclusion,
    experiment::{AxisInfo, Counts},
    gate::{self, Gate},
    model::ModelConfig,
    output::Label,
    settings,
    source::Location,
    steps::StepKind,
    suggest,
    yaml::Tree,
};

/// Maximum number of cells of a grid.
pub const MAX_CELLS: usize = 200_000;

/// What a document expands to.
pub(crate) struct Expansion {
    pub axes: Vec<AxisInfo>,
    pub cells: Vec<Cell>,
    pub counts: Counts,
    pub gates: Vec<Gate>,
    pub idle_steps: Vec<IdleStep>,
}

/// The axis of an experiment that has none, but `include` points: their names.
const POINT: &str = "point";

/// A listed step that changes nothing, at no point of the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleStep {
    /// Its name.
    pub name: String,
    /// Why it changes nothing.
    pub why: String,
}

/// Expands; `start` is where errors point that belong to the file as a whole, `lenient` accepts an `exclude` that matches nothing
/// (after overrides a file's own excludes may have lost their points).
pub(crate) fn expand(document: &Document, start: &Location, lenient: bool) -> Result<Expansion, ExperimentError> {
    let included = document.include.as_deref().unwrap_or_default();
    if document.axes.is_empty() && included.is_empty() && document.seeds.is_none() {
        return Err(start
            .error(ErrorKind::NoGrid, "nothing varies in this file")
            .label("no `axes`, `zip`, `variants`, `include` or `replicate`")
            .help("this is a base: extend it from an experiment, or add an axis such as `axes: { prune.metric: [wanda, magnitude] }`"));
    }
    two_writers(&document.axes)?;
    unread_section(document)?;
    let mut base = RunConfig::of(ModelConfig::default());
    apply(&mut base, &document.settings)?;
    let seeds = document.seeds.clone().unwrap_or_else(|| vec![base.seed]);
    let points = document.axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.points.len()));
    let cells = points.and_then(|n| n.checked_add(included.len())?.checked_mul(seeds.len()));
    let Some(expected) = cells.filter(|&n| n <= MAX_CELLS) else {
        let sizes: Vec<String> = document.axes.iter().map(|a| format!("{} x{}", a.name, a.points.len())).collect();
        return Err(start
            .error(ErrorKind::TooManyCells, format!("the grid has more than {MAX_CELLS} cells"))
            .label("too many")
            .help(format!("axes: {}, seed x{}; remove values or split the file", sizes.join(", "), seeds.len())));
    };

    let axes = axis_infos(document);
    let mut walk = Walk {
        document,
        seeds: &seeds,
        start,
        exclusions: crate::exclude::read(document.exclude.as_deref().unwrap_or_default(), &axes, &document.steps)?,
        planner: Planner::default(),
        coordinates: axes.iter().map(|axis| axis.name.clone()).collect(),
        named: HashSet::new(),
        idle_steps: BTreeMap::new(),
        cells: Vec::with_capacity(expected),
        counts: Counts { seeds: seeds.len(), ..Counts::default() },
        gates: Vec::new(),
    };
    if !document.axes.is_empty() || included.is_empty() {
        walk.product(&base, &mut Vec::new())?;
    }
    for include in included {
        walk.include(&base, include)?;
    }
    if let Some(idle) = walk.exclusions.iter().find(|exclusion| exclusion.hits == 0)
        && !lenient
    {
        return Err(idle
            .at
            .error(ErrorKind::Exclude, "this `exclude` matches nothing")
            .label("no such point")
            .help("correct the labels, or remove the entry"));
    }
    if let Some(idle) = document.points().flatten().find(|one| walk.is_idle(one))
        && !lenient
    {
        let name = idle.address.step.as_deref().unwrap_or_default();
        return Err(idle
            .at
            .error(ErrorKind::UnknownKey, format!("no step is named `{name}` where this is set"))
            .label("changes nothing")
            .help(format!(
                "give a step of the list that holds here the name `{name}`, or remove `{}`",
                idle.address.path
            )));
    }
    if walk.cells.is_empty() {
        return Err(start.error(ErrorKind::Exclude, "`exclude` leaves no points").help("remove an `exclude`"));
    }
    crate::chain::share_statistics(walk.cells.iter_mut().map(|cell| &mut cell.stages));
    walk.counts.cells = walk.cells.len();
    walk.counts.runs = walk.planner.distinct();
    let mut gates = Vec::new();
    for run in &walk.gates {
        gate::add(run, &mut walk.planner, &mut gates);
    }
    let idle = walk.idle_steps.into_iter().filter_map(|(name, why)| Some(IdleStep { name, why: why?.to_owned() }));
    Ok(Expansion { axes, cells: walk.cells, counts: walk.counts, gates, idle_steps: idle.collect() })
}

/// Two axes of one kind that set the same setting would leave the winner to chance.
fn two_writers(axes: &[Axis]) -> Result<(), ExperimentError> {
    for (position, axis) in axes.iter().enumerate() {
        let mine: HashSet<&str> = axis.points.iter().flat_map(|p| &p.set).map(|o| &*o.address.path).collect();
        for other in axes[..position].iter().filter(|other| other.kind == axis.kind) {
            if let Some(both) = other.points.iter().flat_map(|p| &p.set).find(|o| mine.contains(&*o.address.path)) {
                let path = &both.address.path;
                let message = format!("`{path}` is set by two axes, `{}` and `{}`", other.name, axis.name);
                return Err(axis
                    .at
                    .error(ErrorKind::BadAxis, message)
                    .label("this axis")
                    .also(&other.at, "and this one")
                    .help("merge the two into one `zip:` block, or leave the setting to one of them"));
            }
        }
    }
    Ok(())
}

/// A section that only steps of its kind read, in a file that has none, would do nothing.
fn unread_section(document: &Document) -> Result<(), ExperimentError> {
    let of_points = document.points().flatten();
    let is_unread = |kind: StepKind| !StepKind::USUAL.contains(&kind) && !document.steps.has(kind);
    for Override { address, at, .. } in document.settings.iter().chain(of_points) {
        if let Some(kind) = StepKind::of_section(&address.path).filter(|kind| is_unread(*kind)) {
            let name = kind.name();
            return Err(at
                .error(
                    ErrorKind::Conflict,
                    format!("`{}` has no effect: no list of steps has a step `{name}`", address.path),
                )
                .help(format!(
                    "put the step where it is to happen, as in `steps: [prune, {name}, restore]`, or remove the setting"
                )));
        }
    }
    Ok(())
}

/// Sets what is not a setting of a step: those wait until all lists are known, see [`to_steps`].
pub(crate) fn apply(run: &mut RunConfig, set: &[Override]) -> Result<(), ExperimentError> {
    for Override { address, value, at, .. } in set.iter().filter(|one| one.address.step.is_none()) {
        address.setting.set(run, value).map_err(|error| {
            at.error(ErrorKind::BadValue, format!("`{}` cannot be this: {error}", address.path)).label("bad value")
        })?;
    }
    Ok(())
}

/// Sets `steps.NAME.SETTING` in the lists that have such a step, whatever said so first; `did` is told what was set.
pub(crate) fn to_steps<'a>(
    run: &mut RunConfig,
    set: impl Iterator<Item = &'a Override>,
    did: &mut dyn FnMut(&'a Override),
) {
    for one in set {
        let Override { address, value, .. } = one;
        let Some(name) = &address.step else { continue };
        if let Some(at) = run.steps.iter().position(|step| step.name == *name) {
            let step = &mut run.steps[at];
            let below = address.setting.path[step.kind.name().len() + 1..].to_owned();
            step.settings.insert(below, value.clone());
            did(one);
        }
    }
}

fn axis_infos(document: &Document) -> Vec<AxisInfo> {
    let mut infos: Vec<AxisInfo> = Vec::new();
    let mut push = |name: &str, kind: Option<AxisKind>, labels: &mut dyn Iterator<Item = &String>| {
        let mut distinct: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        for label in labels {
            if seen.insert(label.as_str()) {
                distinct.push(label.clone());
            }
        }
        infos.push(AxisInfo { name: name.to_owned(), kind, labels: distinct });
    };
    for axis in &document.axes {
        push(&axis.name, Some(axis.kind), &mut axis.points.iter().map(|point| &point.label));
        for (i, tag) in axis.tags.iter().enumerate() {
            push(tag, None, &mut axis.points.iter().map(|point| &point.tags[i]));
        }
    }
    if document.axes.is_empty() {
        let mut names = document.include.iter().flatten().map(|include| &include.name).peekable();
        if names.peek().is_some() {
            push(POINT, None, &mut names);
        }
    }
    for include in document.include.iter().flatten() {
        for (name, label) in include_labels(include) {
            if let Some(info) = infos.iter_mut().find(|info| info.name == name)
                && !info.labels.contains(&label)
            {
                info.labels.push(label);
            }
        }
    }
    infos
}

/// The labels an include point states: coordinates, and settings that are the name of an axis.
pub(crate) fn include_labels(include: &Include) -> impl Iterator<Item = (&str, String)> {
    let text = |value: &Value| Label::of(value).map(|label| label.0);
    let stated = include.coordinates.iter().filter_map(move |(key, node)| match &node.tree {
        Tree::Scalar(value) => Some((key.text.as_str(), text(value)?)),
        _ => None,
    });
    let set = include.set.iter().filter_map(move |o| Some((&*o.address.path, text(&o.value)?)));
    stated.chain(set)
}

struct Walk<'a> {
    document: &'a Document,
    seeds: &'a [u64],
    start: &'a Location,
    exclusions: Vec<Exclusion>,
    planner: Planner,
    /// Settings of steps that some list has, by where they are in the document.
    named: HashSet<*const Override>,
    /// Listed steps by their names, with why they change nothing; none where one does at some point.
    idle_steps: BTreeMap<String, Option<&'static str>>,
    /// Names of the coordinates, in order.
    coordinates: Vec<String>,
    cells: Vec<Cell>,
    counts: Counts,
    /// Runs whose gates differ, as written.
    gates: Vec<RunConfig>,
}

impl<'a> Walk<'a> {
    /// Whether a setting is one of a step that no list had where it was set.
    fn is_idle(&self, one: &Override) -> bool {
        one.address.step.is_some() && !self.named.contains(&std::ptr::from_ref(one))
    }

    /// One level of the product below `chosen`.
    fn product(&mut self, run: &RunConfig, chosen: &mut Vec<&'a Point>) -> Result<(), ExperimentError> {
        let document = self.document;
        let Some(axis) = document.axes.get(chosen.len()) else {
            self.counts.points += 1;
            let labels: Vec<&str> = chosen
                .iter()
                .flat_map(|p| std::iter::once(p.label.as_str()).chain(p.tags.iter().map(String::as_str)))
                .collect();
            let sets: Vec<&[Override]> = chosen.iter().map(|point| point.set.as_slice()).collect();
            return self.leaf(run, &labels, None, &sets);
        };
        for point in &axis.points {
            let mut next = run.clone();
            apply(&mut next, &point.set)?;
            chosen.push(point);
            self.product(&next, chosen)?;
            chosen.pop();
        }
        Ok(())
    }

    fn include(&mut self, base: &RunConfig, include: &Include) -> Result<(), ExperimentError> {
        if self.document.include.iter().flatten().filter(|other| other.name == include.name).count() > 1 {
            return Err(include
                .at
                .error(ErrorKind::DuplicateKey, format!("two `include` points are named `{}`", include.name)));
        }
        for (key, node) in &include.coordinates {
            if !self.coordinates.contains(&key.text) {
                let names = self.coordinates.iter().map(String::as_str);
                let names = names.chain(settings::SETTINGS.iter().map(|setting| setting.path)).chain(["name"]);
                let message = format!("there is no setting or axis `{}`", key.text);
                return Err(key.at.error(ErrorKind::UnknownKey, message).label("unknown key").help(suggest::hint(
                    &key.text,
                    "an `include` point takes settings and axes",
                    names,
                )));
            }
            if !matches!(&node.tree, Tree::Scalar(value) if Label::of(value).is_some()) {
                return Err(node.wrong_type(&key.text, "a label"));
            }
        }
        let stated: Vec<(&str, String)> = include_labels(include).collect();
        let label = |name: &str| stated.iter().find(|(other, _)| *other == name).map(|(_, label)| label.clone());
        let mut run = base.clone();
        let mut labels: Vec<String> = Vec::with_capacity(self.coordinates.len());
        let mut sets: Vec<&[Override]> = Vec::new();
        for axis in &self.document.axes {
            let own = label(&axis.name);
            let point = axis.points.iter().find(|point| Some(&point.label) == own.as_ref());
            if let Some(point) = point {
                apply(&mut run, &point.set)?;
                sets.push(&point.set);
            }
            labels.push(own.unwrap_or_else(|| include.name.clone()));
            for (i, tag) in axis.tags.iter().enumerate() {
                let implied = || point.map(|point| point.tags[i].clone());
                labels.push(label(tag).or_else(implied).unwrap_or_else(|| include.name.clone()));
            }
        }
        if self.document.axes.is_empty() {
            labels.push(include.name.clone());
        }
        apply(&mut run, &include.set)?;
        sets.push(&include.set);
        self.counts.included += 1;
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        self.leaf(&run, &labels, Some(&include.name), &sets)
    }

    /// One point, at every seed; `sets` are the overrides that led here, later ones won.
    fn leaf(
        &mut self,
        run: &RunConfig,
        labels: &[&str],
        point: Option<&str>,
        sets: &[&[Override]],
    ) -> Result<(), ExperimentError> {
        let mut run = run.clone();
        let settings = &self.document.settings;
        let all = settings.iter().chain(sets.iter().flat_map(|set| set.iter()));
        to_steps(&mut run, all, &mut |one| _ = self.named.insert(one));
        let run = &run;
        let mut checked = false;
        let named = self.coordinates.iter().zip(labels);
        let coordinates: Arc<[(String, String)]> = named.map(|(n, l)| (n.clone(), (*l).to_owned())).collect();
        let mut prepared = canonical(run);
        let seeded = draws(&prepared);
        for &seed in self.seeds {
            let mut out = false;
            for exclusion in &mut self.exclusions {
                if exclusion.matches(labels, seed, run) {
                    exclusion.hits += 1;
                    out = true;
                }
            }
            if out {
                continue;
            }
            if !checked {
                checked = true;
                if let Some(found) = conflict(run) {
                    let varied = || sets.iter().rev().flat_map(|set| set.iter());
                    let place = |path: &str| {
                        let varied = varied().find_map(|one| Some((one.place(path)?, true)));
                        varied.or_else(|| settings.iter().find_map(|one| Some((one.place(path)?, false))))
                    };
                    let (at, is_varied) = found.paths().find_map(|path| place(&path)).unwrap_or((self.start, false));
                    let error = at.error(ErrorKind::Conflict, found.message).help(found.help);
                    let names = self.coordinates.iter().zip(labels);
                    let point: Vec<String> = names.map(|(name, label)| format!("{name}={label}")).collect();
                    return Err(if is_varied { error.label(format!("at {}", point.join(", "))) } else { error });
                }
                self.note_gate(run);
                for (step, listed) in run.sequence().iter().zip(run.steps.iter()) {
                    let why = step.is_idle();
                    let known = self.idle_steps.entry(listed.name.clone()).or_insert(why);
                    *known = known.and(why);
                }
            }
            prepared.seed = if seeded { seed } else { 0 };
            let run = match self.planner.run(&prepared, self.cells.len()) {
                Found::New(made) => made,
                Found::Known(position) => {
                    let first = &self.cells[position];
                    Run { id: first.run_id.clone(), config: Arc::clone(&first.run), stages: first.stages.clone() }
                }
            };
            self.cells.push(Cell {
                coordinates: Arc::clone(&coordinates),
                point: point.map(str::to_owned),
                seed,
                run_id: run.id,
                run: run.config,
                stages: run.stages,
            });
        }
        if !checked {
            self.counts.excluded += 1;
        }
        Ok(())
    }

    fn note_gate(&mut self, run: &RunConfig) {
        let same = |other: &RunConfig| other.model == run.model && other.dense == run.dense && other.data == run.data;
        if !run.dense.gate.is_empty() && !self.gates.iter().any(same) {
            self.gates.push(run.clone());
        }
    }
}

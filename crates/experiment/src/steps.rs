//! The steps of a run: what is done to the dense model, one after the other.
//!
//! ```yaml
//! steps:
//!   - prune: { name: first, vision.sparsity: 0.3, language.sparsity: 0.3 }
//!   - restore: { steps: 200 }
//!   - prune: { name: second }
//!   - restore
//! ```
//!
//! A step has the settings of the section of its kind; those that it does not set itself are the section's. Elsewhere in a file and on the
//! command line a setting of a step is `steps.NAME.SETTING`, which wins over what the list says. Without a list, a run is `[prune, restore]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    RunConfig, Tower,
    config::{Metric, PruneConfig, RestoreConfig, RestoreMethod},
    document::{self, Override},
    error::{ErrorKind, ExperimentError},
    model::ModelConfig,
    reconstruct::{ReconstructConfig, Trained},
    refine::{RefineConfig, RefineMethod},
    settings::{self, SETTINGS},
    shape::is_id,
    shared::Shared,
    source::Location,
    structure::StructureConfig,
    suggest,
    yaml::{Key, Node, Tree},
};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Removes weights, of one tower after the other.
    Prune,
    /// Exchanges what was removed, or changes what stays, layer by layer.
    Refine,
    /// Removes heads, channels and blocks as a whole.
    Structure,
    /// Trains what stays, a part of the network at a time.
    Reconstruct,
    /// Trains, and merges what was trained.
    Restore,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [StepKind; 5] =
        [StepKind::Prune, StepKind::Refine, StepKind::Structure, StepKind::Reconstruct, StepKind::Restore];

    /// The kinds of a run that lists no steps.
    pub(crate) const USUAL: [StepKind; 2] = [StepKind::Prune, StepKind::Restore];

    /// Its name in YAML, and that of the section with its settings.
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Prune => "prune",
            StepKind::Refine => "refine",
            StepKind::Structure => "structure",
            StepKind::Reconstruct => "reconstruct",
            StepKind::Restore => "restore",
        }
    }

    /// The kind of a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind whose section a setting is in.
    pub(crate) fn of_section(path: &str) -> Option<Self> {
        Self::named(path.split('.').next().unwrap_or_default())
    }

    /// The path in the section of what a step calls `setting`.
    pub(crate) fn path(self, setting: &str) -> String {
        format!("{}.{setting}", self.name())
    }
}

/// A step of a list, with the settings that it does not leave to its section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<StepKind, Body>", into = "BTreeMap<StepKind, Body>")]
pub struct StepConfig {
    /// What it does.
    pub kind: StepKind,
    /// What settings and tables call it; no two steps of a list have one name.
    pub name: String,
    /// Its own settings by their paths below the section.
    pub settings: BTreeMap<String, Value>,
}

/// The settings of a step as they are written, below its kind.
#[derive(Serialize, Deserialize)]
struct Body {
    name: String,
    #[serde(flatten)]
    settings: BTreeMap<String, Value>,
}

impl TryFrom<BTreeMap<StepKind, Body>> for StepConfig {
    type Error = &'static str;

    fn try_from(mut written: BTreeMap<StepKind, Body>) -> Result<Self, Self::Error> {
        match (written.pop_first(), written.is_empty()) {
            (Some((kind, Body { name, settings })), true) => Ok(Self { kind, name, settings }),
            _ => Err("a step has one key, its kind"),
        }
    }
}

impl From<StepConfig> for BTreeMap<StepKind, Body> {
    fn from(StepConfig { kind, name, settings }: StepConfig) -> Self {
        BTreeMap::from([(kind, Body { name, settings })])
    }
}

/// A step with all its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Removes weights.
    Prune(Shared<PruneConfig>),
    /// Exchanges what was removed, or changes what stays.
    Refine(RefineConfig),
    /// Removes heads, channels and blocks.
    Structure(Shared<StructureConfig>),
    /// Trains what stays, a part of the network at a time.
    Reconstruct(Shared<ReconstructConfig>),
    /// Trains, and merges what was trained.
    Restore(Shared<RestoreConfig>),
}

impl Step {
    /// What it does.
    pub fn kind(&self) -> StepKind {
        match self {
            Step::Prune(_) => StepKind::Prune,
            Step::Refine(_) => StepKind::Refine,
            Step::Structure(_) => StepKind::Structure,
            Step::Reconstruct(_) => StepKind::Reconstruct,
            Step::Restore(_) => StepKind::Restore,
        }
    }

    /// Whether it changes anything.
    pub fn does_something(&self) -> bool {
        self.is_idle().is_none()
    }

    /// Why it changes nothing; `None` where it does.
    pub fn is_idle(&self) -> Option<&'static str> {
        match self {
            Step::Prune(prune) if prune.metric == Metric::None => Some("its `metric` is none"),
            Step::Prune(prune) => prune.pruned().next().is_none().then_some("the sparsity of every tower is 0"),
            Step::Refine(refine) => (refine.method == RefineMethod::None).then_some("its `method` is none"),
            Step::Restore(restore) => (restore.method == RestoreMethod::None).then_some("its `method` is none"),
            Step::Structure(structure) => structure.towers().next().is_none().then_some("every target is 0"),
            Step::Reconstruct(reconstruct) if reconstruct.train == Trained::None => Some("its `train` is none"),
            Step::Reconstruct(reconstruct) => {
                let tunes = Tower::ALL.iter().any(|&tower| reconstruct.tower(tower).tune);
                (!tunes).then_some("every `tune` is false")
            }
        }
    }

    /// A run whose section of the step's kind is the step.
    fn as_section(&self, run: &mut RunConfig) {
        match self {
            Step::Prune(prune) => run.prune = prune.clone(),
            Step::Refine(refine) => run.refine = *refine,
            Step::Structure(structure) => run.structure = structure.clone(),
            Step::Reconstruct(reconstruct) => run.reconstruct = reconstruct.clone(),
            Step::Restore(restore) => run.restore = restore.clone(),
        }
    }

    /// The step of a list that says everything itself.
    pub(crate) fn config(&self, name: String) -> StepConfig {
        let neutral = RunConfig::of(ModelConfig::default());
        let mut own = neutral.clone();
        self.as_section(&mut own);
        let kind = self.kind();
        let below = |path: &'static str| Some(path.strip_prefix(kind.name())?.strip_prefix('.')?.to_owned());
        let settings = SETTINGS.iter().filter_map(|setting| {
            let value = setting.get(&own);
            (value != setting.get(&neutral)).then_some((below(setting.path)?, value))
        });
        StepConfig { kind, name, settings: settings.collect() }
    }
}

impl RunConfig {
    /// What is done to the dense model, in order.
    pub fn sequence(&self) -> Vec<Step> {
        if self.steps.is_empty() {
            return vec![Step::Prune(self.prune.clone()), Step::Restore(self.restore.clone())];
        }
        self.steps.iter().map(|step| self.resolved(step)).collect()
    }

    /// The names of the steps, in order.
    pub fn step_names(&self) -> Vec<&str> {
        if self.steps.is_empty() {
            return StepKind::USUAL.map(StepKind::name).to_vec();
        }
        self.steps.iter().map(|step| step.name.as_str()).collect()
    }

    /// A step with what its section says.
    pub(crate) fn resolved(&self, step: &StepConfig) -> Step {
        let mut run = self.clone();
        for (path, value) in &step.settings {
            if let Some(setting) = settings::find(&step.kind.path(path)) {
                // Values were checked when they were read.
                let _ = setting.set(&mut run, value);
            }
        }
        match step.kind {
            StepKind::Prune => Step::Prune(run.prune),
            StepKind::Refine => Step::Refine(run.refine),
            StepKind::Structure => Step::Structure(run.structure),
            StepKind::Reconstruct => Step::Reconstruct(run.reconstruct),
            StepKind::Restore => Step::Restore(run.restore),
        }
    }

    /// The steps that prune, in order.
    pub fn prunings(&self) -> impl Iterator<Item = Shared<PruneConfig>> {
        self.sequence().into_iter().filter(Step::does_something).filter_map(|step| match step {
            Step::Prune(prune) => Some(prune),
            Step::Refine(_) | Step::Structure(_) | Step::Reconstruct(_) | Step::Restore(_) => None,
        })
    }

    /// Whether a step looks at calibration samples.
    pub(crate) fn calibrates(&self) -> bool {
        self.sequence().iter().filter(|step| step.does_something()).any(|step| match step {
            Step::Prune(prune) => prune.calibrates(),
            Step::Refine(_) | Step::Reconstruct(_) => true,
            Step::Structure(structure) => structure.calibrates(),
            Step::Restore(_) => false,
        })
    }

    /// The steps that train, in order.
    pub fn restorations(&self) -> impl Iterator<Item = Shared<RestoreConfig>> {
        self.sequence().into_iter().filter(Step::does_something).filter_map(|step| match step {
            Step::Restore(restore) => Some(restore),
            Step::Prune(_) | Step::Refine(_) | Step::Structure(_) | Step::Reconstruct(_) => None,
        })
    }

    /// The steps that remove heads, channels or blocks, in order.
    pub fn structures(&self) -> impl Iterator<Item = Shared<StructureConfig>> {
        self.sequence().into_iter().filter(Step::does_something).filter_map(|step| match step {
            Step::Structure(structure) => Some(structure),
            Step::Prune(_) | Step::Refine(_) | Step::Reconstruct(_) | Step::Restore(_) => None,
        })
    }

    /// The fraction of a tower's weights that its last pruning removes; 0 for a tower that is not pruned. It counts from what steps `structure` left before.
    pub fn sparsity(&self, tower: Tower) -> f64 {
        let removed = self.prunings().map(|prune| prune.tower(tower).sparsity).filter(|sparsity| *sparsity > 0.0);
        removed.last().unwrap_or(0.0)
    }

    /// Whether a step removes something of a tower.
    pub fn removes(&self, tower: Tower) -> bool {
        self.sparsity(tower) > 0.0 || self.structures().any(|structure| !structure.tower(tower).is_none())
    }

    /// Whether no step removes anything.
    pub fn is_dense(&self) -> bool {
        self.prunings().next().is_none() && self.structures().next().is_none()
    }

    /// What all steps of a kind have at a place of their section; `None` where they differ.
    pub(crate) fn common<T: PartialEq>(&self, kind: StepKind, value: impl Fn(&RunConfig) -> T) -> Option<T> {
        let mut values = self.steps.iter().filter(|step| step.kind == kind).map(|step| {
            let mut run = self.clone();
            self.resolved(step).as_section(&mut run);
            value(&run)
        });
        let Some(first) = values.next() else { return Some(value(self)) };
        values.all(|other| other == first).then_some(first)
    }

    /// What a step has at a place of its section; `None` where the run has no such step.
    pub(crate) fn of_step<T>(&self, name: &str, value: impl Fn(&RunConfig) -> T) -> Option<T> {
        let mut run = self.clone();
        let step = match self.steps.iter().find(|step| step.name == name) {
            Some(step) => self.resolved(step),
            None if self.steps.is_empty() => match StepKind::named(name)? {
                StepKind::Prune => Step::Prune(self.prune.clone()),
                StepKind::Refine | StepKind::Structure | StepKind::Reconstruct => return None,
                StepKind::Restore => Step::Restore(self.restore.clone()),
            },
            None => return None,
        };
        step.as_section(&mut run);
        Some(value(&run))
    }
}

/// Steps that the lists of a file name, with their kinds.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepNames(BTreeMap<String, StepKind>);

impl StepNames {
    /// The kind of a step.
    pub fn kind(&self, name: &str) -> Option<StepKind> {
        self.0.get(name).copied()
    }

    /// Whether a step is of a kind.
    pub fn has(&self, kind: StepKind) -> bool {
        self.0.values().any(|known| *known == kind)
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.keys().map(String::as_str)
    }

    /// All that are named in one or the other.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether a path is `steps`, a step, or a section of its settings, such as `steps.first.vision`.
    pub fn is_section(&self, path: &str) -> bool {
        match path.strip_prefix("steps.").map(|rest| rest.split_once('.').unwrap_or((rest, ""))) {
            None => path == "steps",
            Some((name, "")) => self.kind(name).is_some(),
            Some((name, below)) => self.kind(name).is_some_and(|kind| settings::is_section(&kind.path(below))),
        }
    }

    /// Why a path below `steps` is no setting; `None` for other paths.
    pub fn unknown(&self, path: &str) -> Option<Unknown> {
        let rest = path.strip_prefix("steps.")?;
        let (name, below) = rest.split_once('.').unwrap_or((rest, ""));
        let Some(kind) = self.kind(name) else {
            let message = format!("no step is named `{name}`");
            return Some(Unknown {
                message,
                help: match self.0.is_empty() {
                    true => {
                        "nothing here has `steps:`; without it, settings are those of `prune` and `restore`".to_owned()
                    }
                    false => suggest::hint(name, "steps", self.iter()),
                },
            });
        };
        let known = SETTINGS.iter().filter_map(|setting| setting.path.strip_prefix(kind.name())?.strip_prefix('.'));
        let message = format!("`{name}` is a step `{}`, which has no setting `{below}`", kind.name());
        Some(Unknown { message, help: suggest::hint(below, "settings", known) })
    }

    /// Adds the steps of every list in a document, wherever it stands.
    ///
    /// # Errors
    /// Lists that are none; a name of two kinds, which `steps.NAME` could not tell apart.
    pub fn add_all(&mut self, node: &Node) -> Result<(), ExperimentError> {
        match &node.tree {
            Tree::Scalar(_) => Ok(()),
            Tree::List(items) => items.iter().try_for_each(|item| self.add_all(item)),
            Tree::Map(entries) => entries.iter().try_for_each(|(key, value)| match (key.text.as_str(), &value.tree) {
                ("steps", Tree::List(_)) => self.add(value),
                _ => self.add_all(value),
            }),
        }
    }

    /// Adds the steps of a list.
    ///
    /// # Errors
    /// As [`StepNames::add_all`].
    pub fn add(&mut self, list: &Node) -> Result<(), ExperimentError> {
        for Written { kind, name, at, .. } in read(list)? {
            if self.0.insert(name.clone(), kind).is_some_and(|known| known != kind) {
                return Err(at
                    .error(ErrorKind::BadValue, format!("the name `{name}` is that of a step of another kind, too"))
                    .label("another kind elsewhere")
                    .help(format!("`steps.{name}` would mean two things: choose another name for one of them")));
            }
        }
        Ok(())
    }
}

/// Why there is no setting at a path.
pub(crate) struct Unknown {
    pub message: String,
    pub help: String,
}

/// A step as it stands in a file.
struct Written {
    kind: StepKind,
    name: String,
    at: Location,
    settings: Vec<Override>,
}

/// Checks a list of steps.
pub(crate) fn check(list: &Node) -> Result<(), ExperimentError> {
    read(list).map(drop)
}

/// The value of a list that [`check`] has passed, every step with its name, and the places of steps and settings by their paths. Null takes
/// an inherited list away.
pub(crate) fn value(list: &Node) -> (Value, Vec<(String, Location)>) {
    let mut places = Vec::new();
    let mut steps = Vec::new();
    for Written { kind, name, at, settings } in read(list).unwrap_or_default() {
        places.push((format!("steps.{name}"), at));
        let mut own = BTreeMap::new();
        for Override { address, value, at, .. } in settings {
            let below = address.path[kind.name().len() + 1..].to_owned();
            places.push((format!("steps.{name}.{below}"), at));
            own.insert(below, value);
        }
        steps.push(StepConfig { kind, name, settings: own });
    }
    // Settings are plain data without odd keys.
    (serde_yaml::to_value(steps).unwrap_or_default(), places)
}

fn read(list: &Node) -> Result<Vec<Written>, ExperimentError> {
    if matches!(list.tree, Tree::Scalar(Value::Null)) {
        return Ok(Vec::new());
    }
    let items = list.list("steps")?;
    if items.is_empty() {
        return Err(list
            .at
            .error(ErrorKind::BadValue, "`steps` is empty")
            .label("needs at least 1")
            .help("write `steps: null` for one pruning and one restoration, `prune.metric: none` for no pruning"));
    }
    let items: Vec<(StepKind, Option<&Node>, &Location)> = items.iter().map(item).collect::<Result<_, _>>()?;
    let mut steps: Vec<Written> = Vec::with_capacity(items.len());
    for (position, &(kind, body, at)) in items.iter().enumerate() {
        let alike = |items: &[(StepKind, Option<&Node>, &Location)]| items.iter().filter(|item| item.0 == kind).count();
        let mut name = match alike(&items) {
            1 => kind.name().to_owned(),
            _ => format!("{}-{}", kind.name(), alike(&items[..=position])),
        };
        let (mut at, mut settings) = (at.clone(), Vec::new());
        for (key, value) in body.map(|body| body.map(kind.name())).transpose()?.into_iter().flatten() {
            if key.text == "name" {
                name = check_name(value)?.to_owned();
                at = value.at.clone();
            } else {
                document::setting(key, value, kind.name(), &StepNames::default(), &mut settings)?;
            }
        }
        if let Some(first) = steps.iter().find(|step| step.name == name) {
            return Err(at
                .error(ErrorKind::DuplicateKey, format!("two steps are named `{name}`"))
                .label("again here")
                .also(&first.at, "first here")
                .help("give each a name of its own with `name: ...`"));
        }
        steps.push(Written { kind, name, at, settings });
    }
    Ok(steps)
}

/// A step's kind, its settings where it has some, and its place.
fn item(node: &Node) -> Result<(StepKind, Option<&Node>, &Location), ExperimentError> {
    match &node.tree {
        Tree::Scalar(_) => {
            let text = node.text("step")?;
            Ok((StepKind::named(text).ok_or_else(|| unknown(text, &node.at))?, None, &node.at))
        }
        Tree::Map(entries) => {
            let [(Key { text, at }, body)] = entries.as_slice() else {
                return Err(node
                    .at
                    .error(ErrorKind::WrongType, "a step has one key, its kind")
                    .label(format!("{} keys", entries.len()))
                    .help("settings go below the kind: `- prune: { name: first, vision.sparsity: 0.5 }`"));
            };
            let kind = StepKind::named(text).ok_or_else(|| unknown(text, at))?;
            let body = Some(body).filter(|body| !matches!(body.tree, Tree::Scalar(Value::Null)));
            Ok((kind, body, at))
        }
        Tree::List(_) => Err(node.wrong_type("step", "a kind such as `prune`, or `prune: { ... }`")),
    }
}

fn unknown(kind: &str, at: &Location) -> ExperimentError {
    let kinds = StepKind::ALL.map(StepKind::name);
    at.error(ErrorKind::BadValue, format!("there is no step `{kind}`")).label("not a kind of step").help(suggest::hint(
        kind,
        "kinds of steps",
        kinds,
    ))
}

fn check_name(node: &Node) -> Result<&str, ExperimentError> {
    let text = node.text("name")?;
    let error = || node.at.error(ErrorKind::BadValue, format!("`{text}` cannot be the name of a step"));
    if text.contains('.') {
        return Err(error()
            .label("has a dot")
            .help("dots divide the path of a setting, as in `steps.first.metric`: use `-`"));
    }
    if !is_id(text) {
        return Err(error().label("not a part of a setting's path").help(
            "use lower-case letters, digits, `-` and `_`, beginning with a letter or digit, as in `steps.first.metric`",
        ));
    }
    Ok(text)
}

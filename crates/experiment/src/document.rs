//! One experiment file as written: settings, axes, and the parts that are checked once the axes are known.

use serde_yaml::Value;

use crate::{
    address::Address,
    error::{ErrorKind, ExperimentError},
    grammar,
    output::Label,
    range,
    settings::{self, SETTINGS},
    shape::{self, Names},
    source::Location,
    steps::{self, StepNames},
    suggest,
    yaml::{Key, Node, Tree},
};

/// A setting with the value it gets and the place that says so.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub address: Address,
    pub value: Value,
    pub at: Location,
    /// Of a list of steps, the places of the steps and of their settings, by their paths.
    pub places: Vec<(String, Location)>,
}

impl Override {
    /// A setting with a value that its shape has passed.
    pub fn new(address: Address, node: &Node) -> Self {
        let (value, places) = match address.setting.shape {
            shape::Shape::Steps => steps::value(node),
            _ => (node.value(), Vec::new()),
        };
        Self { address, value, at: node.at.clone(), places }
    }

    /// Where it says what a path is.
    pub fn place(&self, path: &str) -> Option<&Location> {
        if self.address.path == path {
            return Some(&self.at);
        }
        self.places.iter().find(|(own, _)| own == path).map(|(_, at)| at)
    }
}

/// What an axis was written as; later kinds win where two set the same setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AxisKind {
    /// `axes:`: the values of one setting.
    Product,
    /// `zip:`: columns of settings that move together.
    Zip,
    /// `variants:`: named overrides.
    Variants,
}

/// An axis of the product.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub name: String,
    pub kind: AxisKind,
    /// Further coordinates that the axis brings besides its own.
    pub tags: Vec<String>,
    pub points: Vec<Point>,
    pub at: Location,
}

/// One value of an axis.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub label: String,
    /// Labels of the tags.
    pub tags: Vec<String>,
    pub set: Vec<Override>,
}

/// A named point outside the product.
#[derive(Clone, Debug)]
pub(crate) struct Include {
    pub name: String,
    pub at: Location,
    pub set: Vec<Override>,
    /// Keys that are no settings: axis names, checked when the axes are known.
    pub coordinates: Vec<(Key, Node)>,
}

/// `axes: { prune.metric: null }`: an axis of an extended file that is not wanted here.
#[derive(Clone, Debug)]
pub(crate) struct Removal {
    name: String,
    at: Location,
    /// Whether there was such an axis.
    found: bool,
}

/// The contents of one file, or of a file merged with its bases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Document {
    pub name: Option<String>,
    pub description: Option<String>,
    pub settings: Vec<Override>,
    /// The steps of all its lists.
    pub steps: StepNames,
    pub seeds: Option<Vec<u64>>,
    /// Where they are given.
    pub seeds_at: Option<Location>,
    pub axes: Vec<Axis>,
    /// Axes of files that this one is laid over which it takes away.
    pub removals: Vec<Removal>,
    /// `None` where the file says nothing of them; an empty list takes inherited ones away.
    pub include: Option<Vec<Include>>,
    /// As `include`.
    pub exclude: Option<Vec<Node>>,
    pub report: Option<Node>,
    pub claims: Option<Node>,
}

impl Document {
    /// The files that a parsed file extends, with the places where it says so.
    pub fn bases(root: &Node) -> Result<Vec<(String, Location)>, ExperimentError> {
        let entries = root.map("experiment file")?;
        let mut bases = entries.iter().filter(|(key, _)| key.text == "extends");
        bases.next().map_or(Ok(Vec::new()), |(_, node)| extends(node))
    }

    /// Reads a parsed file; `inherited` are the steps of the files that it extends.
    pub fn read(root: &Node, inherited: &StepNames) -> Result<Self, ExperimentError> {
        let mut steps = inherited.clone();
        steps.add_all(root)?;
        let mut document = Document { steps, ..Document::default() };
        let entries = root.map("experiment file")?;
        for (key, node) in entries {
            match key.text.as_str() {
                // Read before, see [`Document::bases`].
                "extends" => {}
                "name" => {
                    shape::Shape::Id.check("name", node, &Names::default())?;
                    document.name = Some(node.text("name")?.to_owned());
                }
                "description" => document.description = Some(node.text("description")?.to_owned()),
                "replicate" | "replicate.seed" => {
                    let read = if key.text == "replicate" { replicate } else { seeds };
                    (document.seeds, document.seeds_at) = (Some(read(node)?), Some(node.at.clone()));
                }
                "axes" => document.read_axes(node, "axes", product_axis)?,
                "zip" => document.read_axes(node, "zip", crate::zip::axis)?,
                "variants" => document.read_axes(node, "variants", variants_axis)?,
                "include" => {
                    let points = list_or_null(node, "include")?.iter().map(|node| include(node, &document.steps));
                    document.include = Some(points.collect::<Result<_, _>>()?);
                }
                "exclude" => document.exclude = Some(list_or_null(node, "exclude")?.to_vec()),
                "report" => document.report = Some(node.clone()),
                "claims" => document.claims = Some(node.clone()),
                _ => setting(key, node, "", &document.steps, &mut document.settings)?,
            }
        }
        for (position, axis) in document.axes.iter().enumerate() {
            if let Some(first) = document.axes[..position].iter().find(|other| other.name == axis.name) {
                return Err(axis
                    .at
                    .error(ErrorKind::DuplicateKey, format!("two axes are named `{}`", axis.name))
                    .label("again here")
                    .also(&first.at, "first here"));
            }
        }
        document.axes.sort_by_key(|axis| axis.kind);
        Ok(document)
    }

    fn read_axes(
        &mut self,
        node: &Node,
        section: &str,
        read: fn(&Key, &Node, &StepNames) -> Result<Axis, ExperimentError>,
    ) -> Result<(), ExperimentError> {
        for (key, node) in node.map(section)? {
            if node.is_nothing() {
                self.removals.push(Removal { name: key.text.clone(), at: key.at.clone(), found: false });
            } else {
                self.axes.push(read(key, node, &self.steps)?);
            }
        }
        Ok(())
    }

    /// What the points of the grid set beside the settings of all.
    pub fn points(&self) -> impl Iterator<Item = &[Override]> {
        let of_axes = self.axes.iter().flat_map(|axis| &axis.points).map(|point| point.set.as_slice());
        of_axes.chain(self.include.iter().flatten().map(|include| include.set.as_slice()))
    }

    /// Refuses removals that nothing inherited answers to: they are mistyped, or meant an axis of this file.
    pub fn check_removals(&self) -> Result<(), ExperimentError> {
        let Some(idle) = self.removals.iter().find(|removal| !removal.found) else { return Ok(()) };
        let error = idle
            .at
            .error(ErrorKind::BadAxis, format!("axis `{}` has no values", idle.name))
            .label("empty, and no extended file has this axis");
        Err(match suggest::nearest(&idle.name, self.axes.iter().map(|axis| axis.name.as_str())) {
            Some(near) => error.help(format!("did you mean `{near}`? an empty axis takes an inherited one away")),
            None => error.help("add a value, or remove the axis; an empty axis takes an inherited one away"),
        })
    }

    /// Lays a later document over this one: settings by path, axes by name, everything else as a whole.
    pub fn overlay(mut self, mut later: Document) -> Document {
        for removal in &mut later.removals {
            let before = self.axes.len();
            self.axes.retain(|axis| axis.name != removal.name);
            removal.found |= self.axes.len() < before;
        }
        // An axis that comes back needs no removal any more: it replaces one of its name anyway.
        self.removals.retain(|removal| {
            let again = later.axes.iter().any(|axis| axis.name == removal.name);
            !again && !later.removals.iter().any(|other| other.name == removal.name)
        });
        for new in later.settings {
            match self.settings.iter_mut().find(|old| old.address.path == new.address.path) {
                Some(old) => *old = new,
                None => self.settings.push(new),
            }
        }
        for new in later.axes {
            match self.axes.iter_mut().find(|old| old.name == new.name) {
                Some(old) => *old = new,
                None => self.axes.push(new),
            }
        }
        self.axes.sort_by_key(|axis| axis.kind);
        Document {
            name: later.name,
            description: later.description.or(self.description),
            settings: self.settings,
            steps: self.steps.and(later.steps),
            seeds: later.seeds.or(self.seeds),
            seeds_at: later.seeds_at.or(self.seeds_at),
            axes: self.axes,
            removals: self.removals.into_iter().chain(later.removals).collect(),
            include: later.include.or(self.include),
            exclude: later.exclude.or(self.exclude),
            report: later.report.or(self.report),
            claims: later.claims.or(self.claims),
        }
    }
}

/// The items of a list; none of `null`.
fn list_or_null<'a>(node: &'a Node, name: &str) -> Result<&'a [Node], ExperimentError> {
    if node.is_nothing() { Ok(&[]) } else { node.list(name) }
}

fn extends(node: &Node) -> Result<Vec<(String, Location)>, ExperimentError> {
    let one = |node: &Node| Ok((node.text("extends")?.to_owned(), node.at.clone()));
    match &node.tree {
        Tree::List(items) => items.iter().map(one).collect(),
        _ => Ok(vec![one(node)?]),
    }
}

/// Reads `prune.metric: wanda` or `prune: { metric: wanda }` below `prefix` into overrides; `steps` are those whose settings can be named.
pub(crate) fn setting(
    key: &Key,
    node: &Node,
    prefix: &str,
    steps: &StepNames,
    into: &mut Vec<Override>,
) -> Result<(), ExperimentError> {
    let path = if prefix.is_empty() { key.text.clone() } else { format!("{prefix}.{}", key.text) };
    // `steps: { first: { metric: wanda } }` are settings, `steps: [...]` is a list.
    let is_of_steps = matches!(node.tree, Tree::Map(_)) && steps.is_section(&path);
    if is_of_steps || settings::is_section(&path) {
        return node.map(&path)?.iter().try_for_each(|(key, node)| setting(key, node, &path, steps, into));
    }
    if let Some(address) = Address::find(&path, steps) {
        address.setting.shape.check(&path, node, &Names::default())?;
        let new = Override::new(address, node);
        if let Some(first) = into.iter().find(|other| other.address.path == path) {
            return Err(key
                .at
                .error(ErrorKind::DuplicateKey, format!("`{path}` is set twice"))
                .label("again here")
                .also(&first.at, "first here")
                .help("keep one of the two; `a.b: c` and `a: { b: c }` are the same setting"));
        }
        into.push(new);
        return Ok(());
    }
    Err(unknown_setting(key, &path, prefix, steps))
}

fn unknown_setting(key: &Key, path: &str, prefix: &str, steps: &StepNames) -> ExperimentError {
    if let Some(why) = steps.unknown(path) {
        return key.at.error(ErrorKind::UnknownKey, why.message).label("unknown key").help(why.help);
    }
    let paths = SETTINGS.iter().map(|setting| setting.path);
    let sections = grammar::SECTIONS.iter().map(|section| section.key).filter(|_| prefix.is_empty());
    let error = key.at.error(ErrorKind::UnknownKey, format!("there is no setting `{path}`")).label("unknown key");
    match suggest::nearest(path, sections.chain(paths.clone())) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => {
            let head = path.split('.').next().unwrap_or_default();
            let below: Vec<&str> =
                paths.filter(|path| path.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'))).collect();
            if below.is_empty() {
                let sections = ["model", "dense", "data", "prune", "restore", "evaluate", "seed"];
                let all = grammar::SECTIONS.iter().map(|section| section.key).chain(sections);
                error.help(format!("keys: {}", suggest::list(all)))
            } else {
                error.help(format!("settings of `{head}`: {}", suggest::list(below)))
            }
        }
    }
}

fn replicate(node: &Node) -> Result<Vec<u64>, ExperimentError> {
    let mut found = None;
    for (key, node) in node.map("replicate")? {
        match key.text.as_str() {
            "seed" => found = Some(seeds(node)?),
            _ => return Err(shape::unknown_key(key, "`replicate`", ["seed"])),
        }
    }
    found.ok_or_else(|| {
        node.at.error(ErrorKind::MissingKey, "`replicate` needs `seed`").help("write `replicate: { seed: 0..2 }`")
    })
}

/// Replicate seeds: `0..2` (both ends included), a list, or one number.
pub(crate) fn seeds(node: &Node) -> Result<Vec<u64>, ExperimentError> {
    let setting = settings::find("seed").filter(|setting| setting.is_integer());
    let values = match &node.tree {
        Tree::Scalar(Value::Number(_)) => vec![node.clone()],
        _ => range::values("replicate.seed", node, true)?,
    };
    let mut seeds = Vec::new();
    for node in &values {
        if let Some(setting) = setting {
            setting.shape.check("replicate.seed", node, &Names::default())?;
        }
        let Tree::Scalar(Value::Number(number)) = &node.tree else {
            return Err(node.wrong_type("replicate.seed", "whole numbers or a range such as `0..2`"));
        };
        let seed = number.as_u64().unwrap_or_default();
        if seeds.contains(&seed) {
            return Err(node.at.error(ErrorKind::BadAxis, format!("seed `{seed}` is given twice")).label("again here"));
        }
        seeds.push(seed);
    }
    Ok(seeds)
}

fn product_axis(key: &Key, node: &Node, steps: &StepNames) -> Result<Axis, ExperimentError> {
    let Some(address) = Address::find(&key.text, steps) else {
        let error = unknown_setting(key, &key.text, "axes", steps);
        return Err(if settings::is_section(&key.text) {
            key.at
                .error(ErrorKind::UnknownKey, format!("`{}` is a group of settings, not one", key.text))
                .label("not a setting")
                .help("name the setting in full, such as `prune.metric`; settings that move together go into `zip:`")
        } else {
            error
        });
    };
    let setting = address.setting;
    if setting.path == "seed" {
        return Err(key
            .at
            .error(ErrorKind::BadAxis, "`seed` is not an ordinary axis")
            .label("results are aggregated over seeds")
            .help("write `replicate: { seed: 0..2 }` at the top level"));
    }
    if matches!(setting.shape, shape::Shape::Floors) {
        return Err(key
            .at
            .error(ErrorKind::BadAxis, format!("`{}` cannot vary", setting.path))
            .label("checked, never computed with")
            .help(format!("write `{}` at the top level", setting.path)));
    }
    if matches!(setting.shape, shape::Shape::Steps) {
        return Err(key
            .at
            .error(ErrorKind::BadAxis, "`steps` is not an axis")
            .label("lists have no labels")
            .help("name each list in `variants:`, such as `schedule: { gradual: { steps: [...] } }`"));
    }
    let values = range::values(&key.text, node, setting.is_integer())?;
    Ok(Axis {
        name: key.text.clone(),
        kind: AxisKind::Product,
        tags: Vec::new(),
        points: points(&address, &values)?,
        at: key.at.clone(),
    })
}

/// The points of a product axis over a setting.
pub(crate) fn points(address: &Address, values: &[Node]) -> Result<Vec<Point>, ExperimentError> {
    let mut points: Vec<Point> = Vec::with_capacity(values.len());
    let mut seen = std::collections::HashSet::new();
    for node in values {
        address.setting.shape.check(&address.path, node, &Names::default())?;
        let new = Override::new(address.clone(), node);
        let label = Label::of(&new.value).map_or_else(|| "null".to_owned(), |label| label.0);
        if !seen.insert(label.clone()) {
            return Err(node
                .at
                .error(ErrorKind::BadAxis, format!("axis `{}` has the value `{label}` twice", address.path))
                .label("again here"));
        }
        points.push(Point { label, tags: Vec::new(), set: vec![new] });
    }
    Ok(points)
}

/// Refuses names that would be ambiguous in tables, figures and claims.
pub(crate) fn check_axis_name(key: &Key) -> Result<(), ExperimentError> {
    let taken =
        settings::find(&key.text).is_some() || settings::is_section(&key.text) || key.text.starts_with("steps.");
    let reserved = ["metric", "seed", "name", "labels", "tags"].contains(&key.text.as_str());
    if taken || reserved || key.text.is_empty() || key.text.contains(['=', ',']) {
        return Err(key
            .at
            .error(ErrorKind::BadAxis, format!("an axis cannot be named `{}`", key.text))
            .label(if taken { "the name of a setting" } else { "a reserved name" })
            .help("choose a name of your own, such as `pattern` or `restoration`"));
    }
    Ok(())
}

fn variants_axis(key: &Key, node: &Node, steps: &StepNames) -> Result<Axis, ExperimentError> {
    check_axis_name(key)?;
    let mut points = Vec::new();
    for (label, overrides) in node.map(&format!("variants.{}", key.text))? {
        let mut set = Vec::new();
        match &overrides.tree {
            Tree::Scalar(Value::Null) => {}
            _ => {
                for (key, node) in overrides.map(&label.text)? {
                    setting(key, node, "", steps, &mut set)?;
                }
            }
        }
        points.push(Point { label: label.text.clone(), tags: Vec::new(), set });
    }
    if points.is_empty() {
        return Err(node
            .at
            .error(ErrorKind::BadAxis, format!("axis `{}` has no variants", key.text))
            .label("empty")
            .help("add a variant, such as `pruned: { restore.method: none }`, or remove the axis"));
    }
    Ok(Axis { name: key.text.clone(), kind: AxisKind::Variants, tags: Vec::new(), points, at: key.at.clone() })
}

fn include(node: &Node, steps: &StepNames) -> Result<Include, ExperimentError> {
    let mut name = None;
    let (mut set, mut coordinates) = (Vec::new(), Vec::new());
    for (key, value) in node.map("include point")? {
        let head = key.text.split('.').next().unwrap_or_default();
        if key.text == "name" {
            name = Some(value.text("name")?.to_owned());
        } else if head == "steps" || settings::find(&key.text).is_some() || settings::is_section(head) {
            setting(key, value, "", steps, &mut set)?;
        } else {
            coordinates.push((key.clone(), value.clone()));
        }
    }
    let Some(name) = name else {
        return Err(node
            .at
            .error(ErrorKind::MissingKey, "an `include` point needs a `name`")
            .help("`- { name: dense, prune.metric: none, restore.method: none }`"));
    };
    Ok(Include { name, at: node.at.clone(), set, coordinates })
}

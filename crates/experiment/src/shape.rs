//! The shapes that values of an experiment file can have. One description serves the validator and the JSON Schema.

use serde_yaml::Value as Yaml;

use crate::{
    Pattern, Task,
    address::Address,
    error::{ErrorKind, ExperimentError},
    output::Label,
    settings,
    source::Location,
    steps::{self, StepNames},
    suggest,
    value::Value,
    yaml::{Key, Node, Tree},
};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// Any text.
    Text,
    /// A text of a form that whoever reads it checks, such as this one.
    Form(&'static str),
    /// The path of a file or folder.
    Path,
    /// A name that can be a file name: lower-case letters, digits, `-`, `_`, `.`.
    Id,
    /// A whole number, bounds included.
    Integer {
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A number.
    Number(Bounds),
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// One of a few words, or another shape.
    ChoiceOr(&'static [&'static str], &'static Shape),
    /// A sparsity pattern.
    Pattern,
    /// A list of at least `min` items, none twice.
    Set {
        /// Shape of the items.
        of: &'static Shape,
        /// Minimum number of items.
        min: usize,
    },
    /// A list of items.
    List(&'static Shape),
    /// The shape, or null.
    OrNull(&'static Shape),
    /// Lowest scores by task or `task/part`.
    Floors,
    /// Fractions by pattern.
    Shares,
    /// A mapping with known keys.
    Object(&'static [Field]),
    /// A mapping whose key `kind` decides which other keys it has.
    ByKind(&'static [(&'static [&'static str], &'static [Field])]),
    /// A mapping from names, each of which could be a file's, to mappings with known keys.
    Named(&'static [Field]),
    /// A mapping from any texts to texts.
    Texts,
    /// An axis of this experiment, or a settings path.
    Axis,
    /// An axis, or `metric` for one column per value.
    Columns,
    /// A value's name, see [`crate::value`].
    Value,
    /// A number or a value's name.
    NumberOrValue,
    /// A mapping from axes to labels or lists of labels.
    Where,
    /// A label of the axis that the named sibling key holds.
    LabelOf(&'static str),
    /// The name of an `include` point.
    Point,
    /// An id of the table of published numbers.
    Published,
    /// A list of steps, or null.
    Steps,
}

/// Bounds of a number; `None` is unbounded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Minimum.
    pub at_least: Option<f64>,
    /// Excluded lower bound.
    pub above: Option<f64>,
    /// Maximum.
    pub at_most: Option<f64>,
    /// Excluded upper bound.
    pub below: Option<f64>,
}

impl Bounds {
    /// Every finite number.
    pub const ANY: Self = Self { at_least: None, above: None, at_most: None, below: None };

    fn allow(&self, x: f64) -> bool {
        x.is_finite()
            && self.at_least.is_none_or(|bound| x >= bound)
            && self.above.is_none_or(|bound| x > bound)
            && self.at_most.is_none_or(|bound| x <= bound)
            && self.below.is_none_or(|bound| x < bound)
    }

    fn words(&self) -> String {
        let part = |word: &str, bound: Option<f64>| bound.map(|bound| format!("{word} {bound}"));
        let parts = [
            part("at least", self.at_least),
            part("above", self.above),
            part("at most", self.at_most),
            part("below", self.below),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

/// A key of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As it is written.
    pub key: &'static str,
    /// Whether it must be there.
    pub need: Need,
    /// Its value.
    pub shape: Shape,
    /// What it says, in a sentence.
    pub doc: &'static str,
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Required.
    Must,
    /// Optional.
    May,
    /// Exactly one of the keys marked so.
    OneOf,
}

/// What an experiment's names are, for the shapes that refer to them. The default knows none, as fits plain settings.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Axes with their labels.
    pub axes: Vec<(String, Vec<String>)>,
    /// Names of `include` points.
    pub points: Vec<String>,
    /// Tasks that every cell evaluates.
    pub tasks: Vec<Task>,
    /// Ids of published numbers; `None` when there is no table of them.
    pub published: Option<Vec<String>>,
    /// Steps whose settings can be named.
    pub steps: StepNames,
}

impl Shape {
    /// Checks a value; `name` is how messages call it.
    pub(crate) fn check(&self, name: &str, node: &Node, names: &Names) -> Result<(), ExperimentError> {
        match self {
            Shape::Flag => match node.tree {
                Tree::Scalar(Yaml::Bool(_)) => Ok(()),
                _ => Err(node.wrong_type(name, "`true` or `false`")),
            },
            Shape::Text => node.text(name).map(drop),
            Shape::Form(example) => match &node.tree {
                Tree::Scalar(Yaml::String(_)) => Ok(()),
                _ => Err(node.wrong_type(name, &format!("text such as `{example}`"))),
            },
            Shape::Path => check_path(name, node),
            Shape::Id => check_id(name, node),
            Shape::Integer { min, max } => check_integer(name, node, *min, *max),
            Shape::Number(bounds) => check_number(name, node, bounds),
            Shape::Choice(words) => check_choice(name, node, words),
            Shape::ChoiceOr(words, other) => match node.tree {
                Tree::Scalar(Yaml::String(_)) => check_choice(name, node, words),
                _ => other.check(name, node, names),
            },
            Shape::Pattern => match node.text(name)?.parse::<Pattern>() {
                Ok(_) => Ok(()),
                Err(error) => Err(node
                    .at
                    .error(ErrorKind::BadValue, format!("`{name}`: {error}"))
                    .label("not a pattern")
                    .help_opt(
                        suggest::nearest(node.text(name)?, ["unstructured", "2:4", "4:8"])
                            .map(|near| format!("did you mean `{near}`?")),
                    )),
            },
            Shape::Set { of, min } => check_set(name, node, of, *min, names),
            Shape::List(of) => node.list(name)?.iter().try_for_each(|item| of.check(name, item, names)),
            Shape::OrNull(of) => match node.tree {
                Tree::Scalar(Yaml::Null) => Ok(()),
                _ => of.check(name, node, names),
            },
            Shape::Floors => check_floors(name, node),
            Shape::Shares => node.map(name)?.iter().try_for_each(|(key, share)| {
                let bounds = Bounds { at_least: Some(0.0), at_most: Some(1.0), ..Bounds::ANY };
                check_number(&format!("{name}: {}", key.text), share, &bounds)
            }),
            Shape::Object(fields) => check_object(name, node, fields, names),
            Shape::ByKind(kinds) => {
                let kind = node.map(name)?.iter().find(|(key, _)| key.text == "kind");
                let kind = kind.and_then(|(_, value)| value.text("kind").ok()).unwrap_or_default();
                // An unknown kind is the mistake that the first fields name.
                let known = kinds.iter().find(|(words, _)| words.contains(&kind)).or(kinds.first());
                known.map_or(Ok(()), |(_, fields)| check_object(name, node, fields, names))
            }
            Shape::Named(fields) => node.map(name)?.iter().try_for_each(|(key, value)| {
                check_file_name(name, &key.text, &key.at)?;
                check_object(&format!("{name}.{}", key.text), value, fields, names)
            }),
            Shape::Texts => node
                .map(name)?
                .iter()
                .try_for_each(|(key, value)| value.text(&format!("{name}.{}", key.text)).map(drop)),
            Shape::Axis => check_axis(name, node, names),
            Shape::Columns => match node.text(name)? {
                "metric" => Ok(()),
                _ => check_axis(name, node, names),
            },
            Shape::Value => check_value(name, node, names),
            Shape::NumberOrValue => match node.tree {
                Tree::Scalar(Yaml::Number(_)) => check_number(name, node, &Bounds::ANY),
                _ => check_value(name, node, names),
            },
            Shape::Where => node.map(name)?.iter().try_for_each(|(axis, labels)| {
                check_axis_name(&axis.text, &axis.at, names)?;
                match &labels.tree {
                    Tree::List(items) => items.iter().try_for_each(|item| check_label(&axis.text, item, names)),
                    _ => check_label(&axis.text, labels, names),
                }
            }),
            Shape::Steps => steps::check(node),
            Shape::LabelOf(_) => match &node.tree {
                Tree::Scalar(_) => Ok(()),
                _ => Err(node.wrong_type(name, "a label")),
            },
            Shape::Point => {
                let text = node.text(name)?;
                if names.points.iter().any(|point| point == text) {
                    return Ok(());
                }
                let help = if names.points.is_empty() {
                    "add one: `include: [{ name: dense, prune.metric: none, restore.method: none }]`".to_owned()
                } else {
                    suggest::hint(text, "points", names.points.iter().map(String::as_str))
                };
                Err(node
                    .at
                    .error(ErrorKind::UnknownName, format!("no `include` point is named `{text}`"))
                    .label("unknown point")
                    .help(help))
            }
            Shape::Published => {
                let text = node.text(name)?;
                match &names.published {
                    Some(ids) if !ids.iter().any(|id| id == text) => Err(node
                        .at
                        .error(ErrorKind::UnknownName, format!("no published numbers have the id `{text}`"))
                        .label("unknown id")
                        .help(suggest::hint(text, "ids of paper/expected.csv", ids.iter().map(String::as_str)))),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Whether a text is a short plain word.
pub(crate) fn is_id(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.+".contains(c);
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 80 && text.starts_with(first) && text.chars().all(letter)
}

fn check_id(name: &str, node: &Node) -> Result<(), ExperimentError> {
    check_file_name(name, node.text(name)?, &node.at)
}

fn check_file_name(name: &str, text: &str, at: &Location) -> Result<(), ExperimentError> {
    if is_id(text) {
        return Ok(());
    }
    Err(at
        .error(ErrorKind::BadValue, format!("`{text}` cannot be a file name"))
        .label(format!("`{name}` names files"))
        .help("use lower-case letters, digits, `-`, `_` and `.`, beginning with a letter or digit"))
}

fn check_path(name: &str, node: &Node) -> Result<(), ExperimentError> {
    let text = node.text(name)?;
    if text.trim().is_empty() {
        let error = node.at.error(ErrorKind::BadValue, format!("`{name}` is empty")).label("expected a path");
        return Err(error.help("write a path, or `null` for none"));
    }
    let Some(part) = crate::path::unexpanded(text) else { return Ok(()) };
    Err(node
        .at
        .error(ErrorKind::BadValue, format!("`{name}`: `{part}` is not expanded here"))
        .label("would be taken literally")
        .help("write the path out, absolute or relative to the repository, such as `/data/benchmarks`"))
}

fn check_integer(name: &str, node: &Node, min: u64, max: u64) -> Result<(), ExperimentError> {
    let Tree::Scalar(Yaml::Number(number)) = &node.tree else { return Err(node.wrong_type(name, "a whole number")) };
    match number.as_u64() {
        Some(value) if (min..=max).contains(&value) => Ok(()),
        _ => {
            let too_large = number.as_f64().is_some_and(|x| x > max as f64);
            let range = if !too_large && (number.as_f64().is_some_and(|x| x < min as f64) || max == u64::from(u32::MAX))
            {
                format!("a whole number of at least {min}")
            } else {
                format!("a whole number from {min} to {max}")
            };
            Err(node.at.error(ErrorKind::BadValue, format!("`{name}` is `{number}`")).label(format!("must be {range}")))
        }
    }
}

fn check_number(name: &str, node: &Node, bounds: &Bounds) -> Result<(), ExperimentError> {
    let Tree::Scalar(Yaml::Number(number)) = &node.tree else { return Err(node.wrong_type(name, "a number")) };
    let value = number.as_f64().unwrap_or(f64::NAN);
    if bounds.allow(value) {
        return Ok(());
    }
    let words = bounds.words();
    let error = node.at.error(ErrorKind::BadValue, format!("`{name}` is `{number}`")).label(if words.is_empty() {
        "must be finite".to_owned()
    } else {
        format!("must be {words}")
    });
    Err(if name.ends_with("sparsity") && value > 1.0 && value <= 100.0 {
        error.help(format!("sparsity is the fraction removed: write {} for {value} %", value / 100.0))
    } else {
        error
    })
}

fn check_choice(name: &str, node: &Node, words: &[&'static str]) -> Result<(), ExperimentError> {
    let all = || suggest::list(words.iter().copied());
    let text = node.text(name).map_err(|error| error.help(format!("choices: {}", all())))?;
    if words.contains(&text) {
        return Ok(());
    }
    let help = match suggest::nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? choices: {}", all()),
        None => format!("choices: {}", all()),
    };
    Err(node
        .at
        .error(ErrorKind::BadValue, format!("`{name}` cannot be `{text}`"))
        .label("not one of the choices")
        .help(help))
}

fn check_set(name: &str, node: &Node, of: &Shape, min: usize, names: &Names) -> Result<(), ExperimentError> {
    let items = node.list(name)?;
    if items.len() < min {
        return Err(node
            .at
            .error(ErrorKind::BadValue, format!("`{name}` is empty"))
            .label(format!("needs at least {min}")));
    }
    for (position, item) in items.iter().enumerate() {
        of.check(name, item, names)?;
        if let Some(first) = items[..position].iter().find(|other| other.value() == item.value()) {
            return Err(item
                .at
                .error(ErrorKind::BadValue, format!("`{}` is in `{name}` twice", item.at.text()))
                .label("again here")
                .also(&first.at, "first here"));
        }
    }
    Ok(())
}

fn check_floors(name: &str, node: &Node) -> Result<(), ExperimentError> {
    for (key, floor) in node.map(name)? {
        match key.text.parse::<Value>() {
            Ok(value) if value.lower_is_better() => {
                return Err(key
                    .at
                    .error(
                        ErrorKind::BadValue,
                        format!("`{}` is better the lower it is, so it has no lowest score", key.text),
                    )
                    .label("no floor")
                    .help("name another score"));
            }
            Ok(Value::Task(_) | Value::Part(..)) => {}
            _ => {
                let names = Value::names_with_parts();
                let scores = names
                    .iter()
                    .map(String::as_str)
                    .filter(|name| matches!(name.parse::<Value>(), Ok(Value::Task(_) | Value::Part(..))));
                return Err(key
                    .at
                    .error(ErrorKind::UnknownName, format!("`{}` is not a task or a part of one", key.text))
                    .label("no such score")
                    .help(suggest::hint(&key.text, "scores", scores)));
            }
        }
        let bounds = Bounds { at_least: Some(0.0), at_most: Some(100.0), ..Bounds::ANY };
        check_number(&format!("{name}: {}", key.text), floor, &bounds)?;
    }
    Ok(())
}

fn check_object(name: &str, node: &Node, fields: &[Field], names: &Names) -> Result<(), ExperimentError> {
    let entries = node.map(name)?;
    for (key, value) in entries {
        let Some(field) = fields.iter().find(|field| field.key == key.text) else {
            return Err(unknown_key(key, &format!("`{name}`"), fields.iter().map(|field| field.key)));
        };
        field.shape.check(&format!("{name}.{}", field.key), value, names)?;
        if let Shape::LabelOf(sibling) = field.shape
            && let Some((_, axis)) = entries.iter().find(|(key, _)| key.text == sibling)
        {
            check_label(axis.text(sibling)?, value, names)?;
        }
    }
    let has = |field: &&Field| entries.iter().any(|(key, _)| key.text == field.key);
    if let Some(missing) = fields.iter().find(|field| field.need == Need::Must && !has(field)) {
        return Err(node
            .at
            .error(ErrorKind::MissingKey, format!("`{name}` needs `{}`", missing.key))
            .label(format!("`{}` is missing", missing.key))
            .help(format!("{}: {}", missing.key, missing.doc)));
    }
    let alternatives: Vec<&Field> = fields.iter().filter(|field| field.need == Need::OneOf).collect();
    let given: Vec<&&Field> = alternatives.iter().filter(|field| has(field)).collect();
    if !alternatives.is_empty() && given.len() != 1 {
        let words = suggest::list(alternatives.iter().map(|field| field.key));
        let message = if given.is_empty() {
            format!("`{name}` needs one of {words}")
        } else {
            format!("`{name}` has more than one of {words}")
        };
        return Err(node.at.error(ErrorKind::MissingKey, message).label("exactly one"));
    }
    Ok(())
}

/// The error for a key that does not exist.
pub(crate) fn unknown_key<'a>(
    key: &Key,
    place: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> ExperimentError {
    key.at
        .error(ErrorKind::UnknownKey, format!("{place} has no key `{}`", key.text))
        .label("unknown key")
        .help(suggest::hint(&key.text, "keys", known))
}

fn check_axis(name: &str, node: &Node, names: &Names) -> Result<(), ExperimentError> {
    check_axis_name(node.text(name)?, &node.at, names)
}

fn check_axis_name(axis: &str, at: &Location, names: &Names) -> Result<(), ExperimentError> {
    if names.axes.iter().any(|(name, _)| name == axis) || Address::find(axis, &names.steps).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = names.axes.iter().map(|(name, _)| name.as_str()).collect();
    let all = known.iter().copied().chain(settings::SETTINGS.iter().map(|setting| setting.path));
    let help = match suggest::nearest(axis, all) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("axes of this experiment: {}", suggest::list(known)),
    };
    Err(at.error(ErrorKind::UnknownName, format!("no axis is named `{axis}`")).label("unknown axis").help(help))
}

fn check_label(axis: &str, node: &Node, names: &Names) -> Result<(), ExperimentError> {
    let label = match &node.tree {
        Tree::Scalar(value) => Label::of(value),
        _ => None,
    };
    let Some(label) = label else { return Err(node.wrong_type(axis, "a label (text or a number)")) };
    match names.axes.iter().find(|(name, _)| name == axis) {
        Some((_, labels)) => {
            let all = || labels.iter().chain(&names.points).map(String::as_str);
            if all().any(|known| known == label.0) {
                return Ok(());
            }
            Err(node
                .at
                .error(ErrorKind::UnknownName, format!("axis `{axis}` has no label `{}`", label.0))
                .label("unknown label")
                .help(match suggest::nearest(&label.0, all()) {
                    Some(near) => format!("did you mean `{near}`? labels: {}", suggest::list(all())),
                    None => format!("labels: {}", suggest::list(all())),
                }))
        }
        None => match Address::find(axis, &names.steps) {
            Some(address) => address.setting.shape.check(axis, node, names),
            None => Ok(()),
        },
    }
}

fn check_value(name: &str, node: &Node, names: &Names) -> Result<(), ExperimentError> {
    let text = node.text(name)?;
    let value = text.parse::<Value>().map_err(|error| {
        node.at
            .error(ErrorKind::UnknownName, format!("`{text}` is not a value that can be shown"))
            .label("unknown value")
            .help(match error.near {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let names = [Value::names(), Value::COSTS.map(|cost| cost.to_string()).to_vec()].concat();
                    format!("values: {}", suggest::list(names.iter().map(String::as_str)))
                }
            })
    })?;
    match value.tasks().iter().find(|task| !names.tasks.contains(task)) {
        None => Ok(()),
        Some(missing) => {
            let evaluated = suggest::list(names.tasks.iter().map(|task| task.name()));
            Err(node
                .at
                .error(ErrorKind::UnknownName, format!("`{text}` needs `{missing}`, which is not evaluated"))
                .label("cannot be computed")
                .help(format!("`evaluate.tasks` has {evaluated}: add `{missing}` there or show another value")))
        }
    }
}

//! Overrides on the command line: `prune.metric=wanda,magnitude`, `replicate.seed=0..4`, `restoration=pruned`.
//!
//! - A settings path replaces the product axis over that setting where there is one, also with one value; else one value is a setting and
//!   several are a new axis. A setting that `zip:` or `variants:` sets cannot be overridden: the block would win.
//! - The name of a `zip` or `variants` axis keeps the labels named.
//! - `replicate.seed` takes a number, several, or a range such as `0..4`, both ends included.
//!
//! Values are written as in YAML's flow syntax, see [`crate::flow`]: quotes, brackets, `null`.

use std::{borrow::Cow, sync::Arc};

use crate::{
    RunConfig,
    address::Address,
    document::{self, Axis, AxisKind, Document, Override},
    error::{ErrorKind, ExperimentError},
    flow::{self, Reading, quoted},
    grammar,
    output::Label,
    settings::{self, SETTINGS, Setting},
    shape::{Names, Shape},
    source::{COMMAND_LINE, Location, Source},
    spelling, suggest,
    yaml::{Node, Tree},
};

/// Applies arguments in order.
pub(crate) fn apply(document: &mut Document, arguments: &[String]) -> Result<(), ExperimentError> {
    let example = "`prune.metric=wanda,magnitude` or `replicate.seed=0..4`";
    each(arguments, example, &mut |source, path, key, start| one(document, source, path, key, start))
}

/// Puts settings of single steps, such as `prune.sparsegpt.damping=on-failure`, into a run. `open` says which paths can be set, and of others what
/// sets them.
///
/// # Errors
/// What is no setting, cannot be set here or has a value that an experiment file could not give it.
pub fn assign(
    run: &mut RunConfig,
    arguments: &[String],
    open: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), ExperimentError> {
    each(arguments, "`prune.sparsegpt.damping=on-failure`", &mut |source, path, key, start| {
        let Some(setting) = settings::find(path) else {
            let names = SETTINGS.iter().map(|setting| setting.path).filter(|path| open(path).is_ok());
            let error = key.error(ErrorKind::Override, format!("there is no setting `{path}`")).label("unknown name");
            return Err(match suggest::nearest(path, names) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("name a setting such as `prune.sparsegpt.damping`"),
            });
        };
        open(path).map_err(|why| key.error(ErrorKind::Override, format!("`{path}` cannot be set here")).help(why))?;
        let values = values(source, start, setting)?;
        let [value] = values.as_slice() else {
            let at = Location::new(source, start..source.text().len());
            return Err(at.error(ErrorKind::Override, format!("`{path}` takes one value")));
        };
        setting.shape.check(path, value, &Names::default())?;
        let wrong = |e| value.at.error(ErrorKind::BadValue, format!("`{path}`: {e}"));
        setting.set(run, &value.value()).map_err(wrong)
    })
}

/// Told the argument, its path, where that is, and where the value begins.
type Each<'a> = &'a mut dyn FnMut(&Arc<Source>, &str, Location, usize) -> Result<(), ExperimentError>;

/// Takes arguments apart; `example` is for those who write none.
fn each(arguments: &[String], example: &str, one: Each<'_>) -> Result<(), ExperimentError> {
    let mut done: Vec<Cow<'_, str>> = Vec::new();
    for argument in arguments {
        let source = Source::inline(COMMAND_LINE, argument);
        let place = |span: std::ops::Range<usize>| Location::new(&source, span);
        let Some(equals) = argument.find('=') else {
            return Err(place(0..argument.len())
                .error(ErrorKind::Override, format!("`{argument}` is not an override"))
                .label("expected `path=value`")
                .help(format!("write for example {example}")));
        };
        let path = spelling::setting(argument[..equals].trim());
        let key = place(0..equals);
        if done.contains(&path) {
            return Err(key
                .error(ErrorKind::Override, format!("`{path}` is overridden twice"))
                .help(format!("give all values at once: `{path}=a,b`")));
        }
        one(&source, &path, key, equals + 1)?;
        done.push(path);
    }
    Ok(())
}

/// The values of a setting, named as today.
fn values(source: &Arc<Source>, start: usize, setting: &Setting) -> Result<Vec<Node>, ExperimentError> {
    let mut values = flow::values(source, start, setting.reading())?;
    values.iter_mut().try_for_each(spelling::current)?;
    Ok(values)
}

fn one(
    document: &mut Document,
    source: &Arc<Source>,
    path: &str,
    key: Location,
    start: usize,
) -> Result<(), ExperimentError> {
    if path == "replicate.seed" {
        let nodes = flow::values(source, start, Reading::Plain)?;
        let whole = Node { tree: Tree::List(nodes.clone()), at: Location::new(source, start..source.text().len()) };
        document.seeds_at = Some(whole.at.clone());
        document.seeds = Some(match nodes.as_slice() {
            [single] => document::seeds(single)?,
            _ => document::seeds(&whole)?,
        });
        return Ok(());
    }
    if let Some(address) = Address::find(path, &document.steps) {
        return set(document, source, address, key, start);
    }
    if let Some(axis) = document.axes.iter_mut().find(|axis| axis.name == path) {
        return select(axis, source, start);
    }
    if let Some(why) = document.steps.unknown(path) {
        return Err(key.error(ErrorKind::Override, why.message).label("unknown name").help(why.help));
    }
    let names = SETTINGS.iter().map(|setting| setting.path).chain(["replicate.seed"]);
    let names = names.chain(document.axes.iter().map(|axis| axis.name.as_str()));
    let error = key.error(ErrorKind::Override, format!("there is no setting or axis `{path}`")).label("unknown name");
    let error = match suggest::nearest(path, names) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if grammar::SECTIONS.iter().any(|section| section.key == path) => {
            error.help("only settings, axes and `replicate.seed` can be overridden; edit the file for the rest")
        }
        None => error.help("name a setting such as `prune.metric`, an axis of the file, or `replicate.seed`"),
    };
    Err(error)
}

fn set(
    document: &mut Document,
    source: &Arc<Source>,
    address: Address,
    key: Location,
    start: usize,
) -> Result<(), ExperimentError> {
    let (path, setting) = (address.path.clone(), address.setting);
    let path = &*path;
    let sets = |axis: &&Axis| axis.points.iter().any(|point| point.set.iter().any(|o| o.address.path == path));
    if let Some(axis) = document.axes.iter().filter(|axis| axis.kind != AxisKind::Product).find(sets) {
        let labels = suggest::list(axis.points.iter().map(|point| point.label.as_str()));
        return Err(key
            .error(ErrorKind::Override, format!("`{path}` is set by the axis `{}`, which would win", axis.name))
            .label("cannot be overridden")
            .also(&axis.at, "the axis")
            .help(format!("choose among its labels with `{}=...`: {labels}", axis.name)));
    }
    if path == "seed" && document.seeds.is_some() {
        return Err(key
            .error(ErrorKind::Override, "`seed` is set by `replicate`, which would win")
            .help(format!("write `replicate.seed={}`", &source.text()[start..])));
    }
    let mut values = values(source, start, setting)?;
    if let [single] = values.as_slice() {
        let is_range = match &single.tree {
            Tree::Scalar(_) => setting.is_integer() && single.at.text().contains(".."),
            Tree::Map(_) => !setting.is_map(),
            Tree::List(_) => false,
        };
        if is_range {
            values = crate::range::values(path, single, setting.is_integer())?;
        }
    }
    if let Some(axis) = document.axes.iter_mut().find(|axis| axis.name == path) {
        axis.points = document::points(&address, &values)?;
        return Ok(());
    }
    if let [value] = values.as_slice() {
        setting.shape.check(path, value, &Names::default())?;
        if matches!(setting.shape, Shape::Steps) && !value.is_nothing() {
            document.steps.add(value)?;
        }
        document.settings.retain(|old| old.address.path != path);
        document.settings.push(Override::new(address, value));
        return Ok(());
    }
    let points = document::points(&address, &values)?;
    document.axes.push(Axis { name: path.to_owned(), kind: AxisKind::Product, tags: Vec::new(), points, at: key });
    document.axes.sort_by_key(|axis| axis.kind);
    Ok(())
}

/// Keeps the labels named. A label with a comma or marks of its own is quoted; a text that is a label as a whole needs no quotes.
fn select(axis: &mut Axis, source: &Arc<Source>, start: usize) -> Result<(), ExperimentError> {
    let whole = source.text()[start..].trim();
    let named = match flow::values(source, start, Reading::Plain) {
        Ok(nodes) => nodes,
        Err(_) if axis.points.iter().any(|point| point.label == whole) => {
            axis.points.retain(|point| point.label == whole);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut wanted = Vec::with_capacity(named.len());
    for node in &named {
        // `0.50` may be a label as well as the number 0.5.
        let value = match &node.tree {
            Tree::Scalar(value) => Label::of(value).map(|label| label.0),
            Tree::List(_) | Tree::Map(_) => None,
        };
        let candidates = [Some(node.at.text().to_owned()), value];
        let known = candidates.into_iter().flatten().find(|text| axis.points.iter().any(|p| p.label == *text));
        let Some(label) = known else { return Err(unknown_label(axis, node, whole)) };
        wanted.push(label);
    }
    axis.points.retain(|point| wanted.contains(&point.label));
    Ok(())
}

fn unknown_label(axis: &Axis, node: &Node, whole: &str) -> ExperimentError {
    let text = node.at.text();
    let labels = || axis.points.iter().map(|point| point.label.as_str());
    let error = node
        .at
        .error(ErrorKind::Override, format!("axis `{}` has no label `{text}`", axis.name))
        .label("unknown label");
    let with_comma = labels().find(|label| *label == whole).or_else(|| labels().find(|label| label.contains(',')));
    let hint = suggest::hint(text, "labels", labels());
    error.help(match with_comma {
        Some(label) => format!("{hint}; a label with a comma is quoted: `'{}={}'`", axis.name, quoted(label)),
        None => hint,
    })
}

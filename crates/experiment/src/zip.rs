//! `zip:` blocks: columns of settings that move together, one axis of the product each.
//!
//! ```yaml
//! zip:
//!   pattern:
//!     prune.pattern:           [unstructured, "2:4"]
//!     prune.vision.sparsity:   [0.5, 0.5]
//!     prune.language.sparsity: [0.5, 0.5]
//!     labels: ["50 %", "2:4"]          # optional: otherwise derived
//!     tags: { family: [free, N:M] }    # optional: further coordinates, for panels and `where`
//! ```

use serde_yaml::Value;

use crate::{
    address::Address,
    document::{Axis, AxisKind, Override, Point, check_axis_name},
    error::{ErrorKind, ExperimentError},
    output::Label,
    range, settings,
    shape::Names,
    source::Location,
    steps::StepNames,
    suggest,
    yaml::{Key, Node, Tree},
};

struct Column {
    address: Address,
    values: Vec<Node>,
    at: Location,
}

/// Reads one block.
pub(crate) fn axis(key: &Key, node: &Node, steps: &StepNames) -> Result<Axis, ExperimentError> {
    check_axis_name(key)?;
    let name = &key.text;
    let mut columns: Vec<Column> = Vec::new();
    let mut labels: Option<(Vec<Node>, Location)> = None;
    let mut tags: Vec<(Key, Vec<Node>)> = Vec::new();
    for (key, node) in node.map(&format!("zip.{name}"))? {
        match key.text.as_str() {
            "labels" => labels = Some((node.list("labels")?.to_vec(), key.at.clone())),
            "tags" => {
                for (tag, node) in node.map("tags")? {
                    check_axis_name(tag)?;
                    tags.push((tag.clone(), node.list(&tag.text)?.to_vec()));
                }
            }
            path => {
                let Some(address) = Address::find(path, steps) else {
                    if let Some(why) = steps.unknown(path) {
                        return Err(key
                            .at
                            .error(ErrorKind::UnknownKey, why.message)
                            .label("unknown key")
                            .help(why.help));
                    }
                    let paths = settings::SETTINGS.iter().map(|setting| setting.path).chain(["labels", "tags"]);
                    return Err(key
                        .at
                        .error(ErrorKind::UnknownKey, format!("there is no setting `{path}`"))
                        .label("unknown key")
                        .help(suggest::hint(path, "a column is a setting; settings", paths)));
                };
                let values = range::values(path, node, address.setting.is_integer())?;
                for value in &values {
                    address.setting.shape.check(path, value, &Names::default())?;
                }
                columns.push(Column { address, values, at: key.at.clone() });
            }
        }
    }
    let Some(first) = columns.first() else {
        return Err(node
            .at
            .error(ErrorKind::BadAxis, format!("zip block `{name}` has no columns"))
            .label("empty")
            .help("add a settings path with a list of values"));
    };
    let length = first.values.len();
    let lists = columns[1..].iter().map(|column| (&*column.address.path, &column.values, &column.at));
    let lists = lists.chain(labels.iter().map(|(values, at)| ("labels", values, at)));
    let lists = lists.chain(tags.iter().map(|(key, values)| (key.text.as_str(), values, &key.at)));
    for (column, values, at) in lists {
        if values.len() != length {
            return Err(at
                .error(ErrorKind::BadAxis, format!("columns of zip block `{name}` differ in length"))
                .label(format!("`{column}` has {}", values.len()))
                .also(&first.at, format!("`{}` has {length}", first.address.path))
                .help("every column of a block needs the same number of values"));
        }
    }
    let given = match &labels {
        Some((nodes, _)) => nodes.iter().map(label).collect::<Result<_, _>>()?,
        None => derived(&columns, length),
    };
    let label_place = |row: usize| labels.as_ref().map_or(&key.at, |(nodes, _)| &nodes[row].at);
    let mut points: Vec<Point> = Vec::with_capacity(length);
    for (row, own) in given.into_iter().enumerate() {
        let set = columns.iter().map(|column| Override::new(column.address.clone(), &column.values[row]));
        let tags = tags.iter().map(|(_, nodes)| label(&nodes[row])).collect::<Result<_, _>>()?;
        let point = Point { label: own, tags, set: set.collect() };
        if points.iter().any(|other| other.label == point.label && other.tags == point.tags) {
            let help =
                if labels.is_some() { "make every label its own" } else { "give the rows names with `labels: [...]`" };
            return Err(label_place(row)
                .error(ErrorKind::BadAxis, format!("two rows of zip block `{name}` are labelled `{}`", point.label))
                .help(help));
        }
        points.push(point);
    }
    Ok(Axis {
        name: name.clone(),
        kind: AxisKind::Zip,
        tags: tags.into_iter().map(|(key, _)| key.text).collect(),
        points,
        at: key.at.clone(),
    })
}

fn label(node: &Node) -> Result<String, ExperimentError> {
    match &node.tree {
        Tree::Scalar(value) => Label::of(value).map(|label| label.0),
        _ => None,
    }
    .ok_or_else(|| node.wrong_type("labels", "text or numbers"))
}

/// Labels as the field writes them: `50 %` for a sparsity, `10:90` where towers differ, `2:4` for a pattern.
fn derived(columns: &[Column], length: usize) -> Vec<String> {
    let is_sparsity = |column: &&Column| column.address.path.ends_with(".sparsity");
    let pattern = columns.iter().find(|column| column.address.setting.path == "prune.pattern");
    let varies = |column: &&Column| {
        let first = column.values.first().map(Node::value);
        column.values.iter().any(|value| Some(value.value()) != first)
    };
    (0..length)
        .map(|row| {
            let text = |column: &Column| label(&column.values[row]).unwrap_or_default();
            let percents: Vec<String> = columns.iter().filter(is_sparsity).map(|c| percent(&c.values[row])).collect();
            let mut parts = Vec::new();
            match pattern.map(text) {
                Some(name) if name != "unstructured" => parts.push(name),
                _ if percents.is_empty() => parts.extend(pattern.map(text)),
                _ if percents.iter().all(|other| *other == percents[0]) => parts.push(format!("{} %", percents[0])),
                _ => parts.push(percents.join(":")),
            }
            let others = columns.iter().filter(|c| !is_sparsity(c) && c.address.setting.path != "prune.pattern");
            parts.extend(others.filter(|c| varies(c) || columns.len() == 1).map(text));
            parts.join(", ")
        })
        .collect()
}

/// A sparsity in per cent; nothing for what is no number.
fn percent(node: &Node) -> String {
    match &node.tree {
        Tree::Scalar(Value::Number(number)) => crate::percent(number.as_f64().unwrap_or_default()),
        _ => String::new(),
    }
}

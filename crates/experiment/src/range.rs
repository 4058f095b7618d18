//! Lists of values: written out, `0..2`, or `{ from: 0.1, to: 0.9, step: 0.1 }`.

use serde_yaml::Value;

use crate::{
    error::{ErrorKind, ExperimentError},
    expand::MAX_CELLS,
    shape::{Bounds, Names, Shape, unknown_key},
    yaml::{Node, Tree},
};

/// The values of an axis over `name`, at least one; `integer` allows `0..2`.
pub(crate) fn values(name: &str, node: &Node, integer: bool) -> Result<Vec<Node>, ExperimentError> {
    let values = match &node.tree {
        Tree::List(items) => items.clone(),
        Tree::Map(_) => steps(name, node)?,
        Tree::Scalar(Value::String(text)) if integer && text.contains("..") => whole(name, node, text)?,
        _ => {
            let forms = if integer { "a list of values or a range such as `0..2`" } else { "a list of values" };
            let help = format!("write `{name}: [{}]` for an axis with one value", node.at.text());
            return Err(node.wrong_type(name, forms).help(help));
        }
    };
    if values.is_empty() {
        return Err(node
            .at
            .error(ErrorKind::BadAxis, format!("axis `{name}` has no values"))
            .label("empty")
            .help("add a value or remove the axis"));
    }
    Ok(values)
}

fn whole(name: &str, node: &Node, text: &str) -> Result<Vec<Node>, ExperimentError> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.trim().parse::<u64>().ok()?, b.trim().parse().ok()?)));
    match ends {
        Some((first, last)) if first <= last && last - first < MAX_CELLS as u64 => Ok((first..=last)
            .map(|number| Node { tree: Tree::Scalar(Value::Number(number.into())), at: node.at.clone() })
            .collect()),
        Some((first, last)) if first > last => Err(node
            .at
            .error(ErrorKind::BadAxis, format!("the range `{text}` of `{name}` is empty"))
            .label("both ends are included")
            .help(format!("did you mean `{last}..{first}`?"))),
        Some(_) => {
            Err(node.at.error(ErrorKind::TooManyCells, format!("the range `{text}` has more than {MAX_CELLS} values")))
        }
        None => Err(node
            .at
            .error(ErrorKind::WrongType, format!("`{text}` is not a range of `{name}`"))
            .label("expected two whole numbers")
            .help("write `0..2` for 0, 1, 2: both ends are included")),
    }
}

/// Decimals of a number as it is written, without an exponent.
pub(crate) fn decimals(number: f64) -> usize {
    format!("{number}").split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

fn steps(name: &str, node: &Node) -> Result<Vec<Node>, ExperimentError> {
    let keys = ["from", "to", "step"];
    let entries = node.map(name)?;
    let mut numbers = [f64::NAN; 3];
    for (key, value) in entries {
        let Some(position) = keys.iter().position(|known| *known == key.text) else {
            return Err(unknown_key(key, &format!("a range of `{name}`"), keys));
        };
        Shape::Number(Bounds::ANY).check(&key.text, value, &Names::default())?;
        if let Tree::Scalar(Value::Number(number)) = &value.tree {
            numbers[position] = number.as_f64().unwrap_or(f64::NAN);
        }
    }
    let [from, to, step] = numbers;
    let bad = |message: String, help: &str| node.at.error(ErrorKind::BadAxis, message).help(help);
    if numbers.iter().any(|number| number.is_nan()) {
        let help = "write `{ from: 0.1, to: 0.9, step: 0.1 }`; both ends are included";
        return Err(bad(format!("a range of `{name}` needs `from`, `to` and `step`"), help));
    }
    if step <= 0.0 || to < from {
        return Err(bad(format!("the range of `{name}` is empty"), "`step` must be above 0 and `to` at least `from`"));
    }
    // A step such as 0.1 is not exact; a millionth of it decides whether the end belongs to the range.
    let count = ((to - from) / step + 1e-6).floor() + 1.0;
    if count > MAX_CELLS as f64 {
        return Err(bad(format!("the range of `{name}` has more than {MAX_CELLS} values"), "use a larger `step`"));
    }
    // What is written has so many decimals, and so have its sums: binary noise behind them goes.
    let places = decimals(from).max(decimals(step));
    let exact = |x: f64| format!("{x:.places$}").parse().unwrap_or(x);
    let number = |x: f64| if x.fract() == 0.0 && x >= 0.0 { Value::Number((x as u64).into()) } else { x.into() };
    Ok((0..count as u64)
        .map(|i| Node { tree: Tree::Scalar(number(exact(from + i as f64 * step))), at: node.at.clone() })
        .collect())
}

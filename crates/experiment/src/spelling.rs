//! Earlier names that are still read: `prune.qformer.sparsity` is `prune.connector.sparsity`.
//!
//! A file is brought to today's names once, before anything looks at them; overrides and filters name one thing at a time.

use std::borrow::Cow;

use serde_yaml::Value as Yaml;

use crate::{
    Tower,
    error::{ErrorKind, ExperimentError},
    settings,
    value::Value,
    yaml::{Key, Node, Tree},
};

/// A dotted path with today's name of a tower in one place, where the earlier one is there.
fn renamed(path: &str, place: usize) -> Option<String> {
    let mut parts: Vec<&str> = path.split('.').collect();
    let part = parts.get_mut(place).filter(|part| **part == Tower::EARLIER_CONNECTOR)?;
    *part = Tower::Connector.name();
    Some(parts.join("."))
}

/// The path of a setting as it is written today; any other text as it is.
pub(crate) fn setting(path: &str) -> Cow<'_, str> {
    let tower = match path.split('.').next() {
        Some("prune" | "restore") => Some(1),
        // `steps.NAME.TOWER`, and a step may have the name of a tower.
        Some("steps") => Some(2),
        _ => None,
    };
    tower.and_then(|place| renamed(path, place)).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// The end of a setting's path as it is written today, where it names a tower as earlier versions did.
pub(crate) fn end_of_setting(end: &str) -> Option<String> {
    // What comes before the tower may have names of its own, what comes behind has not.
    let tower = end.split('.').enumerate().filter(|(_, part)| *part == Tower::EARLIER_CONNECTOR).last();
    tower.and_then(|(place, _)| renamed(end, place))
}

/// The name that a setting or value had in earlier versions, where it is read as one.
pub(crate) fn earlier(name: &str) -> Option<String> {
    let earlier = name.replace(Tower::Connector.name(), Tower::EARLIER_CONNECTOR);
    let mut read = earlier.clone();
    rename_text(&mut read);
    (earlier != name && read == name).then_some(earlier)
}

/// A file with settings and values named as today.
///
/// # Errors
/// A key that is there under both of its names.
pub(crate) fn current(root: &mut Node) -> Result<(), ExperimentError> {
    below(root, "")
}

/// The same of a part of the file; `section` is the path of the settings that it holds, or empty.
fn below(node: &mut Node, section: &str) -> Result<(), ExperimentError> {
    match &mut node.tree {
        Tree::Scalar(Yaml::String(text)) => rename_text(text),
        Tree::Scalar(_) => {}
        Tree::List(items) => items.iter_mut().try_for_each(|item| below(item, ""))?,
        Tree::Map(entries) => {
            for at in 0..entries.len() {
                let path = match section {
                    "" => entries[at].0.text.clone(),
                    _ => format!("{section}.{}", entries[at].0.text),
                };
                let today = setting(&path);
                if *today != path {
                    let key = today.strip_prefix(section).unwrap_or(&today).trim_start_matches('.').to_owned();
                    rename_key(entries, at, key)?;
                }
                let is_section = settings::is_section(&today) || today.split('.').next() == Some("steps");
                let inner = if is_section { &*today } else { "" };
                below(&mut entries[at].1, inner)?;
            }
        }
    }
    Ok(())
}

fn rename_key(entries: &mut [(Key, Node)], at: usize, today: String) -> Result<(), ExperimentError> {
    if let Some(twin) = entries.iter().position(|(key, _)| key.text == today) {
        let (first, again) = (&entries[at.min(twin)].0, &entries[at.max(twin)].0);
        return Err(again
            .at
            .error(ErrorKind::DuplicateKey, format!("`{today}` is written twice"))
            .label("again here")
            .also(&first.at, "first here")
            .help(format!("`{}` is an earlier name of it: keep `{today}`", entries[at].0.text)));
    }
    entries[at].0.text = today;
    Ok(())
}

/// Texts that are the path of a setting, or a value such as `sparsity-qformer`.
fn rename_text(text: &mut String) {
    if !text.contains(Tower::EARLIER_CONNECTOR) {
        return;
    }
    let path = setting(text);
    let value = || text.parse::<Value>().ok().map(|value| value.to_string());
    let is_setting = settings::find(&path).is_some() || path.starts_with("steps.");
    let today = is_setting.then(|| path.into_owned()).or_else(value);
    if let Some(today) = today {
        *text = today;
    }
}

//! The settings of a run, each with the file and line that decided it.

use std::path::Path;

use ressa_experiment::{Cell, Experiment, Traced, WrittenBy};
use serde::Serialize;
use serde_json::Value;

use crate::{
    text::{columns, say},
    workspace::Workspace,
};

/// A setting.
#[derive(Serialize)]
pub struct Setting {
    #[serde(flatten)]
    traced: Traced,
}

/// All settings of a cell's run; files as people know them.
pub fn of(workspace: &Workspace, experiment: &Experiment, cell: &Cell) -> Vec<Setting> {
    let mut all = experiment.trace(cell);
    for at in all.iter_mut().filter_map(|traced| traced.at.as_mut()) {
        at.file = workspace.show(Path::new(&at.file));
    }
    all.into_iter().map(|traced| Setting { traced }).collect()
}

impl Setting {
    /// The value as experiment files write it; a text that is nothing in quotes.
    pub fn value(&self) -> String {
        text(&self.traced.value)
    }

    /// The value.
    pub fn json(&self) -> &Value {
        &self.traced.value
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.traced.path
    }

    /// Whether nobody says it.
    pub fn is_default(&self) -> bool {
        self.traced.by == WrittenBy::Default
    }

    /// What decided it, and where.
    pub fn source(&self) -> String {
        let Traced { by, at, argument, written, .. } = &self.traced;
        let place = match (argument, at) {
            (Some(argument), _) => format!("command line: {argument}"),
            (None, Some(at)) => format!("{}:{}", at.file, at.line),
            (None, None) => "default".to_owned(),
        };
        let by = match by {
            WrittenBy::Axis { axis, label } => format!(", axis {axis} = {label}"),
            WrittenBy::Include { point } => format!(", point {point}"),
            WrittenBy::Replicate => ", replicate".to_owned(),
            WrittenBy::Default | WrittenBy::File | WrittenBy::CommandLine => String::new(),
        };
        let written = match written {
            Some(written) => format!(" ({} is written, without effect in this run)", text(written)),
            None => String::new(),
        };
        format!("{place}{by}{written}")
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.trim() != text => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints those that are written somewhere, with `all` the defaults too.
pub fn print(settings: &[Setting], all: bool) {
    if settings.is_empty() {
        return;
    }
    let shown = settings.iter().filter(|setting| all || !setting.is_default());
    let rows: Vec<Vec<String>> =
        shown.map(|setting| vec![setting.path().to_owned(), setting.value(), setting.source()]).collect();
    let defaults = settings.len() - rows.len();
    let head = if defaults > 0 { format!(" ({defaults} more are defaults; -v lists them)") } else { String::new() };
    say(format_args!("\nsettings{head}\n{}", columns(&with_head(["setting", "value", "from"], rows)).trim_end()));
}

fn with_head<const N: usize>(head: [&str; N], mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    rows.insert(0, head.map(str::to_owned).to_vec());
    rows
}

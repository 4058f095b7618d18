//! `exclude:` entries: points taken out by axis labels, settings or seed.

use crate::{
    RunConfig,
    address::Address,
    error::{ErrorKind, ExperimentError},
    experiment::AxisInfo,
    output::Label,
    settings::SETTINGS,
    shape::Names,
    source::Location,
    steps::StepNames,
    suggest,
    yaml::{Node, Tree},
};

/// One entry; every condition must hold.
pub(crate) struct Exclusion {
    conditions: Vec<(Subject, Vec<String>)>,
    /// Cells it took out.
    pub hits: usize,
    pub at: Location,
}

enum Subject {
    /// Position among the coordinates.
    Axis(usize),
    Seed,
    Setting(Address),
}

impl Exclusion {
    /// Whether a cell is taken out.
    pub fn matches(&self, labels: &[&str], seed: u64, run: &RunConfig) -> bool {
        self.conditions.iter().all(|(subject, wanted)| match subject {
            Subject::Axis(position) => wanted.iter().any(|label| label == labels[*position]),
            Subject::Seed => wanted.contains(&seed.to_string()),
            Subject::Setting(address) => Label::of(&address.get(run)).is_some_and(|label| wanted.contains(&label.0)),
        })
    }
}

/// Reads the entries; names and labels must exist.
pub(crate) fn read(nodes: &[Node], axes: &[AxisInfo], steps: &StepNames) -> Result<Vec<Exclusion>, ExperimentError> {
    nodes.iter().map(|node| entry(node, axes, steps)).collect()
}

fn entry(node: &Node, axes: &[AxisInfo], steps: &StepNames) -> Result<Exclusion, ExperimentError> {
    let entries = node.map("exclude entry")?;
    if entries.is_empty() {
        return Err(node
            .at
            .error(ErrorKind::Exclude, "an empty `exclude` entry would take out everything")
            .help("name axes and labels: `{ prune.metric: random, pattern: \"2:4\" }`"));
    }
    let mut conditions = Vec::new();
    for (key, value) in entries {
        let axis = axes.iter().position(|axis| axis.name == key.text);
        let subject = match (axis, Address::find(&key.text, steps)) {
            (Some(position), _) => Subject::Axis(position),
            (None, _) if key.text == "seed" => Subject::Seed,
            (None, Some(address)) => Subject::Setting(address),
            (None, None) => {
                let names = axes.iter().map(|axis| axis.name.as_str());
                let names = names.chain(SETTINGS.iter().map(|setting| setting.path));
                return Err(key
                    .at
                    .error(ErrorKind::UnknownName, format!("no axis or setting is named `{}`", key.text))
                    .label("unknown name")
                    .help(suggest::hint(&key.text, "names", names)));
            }
        };
        let items = match &value.tree {
            Tree::List(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut wanted = Vec::new();
        for item in items {
            let label = match &item.tree {
                Tree::Scalar(value) => Label::of(value),
                _ => None,
            };
            let Some(Label(label)) = label else { return Err(item.wrong_type(&key.text, "a label or a list of them")) };
            match &subject {
                &Subject::Axis(position) if !axes[position].labels.contains(&label) => {
                    let labels = axes[position].labels.iter().map(String::as_str);
                    return Err(item
                        .at
                        .error(ErrorKind::Exclude, format!("axis `{}` has no label `{label}`", key.text))
                        .label("matches nothing")
                        .help(suggest::hint(&label, "labels", labels)));
                }
                Subject::Setting(address) => address.setting.shape.check(&key.text, item, &Names::default())?,
                _ => {}
            }
            wanted.push(label);
        }
        conditions.push((subject, wanted));
    }
    Ok(Exclusion { conditions, hits: 0, at: node.at.clone() })
}

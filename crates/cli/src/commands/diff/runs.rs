//! Two runs: settings that differ, and scores with their differences over the same items.

use std::collections::BTreeMap;

use ressa_experiment::{Cell, Experiment};
use ressa_report::{compare, names};
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::show::settings::{self, Setting},
    exit::{Exit, Failure},
    study::{Match, Study, find, short},
    text::{columns, say},
    workspace::Workspace,
};

/// What differs.
#[derive(Serialize)]
pub struct Difference {
    pub differs: bool,
    a: Side,
    b: Side,
    settings: Vec<Differing>,
    /// Stages of both, of the first alone, of the second alone.
    stages: [usize; 3],
    values: Vec<Compared>,
}

#[derive(Serialize)]
struct Side {
    run: String,
    label: String,
}

/// A setting with two values.
#[derive(Serialize)]
struct Differing {
    setting: String,
    /// Null where the run has no such step.
    a: Value,
    b: Value,
    /// Where they are from.
    a_from: String,
    b_from: String,
    #[serde(skip)]
    texts: (String, String),
}

/// A value of both runs.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Compared {
    value: String,
    a: Option<f64>,
    b: Option<f64>,
    /// The second minus the first.
    difference: Option<f64>,
    half_width_95: Option<f64>,
    items: Option<usize>,
    #[serde(skip)]
    decimals: usize,
}

impl Difference {
    /// Compares the runs that two words name.
    pub fn of(workspace: &Workspace, study: &Study, a: &str, b: &str) -> Result<Self, Failure> {
        let graph = study.graph(true);
        let run = |word: &str| match find(&graph, word)? {
            Match::Run(run) => Ok(&graph.runs[run]),
            Match::Stage(_) => {
                let message = format!("`{word}` is a stage; `ressa explain` says what is different about stages");
                Err(Failure::new(Exit::NothingSelected, message))
            }
        };
        let (left, right) = (run(a)?, run(b)?);
        let cells: Vec<(&Experiment, &Cell)> = [left, right].iter().filter_map(|run| study.cell_of(&run.id)).collect();
        let [(first, a), (second, b)] = cells[..] else {
            return Err(Failure::new(Exit::Other, "a run without cells"));
        };
        let settings = differing(&settings::of(workspace, first, a), &settings::of(workspace, second, b));
        let both = left.stages.iter().filter(|stage| right.stages.contains(stage)).count();
        let stages = [both, left.stages.len() - both, right.stages.len() - both];
        let values = compare(a, b, &workspace.reading())?.into_iter().map(|compared| {
            let (a, b, difference) = (compared.a, compared.b, compared.difference);
            Compared {
                value: compared.value,
                a,
                b,
                difference: difference.as_ref().map(|difference| difference.mean),
                half_width_95: difference.as_ref().map(|difference| difference.half_width()),
                items: difference.map(|difference| difference.items),
                decimals: compared.decimals,
            }
        });
        let side = |run: &ressa_sweep::GraphRun| Side { run: run.id.to_string(), label: run.label.clone() };
        let differs = left.id != right.id;
        Ok(Self { differs, a: side(left), b: side(right), settings, stages, values: values.collect() })
    }

    /// Prints it.
    pub fn print(&self) {
        for (name, side) in [("a", &self.a), ("b", &self.b)] {
            say(format_args!("{name}  {}  {}", short(&side.run), side.label));
        }
        if !self.differs {
            say("\nthe same run");
        }
        if !self.settings.is_empty() {
            let mut rows = vec![["setting", "a", "b", "b from"].map(str::to_owned).to_vec()];
            for one in &self.settings {
                let (a, b) = one.texts.clone();
                rows.push(vec![one.setting.clone(), a, b, one.b_from.clone()]);
            }
            say(format_args!("\nsettings that differ\n{}", columns(&rows).trim_end()));
        }
        let [both, a, b] = self.stages;
        say(format_args!("\nstages: {both} in common, {a} only in a, {b} only in b"));
        if self.values.is_empty() {
            say("no results yet; `ressa sweep` makes them");
            return;
        }
        let mut rows = vec![["value", "a", "b", "b - a (95 %)", "items"].map(str::to_owned).to_vec()];
        for one in self.values.iter().filter(|one| self.is_shown(one)) {
            let places = one.decimals;
            let number = |value: Option<f64>| value.map(|value| names::fixed(value, places)).unwrap_or_default();
            let signed = |text: String| if text.starts_with('-') { text } else { format!("+{text}") };
            let difference = one.difference.map(|difference| signed(names::fixed(difference, places)));
            let width = one.half_width_95.filter(|width| *width > 0.0).map(|width| format!(" ± {width:.places$}"));
            let items = one.items.filter(|items| *items > 0).map(|items| items.to_string());
            rows.push(vec![
                one.value.clone(),
                number(one.a),
                number(one.b),
                difference.unwrap_or_default() + &width.unwrap_or_default(),
                items.unwrap_or_default(),
            ]);
        }
        say(format_args!("\n{}", columns(&rows).trim_end()));
    }

    /// Whether a value is worth a line: parts of tasks' scores and equal certified figures are not.
    fn is_shown(&self, one: &Compared) -> bool {
        let is_certified = one.items == Some(0);
        !one.value.contains('/') && (!is_certified || one.a != one.b)
    }
}

/// The settings in which two runs differ. Their lists of steps may name others: what only one of them has is shown where somebody set it.
fn differing(a: &[Setting], b: &[Setting]) -> Vec<Differing> {
    let of = |settings: &[Setting]| -> BTreeMap<String, usize> {
        settings.iter().enumerate().map(|(at, setting)| (setting.path().to_owned(), at)).collect()
    };
    let (in_a, in_b) = (of(a), of(b));
    let left = a.iter().map(|one| (Some(one), in_b.get(one.path()).map(|&at| &b[at])));
    let right = b.iter().filter(|one| !in_a.contains_key(one.path())).map(|one| (None, Some(one)));
    left.chain(right).filter_map(|(a, b)| difference(a, b)).collect()
}

fn difference(a: Option<&Setting>, b: Option<&Setting>) -> Option<Differing> {
    let one = a.or(b)?;
    let differs = match (a, b) {
        (Some(a), Some(b)) => a.json() != b.json(),
        _ => !one.is_default(),
    };
    let json = |side: Option<&Setting>| side.map(|setting| setting.json().clone()).unwrap_or_default();
    let source = |side: Option<&Setting>| side.map(Setting::source).unwrap_or_default();
    let text = |side: Option<&Setting>| side.map_or_else(|| "-".to_owned(), Setting::value);
    differs.then(|| Differing {
        setting: one.path().to_owned(),
        a: json(a),
        b: json(b),
        a_from: source(a),
        b_from: source(b),
        texts: (text(a), text(b)),
    })
}

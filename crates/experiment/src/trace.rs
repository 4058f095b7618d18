//! Where every setting of a run comes from: the defaults, a base, the file, the command line, or a point of the grid.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;

use crate::{
    Cell, Experiment, RunConfig,
    document::{Override, Point},
    error::Position,
    expand::{self, include_labels},
    model::ModelConfig,
    settings::{SETTINGS, Setting},
    source::{COMMAND_LINE, Location},
    steps::StepKind,
};

/// A setting of a run with the place that decided it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traced {
    /// Its path.
    pub path: String,
    /// The value in the run, in which settings that it cannot see are neutral; of a list of steps, their names.
    pub value: Value,
    /// What was written, where that has no effect in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<Value>,
    /// What said so.
    pub by: WrittenBy,
    /// File, line and column; none for defaults. Of the command line, the column within the argument.
    pub at: Option<Position>,
    /// The argument, of what the command line says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
}

/// What says a setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum WrittenBy {
    /// Nobody.
    Default,
    /// A file at its top level: the experiment's own, or one that it extends.
    File,
    /// An override.
    CommandLine,
    /// The point of an axis.
    Axis {
        /// Name of the axis.
        axis: String,
        /// Label of the point.
        label: String,
    },
    /// An `include` point.
    Include {
        /// Its name.
        point: String,
    },
    /// `replicate`.
    Replicate,
}

/// What said something last, and where.
type Said<'a> = (WrittenBy, &'a Location);

/// The overrides that led to a run.
struct Trail<'a> {
    run: RunConfig,
    /// What was said of settings, by path.
    said: HashMap<&'a str, Said<'a>>,
    /// What the list of steps in force says of its steps' settings.
    listed: HashMap<&'a str, Said<'a>>,
    /// All overrides, in order.
    all: Vec<&'a Override>,
}

impl<'a> Trail<'a> {
    fn apply(&mut self, set: &'a [Override], by: &WrittenBy) {
        // What the experiment was loaded with can be set again.
        let _ = expand::apply(&mut self.run, set);
        for one in set {
            self.all.push(one);
            self.said.insert(&one.address.path, (by.clone(), &one.at));
            if one.address.path == "steps" {
                self.listed = one.places.iter().map(|(path, at)| (path.as_str(), (by.clone(), at))).collect();
            }
        }
    }

    /// What decided a setting; of a step, its own or else its section's.
    fn decided(&self, step: Option<&str>, setting: &Setting) -> Option<&Said<'a>> {
        let of_step = step.and_then(|name| {
            let (_, below) = setting.path.split_once('.')?;
            let path = format!("steps.{name}.{below}");
            self.said.get(path.as_str()).or_else(|| self.listed.get(path.as_str()))
        });
        of_step.or_else(|| self.said.get(setting.path))
    }

    /// A setting of the run that was made of it, or of one of its steps, which the trail may know although the run has sections only.
    fn trace(&self, run: &RunConfig, step: Option<&str>, setting: &'static Setting) -> Traced {
        let get = |run: &RunConfig| {
            // What the steps say stands in rows of their own.
            if setting.path == "steps" {
                return run.steps.iter().map(|step| step.name.as_str()).collect();
            }
            let value = match step {
                Some(name) => run.of_step(name, |run| setting.get_section(run)),
                None => None,
            };
            // Settings are plain data without odd keys, which is JSON too.
            serde_json::to_value(value.unwrap_or_else(|| setting.get_section(run))).unwrap_or_default()
        };
        let (value, written) = (get(run), get(&self.run));
        let (by, at) =
            self.decided(step, setting).map_or((WrittenBy::Default, None), |(by, at)| (by.clone(), Some(*at)));
        let argument = at.filter(|at| at.source.name() == COMMAND_LINE).map(|at| at.source.text().to_owned());
        let written = Some(written).filter(|written| *written != value);
        let path = match step.filter(|_| !run.steps.is_empty()).zip(setting.path.split_once('.')) {
            Some((name, (_, below))) => format!("steps.{name}.{below}"),
            None => setting.path.to_owned(),
        };
        Traced { path, value, written, by, at: at.map(Location::position), argument }
    }
}

impl Experiment {
    /// Where each setting of a cell's run comes from, in the order of the documentation. A run with a list of steps has the settings of each step in place
    /// of those of the sections.
    pub fn trace(&self, cell: &Cell) -> Vec<Traced> {
        let document = &*self.document;
        let run = RunConfig::of(ModelConfig::default());
        let mut trail = Trail { run, said: HashMap::new(), listed: HashMap::new(), all: Vec::new() };
        for one in &document.settings {
            let is_argument = one.at.source.name() == COMMAND_LINE;
            let by = if is_argument { WrittenBy::CommandLine } else { WrittenBy::File };
            trail.apply(std::slice::from_ref(one), &by);
        }
        let include = document.include.iter().flatten().find(|include| Some(&include.name) == cell.point.as_ref());
        let stated: Vec<(&str, String)> = include.map(|include| include_labels(include).collect()).unwrap_or_default();
        let mut coordinates = cell.coordinates.iter().map(|(_, label)| label);
        for axis in &document.axes {
            let labels: Vec<&String> = coordinates.by_ref().take(1 + axis.tags.len()).collect();
            let of_product = |point: &&Point| {
                labels
                    .split_first()
                    .is_some_and(|(own, tags)| point.label == **own && point.tags.iter().eq(tags.iter().copied()))
            };
            let of_include =
                |point: &&Point| stated.iter().any(|(name, label)| *name == axis.name && *label == point.label);
            let point = match include {
                None => axis.points.iter().find(of_product),
                Some(_) => axis.points.iter().find(of_include),
            };
            if let Some(point) = point {
                let by = WrittenBy::Axis { axis: axis.name.clone(), label: point.label.clone() };
                trail.apply(&point.set, &by);
            }
        }
        if let Some(include) = include {
            trail.apply(&include.set, &WrittenBy::Include { point: include.name.clone() });
        }
        if let Some(place) = &document.seeds_at {
            trail.said.insert("seed", (WrittenBy::Replicate, place));
        }
        trail.run.seed = cell.seed;
        expand::to_steps(&mut trail.run, trail.all.iter().copied(), &mut |_| {});
        let mut traced = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            match StepKind::of_section(setting.path) {
                None => traced.push(trail.trace(&cell.run, None, setting)),
                // Without a list there are no other steps.
                Some(kind) if cell.run.steps.is_empty() && StepKind::USUAL.contains(&kind) => {
                    traced.push(trail.trace(&cell.run, Some(kind.name()), setting))
                }
                Some(_) => {}
            }
            if setting.path == "steps" {
                for step in cell.run.steps.iter() {
                    let of_kind =
                        SETTINGS.iter().filter(|setting| StepKind::of_section(setting.path) == Some(step.kind));
                    traced.extend(of_kind.map(|setting| trail.trace(&cell.run, Some(&step.name), setting)));
                }
            }
        }
        traced
    }
}

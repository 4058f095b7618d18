//! Where every setting of a run comes from: the defaults, a base, the file, the command line, or a point of the grid.

use serde::Serialize;
use serde_json::Value;

use crate::{
    Cell, Experiment, RunConfig,
    document::{Override, Point},
    error::Position,
    expand::include_labels,
    model::ModelConfig,
    settings::SETTINGS,
    source::{COMMAND_LINE, Location},
};

/// A setting of a run with the place that decided it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Traced {
    /// Its path.
    pub path: &'static str,
    /// The value in the run, in which settings that it cannot see are neutral.
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

/// Which override was applied last to each setting, and what it belongs to.
struct Trail<'a> {
    run: RunConfig,
    last: Vec<Option<(WrittenBy, &'a Location)>>,
}

impl<'a> Trail<'a> {
    fn apply(&mut self, set: &'a [Override], by: &WrittenBy) {
        for one in set {
            // What the experiment was loaded with can be set again.
            let _ = one.setting.set(&mut self.run, &one.value);
            if let Some(at) = SETTINGS.iter().position(|setting| setting.path == one.setting.path) {
                self.last[at] = Some((by.clone(), &one.at));
            }
        }
    }
}

impl Experiment {
    /// Where each setting of a cell's run comes from, in the order of the documentation.
    pub fn trace(&self, cell: &Cell) -> Vec<Traced> {
        let document = &*self.document;
        let run = RunConfig::of(ModelConfig::default());
        let mut trail = Trail { run, last: SETTINGS.iter().map(|_| None).collect() };
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
        let seed = SETTINGS.iter().position(|setting| setting.path == "seed");
        if let (Some(at), Some(place)) = (seed, &document.seeds_at) {
            trail.last[at] = Some((WrittenBy::Replicate, place));
        }
        trail.run.seed = cell.seed;
        // Settings are plain data without odd keys, which is JSON too.
        let json = |value: serde_yaml::Value| serde_json::to_value(value).unwrap_or_default();
        let traced = SETTINGS.iter().zip(trail.last).map(|(setting, last)| {
            let (value, written) = (json(setting.get(&cell.run)), json(setting.get(&trail.run)));
            let (by, at) = last.map_or((WrittenBy::Default, None), |(by, at)| (by, Some(at)));
            let argument = at.filter(|at| at.source.name() == COMMAND_LINE).map(|at| at.source.text().to_owned());
            let written = Some(written).filter(|written| *written != value);
            Traced { path: setting.path, value, written, by, at: at.map(Location::position), argument }
        });
        traced.collect()
    }
}

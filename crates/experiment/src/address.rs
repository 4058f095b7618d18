//! The paths of settings: those of a run, such as `prune.metric`, and those of its steps, such as `steps.first.metric`.

use std::borrow::Cow;

use serde_yaml::Value;

use crate::{
    RunConfig,
    settings::{self, Setting},
    steps::{StepKind, StepNames},
};

/// A setting of a run, or of one of its steps.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// Path in an experiment file.
    pub path: Cow<'static, str>,
    /// What is set there; of a step, the setting of its section.
    pub setting: &'static Setting,
    /// Name of the step.
    pub step: Option<String>,
}

impl Address {
    /// The setting at a path, where `steps` are the known ones.
    pub fn find(path: &str, steps: &StepNames) -> Option<Self> {
        Self::among(path, &|name| steps.kind(name))
    }

    /// The setting at a path of a run.
    pub fn of_run(path: &str, run: &RunConfig) -> Option<Self> {
        Self::among(path, &|name| match run.steps.is_empty() {
            true => StepKind::named(name),
            false => run.steps.iter().find(|step| step.name == name).map(|step| step.kind),
        })
    }

    fn among(path: &str, kind: &dyn Fn(&str) -> Option<StepKind>) -> Option<Self> {
        if let Some(setting) = settings::find(path) {
            return Some(setting.into());
        }
        let (name, below) = path.strip_prefix("steps.")?.split_once('.')?;
        let setting = settings::find(&kind(name)?.path(below))?;
        Some(Self { path: Cow::Owned(path.to_owned()), setting, step: Some(name.to_owned()) })
    }

    /// The value in a run; null where the run has no such step.
    pub fn get(&self, run: &RunConfig) -> Value {
        match &self.step {
            None => self.setting.get(run),
            Some(name) => run.of_step(name, |run| self.setting.get_section(run)).unwrap_or_default(),
        }
    }
}

impl From<&'static Setting> for Address {
    fn from(setting: &'static Setting) -> Self {
        Self { path: Cow::Borrowed(setting.path), setting, step: None }
    }
}

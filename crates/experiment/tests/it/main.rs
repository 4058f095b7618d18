//! Experiment files from the outside: the shipped ones, broken ones, and what expansion promises.

mod aids;
mod attention;
mod broken;
mod expansion;
mod filtering;
mod names;
mod overriding;
mod shipped;
mod spelling;
mod steps;

use std::path::PathBuf;

use ressa_experiment::{Experiment, ExperimentError, Stage};

/// A folder of experiment files that is removed at the end.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("files are in the folder")).expect("a writable folder");
        std::fs::write(&path, bytes).expect("a writable folder");
        path
    }

    fn load(&self, name: &str, overrides: &[&str]) -> Result<Experiment, ExperimentError> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Experiment::load(&self.0.path().join(name), self.0.path(), &overrides)
    }
}

/// Distinct stages by kind, in the order of a run; kinds that do not occur are left out.
fn kinds(experiment: &Experiment) -> Vec<(&'static str, usize)> {
    let stages = experiment.stages();
    let count = |kind| stages.iter().filter(|node| node.stage.kind() == kind).count();
    Stage::VERSIONS.map(|(kind, _)| (kind, count(kind))).into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Loads a text as an experiment.
fn load(yaml: &str, overrides: &[&str]) -> Result<Experiment, ExperimentError> {
    let folder = Folder::new();
    folder.write("experiment.yaml", yaml);
    folder.load("experiment.yaml", overrides)
}

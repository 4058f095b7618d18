//! The experiment of most tests: two metrics, two patterns, three seeds, a dense point.

use std::path::Path;

use ressa_experiment::{Cell, Experiment, Pattern, Task, config::Metric};
use ressa_report::{Options, Rendered, ReportError};
use ressa_store::Store;

use crate::world;

pub const YAML: &str = r#"
name: probe
description: Does the report tell what is in the store?
model.preset: shapes-flant5
replicate: { seed: 0..2 }
axes:
  prune.metric: [magnitude, wanda]
zip:
  pattern:
    prune.pattern:           [unstructured, "2:4"]
    prune.vision.sparsity:   [0.5, 0.5]
    prune.language.sparsity: [0.5, 0.5]
    labels: ["50 %", "2:4"]
include: [{ name: dense, prune.metric: none }]
report:
  tables:
    - id: metrics
      caption: "Scores & more, 100 % of them"
      rows: [prune.metric]
      columns: pattern
      values: [average]
      baseline: dense
      published: [paper]
  figures:
    - id: metrics-bars
      kind: bars
      x: pattern
      y: average
      series: prune.metric
      baseline: dense
      published: [paper]
claims:
  - id: wanda-better
    text: Wanda is better.
    greater: { a: { prune.metric: wanda }, b: { prune.metric: magnitude }, over: pattern, metric: average }
  - id: magnitude-better
    text: Magnitude is better.
    greater: { a: { prune.metric: magnitude }, b: { prune.metric: wanda }, over: pattern, metric: average }
  - id: magnitude-steady
    text: Magnitude is what it is.
    same: { a: { prune.metric: magnitude }, b: { prune.metric: magnitude }, over: pattern, metric: average }
  - id: all-one
    text: Wanda is magnitude.
    same: { a: { prune.metric: wanda }, b: { prune.metric: magnitude }, over: pattern, metric: average }
  - id: loose-best
    text: Unstructured is best.
    peak: { x: pattern, at: "50 %", tolerance: 1, metric: average, where: { prune.metric: wanda } }
  - id: tight-best
    text: 2:4 is best.
    peak: { x: pattern, at: "2:4", tolerance: 1, metric: average, where: { prune.metric: wanda } }
  - id: nothing-revived
    text: Nothing comes back.
    equals: { metric: revived, to: 0 }
  - id: sparse
    text: Sparsity is what was asked for.
    equals: { metric: sparsity-vision, to: target-sparsity-vision, tolerance: 0.001, where: { prune.metric: [magnitude, wanda] } }
  - id: half
    text: Everything is a quarter sparse.
    equals: { metric: sparsity, to: 0.25, where: { prune.metric: wanda } }
"#;

/// Wanda varies with the seed by a point, magnitude does not, 2:4 costs ten points.
pub fn score(cell: &Cell, _: Task) -> Option<f64> {
    let prune = &cell.run.prune;
    let base = match prune.metric {
        Metric::None => 90.0,
        Metric::Magnitude => 60.0,
        _ => 70.0 + cell.seed as f64 - 1.0,
    };
    Some(if prune.pattern == Pattern::Unstructured { base } else { base - 10.0 })
}

pub struct Probe {
    pub folder: tempfile::TempDir,
    pub experiment: Experiment,
    pub store: Store,
}

impl Probe {
    pub fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let experiment = world::experiment(&folder.path().join("experiments"), "probe", yaml);
        let store = world::store(&folder.path().join("results"));
        std::fs::write(folder.path().join("expected.csv"), "id,x,series,value\npaper,2:4,wanda,55.7\n").unwrap();
        Self { folder, experiment, store }
    }

    pub fn filled(score: impl Fn(&Cell, Task) -> Option<f64>) -> Self {
        let probe = Self::new(YAML);
        world::fill(&probe.store, &probe.experiment.cells, score);
        probe
    }

    pub fn results(&self) -> std::path::PathBuf {
        self.folder.path().join("results")
    }

    pub fn render(&self, strict: bool) -> Result<Rendered, ReportError> {
        let published = Some(self.folder.path().join("expected.csv"));
        ressa_report::render(&self.experiment, &self.store, &Options { results: self.results(), published, strict })
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.results().join("probe").join(name)).unwrap()
    }
}

/// Every file under a folder but the store's, with its bytes.
pub fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let files = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().filter_map(Result::ok);
    files
        .filter(|item| item.file_type().is_file() && !item.path().starts_with(root.join("store")))
        .map(|item| (item.path().display().to_string(), std::fs::read(item.path()).unwrap()))
        .collect()
}

//! The experiment files of the repository.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ressa_experiment::{Experiment, experiment::Counts, schema::schema};

use crate::names::{BASES, PAPER, REAL, RELATED, SHAPES};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../experiments")
}

/// Shipped files of a folder, by name.
fn files<'a>(folder: &str, names: &'a [&str]) -> impl Iterator<Item = (&'a str, PathBuf)> {
    let folder = root().join(folder);
    names.iter().map(move |name| (*name, folder.join(format!("{name}.yaml"))))
}

/// Every shipped experiment.
fn studies() -> impl Iterator<Item = (&'static str, PathBuf)> {
    files("shapes", &SHAPES).chain(files("related", &RELATED)).chain(files("paper", &PAPER)).chain(files("real", &REAL))
}

fn show(error: impl miette::Diagnostic + Send + Sync + 'static) -> String {
    format!("{:?}", miette::Report::new(error))
}

#[test]
fn every_experiment_loads_and_plans() {
    let mut lines = Vec::new();
    for (_, path) in studies() {
        let experiment = Experiment::load(&path, &root(), &[]).unwrap_or_else(|error| panic!("{}", show(error)));
        let Counts { points, excluded, included, seeds, cells, runs } = experiment.counts;
        let stages: Vec<String> =
            crate::kinds(&experiment).into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        lines.push(format!(
            "{}: {points} points - {excluded} + {included}, {seeds} seeds, {cells} cells, {runs} runs: {}; {} gates",
            experiment.name,
            stages.join(", "),
            experiment.gates.len()
        ));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    ablations: 20 points - 0 + 2, 3 seeds, 66 cells, 55 runs: 1 dense, 6 prune, 51 adapt, 51 merge, 275 evaluate; 1 gates
    allocation-methods: 36 points - 9 + 1, 3 seeds, 84 cells, 82 runs: 1 dense, 42 sensitivity, 162 prune, 410 evaluate; 1 gates
    allocation-vicuna: 16 points - 0 + 1, 3 seeds, 51 cells, 49 runs: 1 dense, 75 prune, 148 evaluate; 1 gates
    allocation: 16 points - 0 + 1, 3 seeds, 51 cells, 49 runs: 1 dense, 75 prune, 148 evaluate; 1 gates
    chaos: 6 points - 0 + 1, 3 seeds, 21 cells, 19 runs: 1 dense, 20 prune, 18 adapt, 18 merge, 95 evaluate; 0 gates
    device: 35 points - 3 + 40, 1 seeds, 72 cells, 72 runs: 2 dense, 1 rescale, 6 sensitivity, 8 statistics, 103 prune, 6 refine, 7 structure, 6 reconstruct, 19 adapt, 20 merge, 83 evaluate; 0 gates
    distillation: 24 points - 0 + 1, 1 seeds, 25 cells, 25 runs: 1 dense, 4 prune, 22 adapt, 22 merge, 125 evaluate; 1 gates
    gradual: 8 points - 0 + 1, 3 seeds, 27 cells, 23 runs: 1 dense, 40 prune, 42 adapt, 42 merge, 115 evaluate; 1 gates
    methods-planted: 40 points - 0 + 2, 3 seeds, 126 cells, 106 runs: 1 dense, 1 rescale, 208 prune, 530 evaluate; 2 gates
    methods: 42 points - 0 + 1, 3 seeds, 129 cells, 113 runs: 1 dense, 224 prune, 565 evaluate; 1 gates
    modalities: 12 points - 1 + 1, 3 seeds, 36 cells, 34 runs: 1 dense, 39 prune, 143 evaluate; 1 gates
    official-vs-sound: 44 points - 0 + 1, 3 seeds, 135 cells, 125 runs: 1 dense, 12 sensitivity, 6 statistics, 224 prune, 12 adapt, 12 merge, 625 evaluate; 1 gates
    reconstruction: 36 points - 0 + 1, 1 seeds, 37 cells, 37 runs: 1 dense, 8 statistics, 8 prune, 8 refine, 52 reconstruct, 4 adapt, 4 merge, 185 evaluate; 1 gates
    restoration-all: 108 points - 0 + 1, 3 seeds, 327 cells, 325 runs: 1 dense, 18 statistics, 18 prune, 18 refine, 18 reconstruct, 297 adapt, 297 merge, 1625 evaluate; 1 gates
    restoration-vicuna: 20 points - 0 + 1, 3 seeds, 63 cells, 61 runs: 1 dense, 24 prune, 36 adapt, 48 merge, 305 evaluate; 1 gates
    restoration: 20 points - 0 + 1, 3 seeds, 63 cells, 61 runs: 1 dense, 24 prune, 36 adapt, 48 merge, 305 evaluate; 1 gates
    smoke: 2 points - 0 + 0, 1 seeds, 2 cells, 2 runs: 1 dense, 2 prune, 1 adapt, 1 merge, 10 evaluate; 0 gates
    structure: 60 points - 18 + 1, 1 seeds, 43 cells, 43 runs: 1 dense, 10 prune, 40 structure, 12 adapt, 12 merge, 205 evaluate; 1 gates
    towers: 30 points - 0 + 1, 3 seeds, 93 cells, 82 runs: 1 dense, 81 prune, 247 evaluate; 1 gates
    updates: 26 points - 0 + 1, 1 seeds, 27 cells, 27 runs: 1 dense, 4 prune, 24 adapt, 24 merge, 135 evaluate; 1 gates
    less-is-more: 8 points - 0 + 1, 1 seeds, 9 cells, 9 runs: 1 dense, 8 structure, 4 adapt, 4 merge, 45 evaluate; 1 gates
    llavadi: 12 points - 0 + 0, 1 seeds, 12 cells, 12 runs: 1 dense, 4 prune, 12 adapt, 12 merge, 64 evaluate; 1 gates
    llave: 10 points - 0 + 0, 1 seeds, 10 cells, 10 runs: 1 dense, 4 prune, 8 adapt, 8 merge, 14 evaluate; 1 gates
    lora-ggpo: 8 points - 0 + 1, 1 seeds, 9 cells, 9 runs: 1 dense, 2 prune, 8 adapt, 8 merge, 49 evaluate; 1 gates
    lora-strategies: 18 points - 0 + 0, 1 seeds, 18 cells, 18 runs: 1 dense, 2 prune, 8 adapt, 8 merge, 58 evaluate; 1 gates
    lorashear: 5 points - 0 + 0, 1 seeds, 5 cells, 5 runs: 1 dense, 6 structure, 5 adapt, 5 merge, 25 evaluate; 1 gates
    prismatic: 6 points - 0 + 0, 1 seeds, 6 cells, 6 runs: 1 dense, 2 prune, 6 adapt, 6 merge, 34 evaluate; 1 gates
    raven: 9 points - 0 + 0, 1 seeds, 9 cells, 9 runs: 1 dense, 4 prune, 37 evaluate; 1 gates
    self-denoise: 24 points - 0 + 0, 1 seeds, 24 cells, 24 runs: 1 dense, 2 prune, 73 evaluate; 1 gates
    sheared-llama: 4 points - 0 + 0, 1 seeds, 4 cells, 4 runs: 1 dense, 2 structure, 2 adapt, 2 merge, 20 evaluate; 1 gates
    vila: 4 points - 0 + 0, 1 seeds, 4 cells, 4 runs: 1 dense, 2 prune, 3 adapt, 3 merge, 24 evaluate; 1 gates
    paper-ablations: 18 points - 0 + 2, 3 seeds, 60 cells, 49 runs: 1 dense, 6 prune, 45 adapt, 45 merge, 245 evaluate; 0 gates
    paper-allocation-vicuna: 16 points - 0 + 1, 3 seeds, 51 cells, 49 runs: 1 dense, 75 prune, 147 evaluate; 0 gates
    paper-allocation: 16 points - 0 + 1, 3 seeds, 51 cells, 49 runs: 1 dense, 75 prune, 147 evaluate; 0 gates
    paper-methods-llava: 16 points - 0 + 3, 3 seeds, 57 cells, 47 runs: 1 dense, 83 prune, 3 adapt, 3 merge, 188 evaluate; 0 gates
    paper-methods-official: 42 points - 0 + 1, 3 seeds, 129 cells, 113 runs: 1 dense, 6 statistics, 224 prune, 565 evaluate; 0 gates
    paper-methods: 42 points - 0 + 1, 3 seeds, 129 cells, 113 runs: 1 dense, 224 prune, 565 evaluate; 0 gates
    paper-restoration-vicuna: 20 points - 0 + 1, 3 seeds, 63 cells, 61 runs: 1 dense, 24 prune, 36 adapt, 48 merge, 305 evaluate; 0 gates
    paper-restoration: 20 points - 0 + 1, 3 seeds, 63 cells, 61 runs: 1 dense, 24 prune, 36 adapt, 48 merge, 305 evaluate; 0 gates
    paper-towers: 30 points - 0 + 1, 3 seeds, 93 cells, 82 runs: 1 dense, 81 prune, 246 evaluate; 0 gates
    allocation: 16 points - 0 + 1, 3 seeds, 51 cells, 49 runs: 1 dense, 75 prune, 98 evaluate; 1 gates
    connector: 1 points - 0 + 0, 1 seeds, 1 cells, 1 runs: 1 dense, 1 adapt, 1 merge, 1 evaluate; 0 gates
    methods: 25 points - 0 + 1, 3 seeds, 78 cells, 66 runs: 1 dense, 130 prune, 132 evaluate; 1 gates
    modalities: 4 points - 0 + 1, 3 seeds, 15 cells, 13 runs: 1 dense, 12 prune, 26 evaluate; 1 gates
    reduced: 20 points - 0 + 1, 1 seeds, 21 cells, 21 runs: 1 dense, 24 prune, 42 evaluate; 1 gates
    restoration: 15 points - 0 + 1, 3 seeds, 48 cells, 46 runs: 1 dense, 18 prune, 27 adapt, 36 merge, 92 evaluate; 1 gates
    sparsegpt: 9 points - 0 + 1, 1 seeds, 10 cells, 10 runs: 1 dense, 9 prune, 20 evaluate; 1 gates
    towers: 15 points - 0 + 1, 3 seeds, 48 cells, 46 runs: 1 dense, 45 prune, 92 evaluate; 1 gates
    ");
}

/// What a file's first lines say it costs, `# Cost: 66 runs with 27 trainings`, is what it plans.
#[test]
fn headers_count_runs_and_trainings() {
    let mut counted = 0;
    for (_, path) in studies() {
        let text = std::fs::read_to_string(&path).unwrap();
        let Some(cost) = text.lines().find_map(|line| line.strip_prefix("# Cost: ")) else { continue };
        let words: Vec<&str> = cost.split([' ', ';', ',', '.']).collect();
        let said = |word: &str| words.windows(2).find(|pair| pair[1] == word)?[0].parse::<usize>().ok();
        let experiment = Experiment::load(&path, &root(), &[]).unwrap_or_else(|error| panic!("{}", show(error)));
        let trainings =
            crate::kinds(&experiment).iter().find(|(kind, _)| *kind == "adapt").map_or(0, |(_, count)| *count);
        if let Some(runs) = said("runs") {
            assert_eq!(runs, experiment.counts.runs, "runs of {}", path.display());
            counted += 1;
        }
        if let Some(said) = said("trainings") {
            assert_eq!(said, trainings, "trainings of {}", path.display());
        }
    }
    assert!(counted > 10, "only {counted} files say how many runs they have");
}

#[test]
fn bases_become_experiments_by_an_override() {
    for (name, path) in files("base", &BASES) {
        let loaded = Experiment::load(&path, &root(), &["prune.metric=random,wanda".to_owned()]);
        match name {
            "shapes" => assert_eq!(loaded.unwrap_err().to_string(), "no model is given"),
            _ => assert_eq!(loaded.unwrap_or_else(|error| panic!("{}", show(error))).cells.len(), 2),
        }
        assert_eq!(Experiment::load(&path, &root(), &[]).unwrap_err().kind().code(), "no-grid");
    }
}

/// Every published number must find its place: its labels are labels of the axes of the figures that show it.
#[test]
fn published_numbers_join_our_labels() {
    let text = std::fs::read_to_string(root().join("paper/expected.csv")).expect("the published numbers");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.splitn(8, ',').collect()).collect();
    let mut shown = BTreeSet::new();
    for name in ["shapes/allocation", "shapes/towers", "paper/restoration", "paper/restoration-vicuna"] {
        let path = root().join(format!("{name}.yaml"));
        let experiment = Experiment::load(&path, &root(), &[]).unwrap_or_else(|error| panic!("{}", show(error)));
        let has = |axis: &str, label: &str| {
            experiment.axis(axis).expect("checked when loaded").labels.iter().any(|known| known == label)
        };
        for figure in &experiment.report.figures {
            for row in rows.iter().filter(|row| figure.published.iter().any(|id| id == row[0])) {
                let (series, x, metric) = (row[3], row[4], row[5]);
                assert_eq!(metric, figure.y, "{row:?}");
                assert!(figure.baseline.as_deref() == Some(x) || has(&figure.x, x), "{row:?}");
                assert!(series.is_empty() || figure.series.as_deref().is_some_and(|axis| has(axis, series)), "{row:?}");
                shown.insert(row);
            }
        }
        for table in &experiment.report.tables {
            for row in rows.iter().filter(|row| table.published.iter().any(|id| id == row[0])) {
                let (series, x, metric) = (row[3], row[4], row[5]);
                let values: Vec<String> = table.values.iter().map(ToString::to_string).collect();
                assert!(values.is_empty() || values.iter().any(|value| value == metric), "{row:?}");
                let axes = || table.rows.iter().chain([&table.columns]).filter(|axis| *axis != "metric");
                for label in [series, x].into_iter().filter(|label| !label.is_empty()) {
                    assert!(
                        table.baseline.as_deref() == Some(label) || axes().any(|axis| has(axis, label)),
                        "{label}: {row:?}"
                    );
                }
                shown.insert(row);
            }
        }
    }
    assert_eq!(shown.len(), rows.iter().filter(|row| row[0] != "abstract-gain").count());
}

/// The printed form is that of `ressa schema`, which brings the file up to date: `ressa schema > experiments/schema.json`.
#[test]
fn the_schema_file_is_the_generated_schema() {
    let generated = serde_json::to_string_pretty(&schema()).expect("a schema is JSON") + "\n";
    let path = root().join("schema.json");
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == generated,
        "experiments/schema.json is out of date: run `ressa schema > experiments/schema.json`"
    );
}

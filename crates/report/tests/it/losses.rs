//! What figures of losses promise: means over trainings, few points, remarks where a file cannot be read.

use insta::assert_snapshot;
use ressa_experiment::Stage;

use crate::probe::{self, Probe};

const TRAININGS: &str = "
name: probe
description: How do trainings go?
model.preset: shapes-flant5
replicate: { seed: 0..2 }
prune: { metric: magnitude, pattern: unstructured, vision.sparsity: 0.5, language.sparsity: 0.5 }
restore: { steps: 4 }
axes: { restore.method: [none, lora, lora-remasked, sparse-lora] }
report:
  figures:
    - { id: training, title: Losses, kind: losses, series: restore.method, where: { restore.method: [none, lora, sparse-lora] } }
";

fn filled(yaml: &str) -> Probe {
    let probe = Probe::new(yaml);
    crate::world::fill(&probe.store, &probe.experiment.cells, probe::score);
    probe
}

/// Folders of published trainings.
fn trainings(probe: &Probe) -> Vec<std::path::PathBuf> {
    let nodes = probe.experiment.cells.iter().flat_map(|cell| &cell.stages);
    let mut keys: Vec<_> = nodes.filter(|node| matches!(*node.stage, Stage::Adapt { .. })).map(|n| n.key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.iter().map(|key| probe.store.entry(&key.hex()).unwrap().unwrap().folder().to_owned()).collect()
}

#[test]
fn a_figure_shows_means_over_trainings_by_step() {
    let probe = filled(TRAININGS);
    let rendered = probe.render(true).unwrap();
    let figure = &rendered.figures[0];
    assert_snapshot!(probe.read("training.csv"), @r"
    panel,series,step,mean,std,n,expected
    ,lora,1,5.000000,1.000000,3,3
    ,lora,2,0.883883,0.176777,3,3
    ,lora,3,0.156250,0.031250,3,3
    ,lora,4,0.027621,0.005525,3,3
    ,sparse-lora,1,5.000000,1.000000,3,3
    ,sparse-lora,2,0.883883,0.176777,3,3
    ,sparse-lora,3,0.156250,0.031250,3,3
    ,sparse-lora,4,0.027621,0.005525,3,3
    ");
    assert_snapshot!(figure.model.caption, @"Losses. Means over n = 3 trainings; shaded: one standard deviation over them.");
    assert_snapshot!(figure.model.description, @"Losses. LoRA (merged, dense): from 5.000 to 0.028. SparseLoRA: from 5.000 to 0.028.");
    assert!(rendered.notes.is_empty(), "{:?}", rendered.notes);
    for text in ["Loss", "step", "SparseLoRA", "0", "4"] {
        assert!(figure.svg.contains(&format!(">{text}</text>")), "`{text}` is not in the figure");
    }
    assert!(figure.svg.contains("opacity=\"0.18\""));
    let before = probe::files(&probe.results());
    probe.render(true).unwrap();
    assert_eq!(before, probe::files(&probe.results()));
}

#[test]
fn long_trainings_are_thinned() {
    let probe = filled(&TRAININGS.replace("steps: 4", "steps: 2000"));
    let rendered = probe.render(true).unwrap();
    let figure = &rendered.figures[0];
    assert!(figure.model.caption.contains("Each point is the mean of 17 steps."), "{}", figure.model.caption);
    assert_eq!(figure.model.panels[0].labels.len(), 118);
    assert!(figure.svg.len() < 20_000, "{} bytes", figure.svg.len());
}

#[test]
fn losses_that_cannot_be_read_are_a_remark() {
    let probe = filled(TRAININGS);
    let folders = trainings(&probe);
    std::fs::remove_file(folders[0].join("losses.csv")).unwrap();
    std::fs::write(folders[1].join("losses.csv"), "step,total\n").unwrap();
    let rendered = probe.render(true).unwrap();
    assert_snapshot!(rendered.notes.join("\n"), @"figure `training`: `losses.csv` of 2 of 6 trainings is missing, damaged or of another version, so they are left out; `ressa verify` finds damage");
    assert!(rendered.figures[0].model.caption.ends_with("† incomplete: 4 of 6 trainings are there."));
    for folder in folders {
        let _ = std::fs::remove_file(folder.join("losses.csv"));
    }
    assert!(probe.render(true).unwrap().figures[0].svg.contains("no losses"));
}

#[test]
fn a_figure_of_nothing_trained_is_refused_before_anything_runs() {
    let probe = Probe::new(&TRAININGS.replace("[none, lora, sparse-lora] }", "[none] }"));
    let refused = ressa_report::check(&probe.experiment, None).unwrap_err();
    assert_snapshot!(refused, @"figure `training` shows losses, and no cell that it selects trains anything; add a `restore.method` other than `none`, or choose other cells with `where`");
    assert_eq!(refused.item(), Some("training"));
    assert!(ressa_report::check(&Probe::new(TRAININGS).experiment, None).is_ok());
}

#[test]
fn weights_of_domains_are_those_of_trainings_that_change_them() {
    let weights = "
axes: { restore.method: [none, lora, sparse-lora], restore.loading.method: [fixed, dynamic] }
report: { figures: [{ id: weights, kind: losses, series: restore.method, y: weight-gqa }] }
";
    let head = TRAININGS.split("axes:").next().unwrap().replace("steps: 4", "steps: 4, loading.every: 1");
    let probe = filled(&format!("{head}{weights}"));
    let rendered = probe.render(true).unwrap();
    assert_snapshot!(rendered.figures[0].model.description, @"Weight of gqa by step. LoRA (merged, dense): from 0.333 to 0.333. SparseLoRA: from 0.333 to 0.333.");
    assert!(rendered.figures[0].svg.contains(">Weight of gqa</text>"));
    assert!(rendered.notes.is_empty(), "{:?}", rendered.notes);
    let corpus = Probe::new(&format!("{head}{weights}").replace("weight-gqa", "weight-coco"));
    assert_snapshot!(ressa_report::check(&corpus.experiment, None).unwrap_err(), @"figure `weights` shows the weight of `coco`, and no cell that it selects trains with `restore.loading.method: dynamic` on it; choose another `y`, or other cells with `where`");
}

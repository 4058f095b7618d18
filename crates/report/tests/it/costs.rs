//! What models took, in tables and over what they score.

use insta::assert_snapshot;
use ressa_experiment::{Cell, Experiment, config::RestoreMethod};

use crate::probe::Probe;

const COSTS: &str = "
name: probe
description: What does it cost?
model.preset: shapes-flant5
replicate: { seed: 0..1 }
prune: { metric: magnitude, pattern: unstructured, vision.sparsity: 0.5, language.sparsity: 0.5 }
restore: { steps: 4 }
axes: { restore.method: [none, lora, sparse-lora] }
report:
  tables:
    - { id: costs, caption: Costs, rows: [restore.method], columns: metric, values: [average, seconds, parameters] }
  figures:
    - { id: bargains, title: Quality over seconds, kind: scatter, x: seconds, y: average, series: restore.method }
";

fn filled(yaml: &str) -> Probe {
    let probe = Probe::new(yaml);
    let score = |cell: &Cell, _| {
        Some(match cell.run.restore.method {
            RestoreMethod::None => 60.0,
            RestoreMethod::Lora => 75.0,
            _ => 70.0 + cell.seed as f64,
        })
    };
    crate::world::fill(&probe.store, &probe.experiment.cells, score);
    probe
}

#[test]
fn costs_stand_beside_scores() {
    let probe = filled(COSTS);
    let rendered = probe.render(true).unwrap();
    // Two prunings, and behind a training a merge: a second each.
    assert_snapshot!(probe.read("costs.csv"), @r"
    restore.method,column,mean,half_width_95,n,expected,standard_error,not_below_best,published_other_scale
    none,average,60.000000,,1,1,0.447214,false,
    none,seconds,2.000000,,1,1,0.000000,false,
    none,parameters,0.000000,,1,1,0.000000,false,
    lora,average,75.000000,0.000000,2,2,0.447214,true,
    lora,seconds,4.000000,0.000000,2,2,0.000000,false,
    lora,parameters,1000.000000,0.000000,2,2,0.000000,false,
    sparse-lora,average,70.500000,6.353102,2,2,0.447214,true,
    sparse-lora,seconds,4.000000,0.000000,2,2,0.000000,false,
    sparse-lora,parameters,1000.000000,0.000000,2,2,0.000000,false,
    ");
    let figure = &rendered.figures[0];
    assert_snapshot!(probe.read("bargains.csv"), @r"
    panel,series,x,mean,half_width_95,n,expected,best
    ,none,2.000,60.000000,,1,1,true
    ,lora,4.000,75.000000,0.000000,2,2,true
    ,sparse-lora,4.000,70.500000,6.353102,2,2,false
    ");
    assert!(figure.model.caption.ends_with("Dotted: what none beats in both."), "{}", figure.model.caption);
    for text in ["seconds", "Average", "LoRA (merged, dense)", "0", "4"] {
        assert!(figure.svg.contains(&format!(">{text}</text>")), "`{text}` is not in the figure");
    }
    // What a model took is another number elsewhere: nobody has it who did not ask.
    assert!(probe.read("records.csv").contains(",seconds,"));
    let without =
        filled(&COSTS.replace(", seconds, parameters", "").replace("scatter, x: seconds", "bars, x: restore.method"));
    without.render(true).unwrap();
    assert!(!without.read("records.csv").contains("seconds"));
}

#[test]
fn a_scatter_needs_values_on_both_axes() {
    let wrong = |yaml: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.yaml");
        std::fs::write(&path, yaml).unwrap();
        Experiment::load(&path, folder.path(), &[]).unwrap_err().to_string()
    };
    let error = wrong(&COSTS.replace("x: seconds", "x: restore.method"));
    assert!(error.contains("not a value that can be shown"), "{error}");
    let error = wrong(&COSTS.replace(", series: restore.method }", " }"));
    assert!(error.contains("series"), "{error}");
}

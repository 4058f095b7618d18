//! What comes first.

use ressa_experiment::config::{Metric, RestoreMethod};
use ressa_sweep::{Stop, SweepEvent, nearest};
use serde_json::json;

use crate::bench::{Bench, cell, cells, graph, run};

#[test]
fn one_run_of_each_code_path_precedes_the_bulk() {
    let mut bench = Bench::new();
    bench.options.devices.slots = Some(1);
    let mut cells = cells();
    for seed in 0..2 {
        cells.push(cell(run(Metric::Magnitude, RestoreMethod::None, seed)));
    }
    let graph = graph(&cells);
    let mut started = Vec::new();
    bench
        .listen(&graph, &Stop::new(), &mut |event| {
            if let SweepEvent::StageStarted { what, .. } = event {
                started.push(what);
            }
        })
        .unwrap();
    insta::assert_snapshot!(started.join("\n"), @"
    dense shapes-flant5
    prune vision wanda 50%
    prune language wanda 50%
    evaluate vqav2
    evaluate flickr30k
    prune vision magnitude 50%
    prune language magnitude 50%
    evaluate vqav2
    evaluate flickr30k
    adapt sparse
    merge sparse-lora
    evaluate vqav2
    evaluate flickr30k
    prune vision wanda 50%
    prune language wanda 50%
    adapt sparse
    merge sparse-lora
    evaluate vqav2
    evaluate vqav2
    evaluate flickr30k
    evaluate flickr30k
    ");
}

#[test]
fn the_nearest_published_stage_names_the_first_differing_field() {
    let bench = Bench::new();
    bench.sweep(&graph(&cells()));
    let mut other = run(Metric::Wanda, RestoreMethod::None, 0);
    other.prune.calibration.images = 256;
    let cell = cell(other);
    let vision = &cell.stages[1];
    let found = nearest(&bench.store, vision).unwrap();
    assert_eq!(json!(found.differences), json!([{ "field": "calibration.images", "stored": "48", "wanted": "256" }]));
}

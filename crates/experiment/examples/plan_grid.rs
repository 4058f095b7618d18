//! Loads and plans a grid of 100,000 cells and prints the seconds: `cargo run --release -p ressa-experiment --example plan_grid`.
#![allow(clippy::print_stdout)]

use std::{error::Error, time::Instant};

use ressa_experiment::{Experiment, Plan};

const GRID: &str = "
model.preset: shapes-flant5
replicate.seed: 0..9
axes:
  prune.metric: [random, wanda]
  prune.vision.sparsity: { from: 0.01, to: 0.5, step: 0.01 }
  prune.language.sparsity: { from: 0.01, to: 0.5, step: 0.01 }
variants:
  restoration:
    pruned: { restore.method: none }
    ressa: { restore.method: sparse-lora, restore.distill.weight: 0.5 }
";

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("ressa-plan-grid-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("grid.yaml");
    std::fs::write(&file, GRID)?;
    let start = Instant::now();
    let experiment = Experiment::load(&file, &folder, &[])?;
    let loaded = start.elapsed();
    let plan = Plan::new(&experiment);
    let planned = start.elapsed();
    println!("cells {}  runs {}  stages {}", experiment.cells.len(), plan.runs, plan.nodes.len());
    println!("load and expand {:.3} s  with plan {:.3} s", loaded.as_secs_f64(), planned.as_secs_f64());
    for count in plan.counts(|_| false) {
        println!("  {:<9} {}", count.kind, count.total);
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

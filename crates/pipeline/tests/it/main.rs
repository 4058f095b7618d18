//! A whole run on the embedded world, cut short: every stage executed, published, certified, and made again to the bit.

mod aided;
mod evolve;
mod methods;
mod published;
mod reconstruct;
mod rescaled;
mod steps;
mod structure;
mod today;

use std::{fs, path::Path};

use ressa_experiment::{
    Pattern, RunConfig, Stage, StageNode, Task,
    allocation::{AllocationConfig, AllocationMethod, AllocationScope},
    config::{Metric, RestoreMethod},
    model::{ModelConfig, Preset},
    record::{Certificate, TaskScore},
    stage::stages,
};
use ressa_pipeline::{Executor, PipelineError};
use ressa_runtime::{DeviceChoice, RuntimeOptions};
use ressa_store::{Environment, Store};

fn executor(folder: &Path) -> Executor {
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let store = Store::open(folder, Vec::new()).unwrap();
    Executor::new(store, device, Environment::default())
}

/// A run whose every stage takes a moment.
fn short_run(preset: Preset, method: RestoreMethod) -> RunConfig {
    let mut run = RunConfig::of(ModelConfig { preset: Some(preset), ..ModelConfig::default() });
    run.seed = 1;
    run.dense.steps = Some(2);
    run.prune.metric = Metric::Wanda;
    run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
    run.prune.vision.sparsity = 0.5;
    run.prune.language.sparsity = 0.5;
    run.prune.calibration.images = 4;
    run.restore.method = method;
    run.restore.steps = 3;
    run.restore.batch = 4;
    run.restore.distill.weight = 0.5;
    run.evaluate.questions = 12;
    run.evaluate.images = 6;
    run
}

/// Makes a stage, as a worker and its coordinator do.
fn make(executor: &mut Executor, node: &StageNode) -> Result<(), PipelineError> {
    executor.execute(node, 1, &mut |_, _| {})?;
    executor.store().publish(&node.key.hex(), 1)?;
    Ok(())
}

fn execute(executor: &mut Executor, nodes: &[StageNode]) {
    for node in nodes {
        make(executor, node).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
    }
}

fn digests(folder: &Path, nodes: &[StageNode]) -> Vec<String> {
    let store = Store::open(folder, Vec::new()).unwrap();
    nodes
        .iter()
        .map(|node| {
            let manifest = store.require(&node.key.hex()).unwrap().manifest;
            format!("{} {:?} {}", manifest.kind, manifest.files, manifest.result)
        })
        .collect()
}

#[test]
fn a_run_is_certified_scored_and_repeated_to_the_bit() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let nodes = stages(&short_run(Preset::ShapesFlanT5, RestoreMethod::SparseLora));
    let mut executor_one = executor(first.path());
    execute(&mut executor_one, &nodes);
    execute(&mut executor(second.path()), &nodes);
    assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));

    let store = Store::open(first.path(), Vec::new()).unwrap();
    for node in &nodes {
        let entry = store.require(&node.key.hex()).unwrap();
        match &*node.stage {
            Stage::Merge { .. } | Stage::Prune { .. } => {
                let certificate: Certificate = entry.result().unwrap();
                assert!(certificate.holds() && certificate.tensors.values().all(|t| t.revived == 0));
                assert_eq!(executor_one.verify(node).unwrap(), Vec::<String>::new());
            }
            Stage::Evaluate { task, .. } => assert_eq!(entry.result::<TaskScore>().unwrap().task, *task),
            Stage::Dense { .. }
            | Stage::Rescale { .. }
            | Stage::Sensitivity { .. }
            | Stage::Statistics { .. }
            | Stage::Refine { .. }
            | Stage::Structure { .. }
            | Stage::Reconstruct { .. }
            | Stage::Adapt { .. } => {}
        }
    }
}

/// The budget of two towers together, divided by what was measured of them, is met, recounted, and comes out the same again.
#[test]
fn a_divided_budget_is_certified_and_repeated_to_the_bit() {
    let mut run = short_run(Preset::ShapesVicuna, RestoreMethod::None);
    run.prune.pattern = Pattern::Unstructured;
    run.prune.language.sparsity = 0.7;
    run.prune.allocation = AllocationConfig {
        method: AllocationMethod::Ecoflap,
        towers: AllocationScope::Joint,
        samples: Some(3),
        ..AllocationConfig::default()
    };
    run.evaluate.tasks = vec![Task::Gqa];
    let nodes = stages(&run);
    let kinds: Vec<&str> = nodes.iter().map(|node| node.stage.kind()).collect();
    assert_eq!(kinds, ["dense", "sensitivity", "sensitivity", "prune", "prune", "evaluate"]);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut executor_one = executor(first.path());
    execute(&mut executor_one, &nodes);
    execute(&mut executor(second.path()), &nodes);
    assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));

    let store = Store::open(first.path(), Vec::new()).unwrap();
    let (mut zeros, mut asked) = (0, 0);
    for node in &nodes {
        let Stage::Prune { tower, .. } = *node.stage else { continue };
        assert_eq!(executor_one.verify(node).unwrap(), Vec::<String>::new());
        let certificate: Certificate = store.require(&node.key.hex()).unwrap().result().unwrap();
        let (gone, total) = certificate.tower(tower);
        zeros += gone;
        asked += (total as f64 * run.prune.tower(tower).sparsity + 1e-6) as u64;
        assert!((certificate.sparsity(tower).unwrap() - run.prune.tower(tower).sparsity).abs() > 1e-3, "towers trade");
    }
    assert_eq!(zeros, asked);
}

#[test]
fn merged_lora_is_dense_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = stages(&short_run(Preset::ShapesVicuna, RestoreMethod::Lora));
    let mut executor = executor(folder.path());
    execute(&mut executor, &nodes);
    let merge = nodes.iter().find(|n| matches!(*n.stage, Stage::Merge { .. })).unwrap();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let certificate: Certificate = store.require(&merge.key.hex()).unwrap().result().unwrap();
    assert!(certificate.tensors.values().map(|t| t.revived).sum::<u64>() > 0);
    assert_eq!(executor.verify(merge).unwrap(), Vec::<String>::new());
}

#[test]
fn a_weight_revived_in_a_stored_mask_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = stages(&short_run(Preset::ShapesFlanT5, RestoreMethod::None));
    let mut executor = executor(folder.path());
    let prune = nodes.iter().position(|n| matches!(*n.stage, Stage::Prune { .. })).unwrap();
    execute(&mut executor, &nodes[..=prune]);
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let path = store.require(&nodes[prune].key.hex()).unwrap().file("masks.safetensors").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let violations = executor.verify(&nodes[prune]).unwrap();
    assert!(violations.iter().any(|v| v.contains("masks.safetensors")), "{violations:?}");

    // What a coordinator quarantines is made again.
    store.set_aside(&nodes[prune].key.hex()).unwrap();
    execute(&mut executor, &nodes[prune..=prune]);
    assert_eq!(executor.verify(&nodes[prune]).unwrap(), Vec::<String>::new());
    assert_eq!(fs::read_dir(folder.path().join("damaged")).unwrap().count(), 1);
}

#[test]
fn a_checkpoint_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = short_run(Preset::ShapesFlanT5, RestoreMethod::None);
    run.model.preset = None;
    run.model.checkpoint = Some("models/instructblip-flan-t5-xl".into());
    let nodes = stages(&run);
    let error = make(&mut executor(folder.path()), &nodes[0]).unwrap_err().to_string();
    assert!(error.contains("models/instructblip-flan-t5-xl") && error.contains("config.json"), "{error}");
}

//! A whole run on the embedded world, cut short: every stage executed, published, certified, and made again to the bit.

mod aided;
mod evolve;
mod loading;
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
use serde_json::{Value as Json, json};
use tempfile::TempDir;

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

/// Executes stages in one process, and with another store in two, the second from the stage `at` on: what it needs of the first it finds in the store. Both make the
/// same bytes, and all of it verifies. Returns the one process with the folder of its store.
fn executed_alike(nodes: &[StageNode], at: usize) -> (TempDir, Executor) {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut whole = executor(first.path());
    execute(&mut whole, nodes);
    execute(&mut executor(second.path()), &nodes[..at]);
    execute(&mut executor(second.path()), &nodes[at..]);
    assert_eq!(digests(first.path(), nodes), digests(second.path(), nodes));
    for node in nodes {
        assert_eq!(whole.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind());
    }
    (first, whole)
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

/// What an interrupted training saved is of the weights that it began with. A stage that was made again may have other weights under the same key.
#[test]
fn a_training_resumes_from_what_the_same_inputs_left() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = stages(&short_run(Preset::ShapesFlanT5, RestoreMethod::SparseLora));
    let at = nodes.iter().position(|node| node.stage.kind() == "adapt").unwrap();
    let mut executor = executor(folder.path());
    execute(&mut executor, &nodes[..at]);
    let resume = executor.store().scratch(&nodes[at].key.hex()).unwrap();
    let (note, saved) = (resume.join("inputs"), resume.join("saved"));
    // Whether what an earlier attempt saved is there while the training runs, and what the note says then.
    let mut attempt = 0;
    let mut resumed = |executor: &mut Executor| {
        attempt += 1;
        fs::create_dir_all(&resume).unwrap();
        fs::write(&saved, "").unwrap();
        let mut seen = None;
        executor
            .execute(&nodes[at], attempt, &mut |_, _| seen = Some((saved.exists(), fs::read(&note).unwrap())))
            .unwrap();
        seen.expect("a training reports progress")
    };
    let (is_there, same) = resumed(&mut executor);
    assert!(!is_there, "nothing says what the inputs of a build that wrote no note were");
    fs::create_dir_all(&resume).unwrap();
    fs::write(&note, &same).unwrap();
    assert_eq!(resumed(&mut executor), (true, same.clone()), "the same inputs");

    // The pruning of one tower comes out otherwise than before, as on another machine.
    let pruned = nodes.iter().find(|node| node.stage.kind() == "prune").unwrap().key.hex();
    let manifest = executor.store().folder(&pruned).join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let mut other: Json = serde_json::from_str(&text).unwrap();
    other["result"]["made-again"] = json!(true);
    fs::write(&manifest, other.to_string()).unwrap();
    fs::create_dir_all(&resume).unwrap();
    fs::write(&note, &same).unwrap();
    let (is_there, now) = resumed(&mut executor);
    assert!(!is_there && now != same, "other inputs");
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

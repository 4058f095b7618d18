//! Experiments with results made up by a formula, published as the pipeline would.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::{
    Cell, Experiment, Stage, StageNode, Task,
    config::RestoreMethod,
    record::{Certificate, Score, TaskScore, TensorCertificate},
};
use ressa_store::{Environment, Manifest, Store};

/// An experiment from YAML text.
pub fn experiment(root: &Path, name: &str, yaml: &str) -> Experiment {
    let path = root.join(format!("{name}.yaml"));
    std::fs::create_dir_all(root).unwrap();
    std::fs::write(&path, yaml).unwrap();
    Experiment::load(&path, root, &[]).unwrap_or_else(|e| panic!("{e:?}"))
}

/// A store in a folder.
pub fn store(root: &Path) -> Store {
    Store::open(root.join("store"), Vec::new()).unwrap()
}

/// Publishes every stage of the cells for which `score` gives one; `None` leaves an evaluation out.
pub fn fill(store: &Store, cells: &[Cell], score: impl Fn(&Cell, Task) -> Option<f64>) {
    for cell in cells {
        for node in &cell.stages {
            if store.contains(&node.key.0) {
                continue;
            }
            let result = match &*node.stage {
                Stage::Dense { .. }
                | Stage::Rescale { .. }
                | Stage::Sensitivity { .. }
                | Stage::Statistics { .. }
                | Stage::Adapt { .. } => {
                    continue;
                }
                Stage::Prune { .. } | Stage::Merge { .. } => serde_json::to_value(certificate(cell, node)).unwrap(),
                Stage::Evaluate { task, items, .. } => match score(cell, *task) {
                    Some(value) => {
                        let score =
                            Score { metric: "accuracy".into(), value, standard_error: 1.0, items: u64::from(*items) };
                        let parts = match task {
                            Task::Nocaps => BTreeMap::from([("in-domain".to_owned(), score.clone())]),
                            _ => BTreeMap::new(),
                        };
                        serde_json::to_value(TaskScore { task: *task, score: Some(score), parts }).unwrap()
                    }
                    None => continue,
                },
            };
            publish(store, node, result);
        }
    }
}

/// Publishes one result.
pub fn publish(store: &Store, node: &StageNode, result: serde_json::Value) {
    let manifest = Manifest {
        key: node.key.0.clone(),
        kind: node.stage.kind().into(),
        version: 1,
        configuration: serde_json::json!({}),
        inputs: serde_json::json!({}),
        readings: serde_json::Value::Null,
        result,
        files: BTreeMap::new(),
        seconds: 1.0,
        cpu_seconds: 1.0,
        environment: Environment {
            ressa: "0.1.0".into(),
            revision: "abc1234".into(),
            libtorch: "2.11.0".into(),
            device: "cpu".into(),
            threads: 1,
            ..Environment::default()
        },
    };
    store.claim(&node.key.0).unwrap().draft().unwrap().publish(manifest).unwrap();
}

fn certificate(cell: &Cell, node: &StageNode) -> Certificate {
    let mut certificate = Certificate::default();
    for tower in ressa_experiment::Tower::ALL {
        let sparsity = cell.run.prune.tower(tower).sparsity;
        let here = match *node.stage {
            Stage::Prune { tower: own, .. } => own == tower,
            _ => sparsity > 0.0,
        };
        if !here {
            continue;
        }
        let dense = matches!(*node.stage, Stage::Merge { method: RestoreMethod::Lora, .. });
        let total = 10_000;
        let asked = (sparsity * total as f64).round() as u64;
        let zeros = if dense { 0 } else { asked };
        // Four blocks; a divided budget takes less from the first and more from the last.
        let divided = node_is_divided(cell);
        for (block, name) in BLOCKS.into_iter().enumerate() {
            let shift = if divided { [-600i64, -200, 200, 600][block] } else { 0 };
            let share = |count: u64| count / 4 + if block == 3 { count % 4 } else { 0 };
            let moved = |count: u64| if count == 0 { 0 } else { (share(count) as i64 + shift) as u64 };
            let (zeros, total) = (moved(zeros), share(total));
            let revived = moved(asked) - zeros;
            let tensor = TensorCertificate { tower, zeros, total, revived, pattern: None, group_violations: 0 };
            let stack = match tower {
                ressa_experiment::Tower::Language => name.to_owned(),
                _ => format!("layers.{block}"),
            };
            certificate.tensors.insert(format!("{tower}_model.{stack}.fc1"), tensor);
        }
    }
    certificate
}

const BLOCKS: [&str; 4] = ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"];

fn node_is_divided(cell: &Cell) -> bool {
    !cell.run.prune.allocation.is_default()
}

/// A number in [-1, 1] that depends on every byte of a text and nothing else.
pub fn noise(text: &str) -> f64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 40) as f64 / (1u64 << 23) as f64 - 1.0
}

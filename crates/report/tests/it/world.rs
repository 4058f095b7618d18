//! Experiments with results made up by a formula, published as the pipeline would.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use ressa_experiment::{
    Cell, Experiment, Stage, StageNode, Task,
    config::RestoreMethod,
    loading::domains,
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
    fill_with(store, cells, score, true);
}

/// As [`fill`]; `predicted` says whether evaluations store the points of single items, which takes much of the time.
pub fn fill_with(store: &Store, cells: &[Cell], score: impl Fn(&Cell, Task) -> Option<f64>, predicted: bool) {
    for cell in cells {
        for node in &cell.stages {
            if store.contains(&node.key.hex()) {
                continue;
            }
            let mut files = Vec::new();
            let result = match &*node.stage {
                Stage::Dense { .. } | Stage::Rescale { .. } | Stage::Sensitivity { .. } | Stage::Statistics { .. } => {
                    continue;
                }
                Stage::Adapt { training, data, .. } => {
                    let losses = losses(training.steps, cell.seed);
                    let weighed = if training.loading.is_on() { domains(data) } else { Vec::new() };
                    files.push(("losses.csv", with_weights(&losses, &weighed)));
                    serde_json::json!({ "steps": training.steps, "parameters": 1000 })
                }
                Stage::Prune { .. }
                | Stage::Refine { .. }
                | Stage::Structure { .. }
                | Stage::Reconstruct { .. }
                | Stage::Merge { .. } => serde_json::to_value(certificate(cell, node)).unwrap(),
                Stage::Evaluate { task, items, .. } => match score(cell, *task) {
                    Some(value) => {
                        let (lines, value) = predictions(*task, *items as usize, value);
                        if predicted {
                            files.push(("predictions.jsonl", lines));
                        }
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
            publish_with(store, node, result, &files);
        }
    }
}

/// Losses as a training stores them: they halve every tenth of the way, from `4 + seed`.
pub fn losses(steps: u32, seed: u64) -> String {
    let mut text = "step,total,questions,captions,contrastive,distillation,gradient_norm\n".to_owned();
    for step in 0..steps {
        let total = (4 + seed) as f64 * 0.5f64.powf(10.0 * f64::from(step) / f64::from(steps));
        writeln!(text, "{step},{total:.6},{:.6},0.000000,0.000000,0.000000,1.000000", total / 2.0).unwrap();
    }
    text
}

/// Losses with the weights of domains, which stay alike.
fn with_weights(losses: &str, domains: &[&str]) -> String {
    let more = |(line, text): (usize, &str)| {
        let weight = |domain: &&str| match line {
            0 => format!(",weight_{domain}"),
            _ => format!(",{:.6}", 1.0 / domains.len() as f64),
        };
        format!("{text}{}\n", domains.iter().map(weight).collect::<String>())
    };
    losses.lines().enumerate().map(more).collect()
}

/// Lines as an evaluation stores them, with points whose mean is (nearly) `value`, and that mean. Items are always solved in the same order,
/// so two runs differ at as few items as their scores allow.
pub fn predictions(task: Task, items: usize, value: f64) -> (String, f64) {
    let lines = match task {
        Task::Nocaps | Task::Flickr30k => 2 * items,
        _ => items,
    };
    let share = value / 100.0 * lines as f64;
    let mut text = String::new();
    let mut total = 0.0;
    for line in 0..lines {
        // 7919 is prime to every number of items that is used.
        let left = share - (line * 7919 % lines) as f64;
        let image = line / 2;
        match task {
            Task::Flickr30k => {
                let points = if left >= 0.5 { 100.0 } else { 0.0 };
                let direction = ["image-to-text", "text-to-image"][line % 2];
                let rank = if points > 0.0 { 1 } else { 2 };
                writeln!(text, r#"{{"kind":"rank","id":"{line}","direction":"{direction}","image":{image},"rank":{rank},"points":{points:?}}}"#).unwrap();
                total += points;
            }
            _ => {
                let points = 100.0 * left.clamp(0.0, 1.0);
                let (kind, group) = match task {
                    Task::Nocaps => ("caption", "set"),
                    _ => ("answer", "template"),
                };
                writeln!(
                    text,
                    r#"{{"kind":"{kind}","id":"{image:05}-{}","prompt":"","{group}":"in-domain","points":{points:?}}}"#,
                    line % 2
                )
                .unwrap();
                total += points;
            }
        }
    }
    (text, total / lines as f64)
}

/// Publishes one result.
pub fn publish(store: &Store, node: &StageNode, result: serde_json::Value) {
    publish_with(store, node, result, &[]);
}

/// Publishes one result with files.
pub fn publish_with(store: &Store, node: &StageNode, result: serde_json::Value, files: &[(&str, String)]) {
    let manifest = Manifest {
        key: node.key.to_string(),
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
    let draft = store.draft(&node.key.hex(), 1).unwrap();
    for (name, text) in files {
        draft.write(name, text.as_bytes()).unwrap();
    }
    draft.publish(manifest).unwrap();
}

fn certificate(cell: &Cell, node: &StageNode) -> Certificate {
    let mut certificate = Certificate::default();
    for tower in ressa_experiment::Tower::ALL {
        let sparsity = match &*node.stage {
            Stage::Prune { sparsity: Some(sparsity), .. } => *sparsity,
            Stage::Structure { .. } => 0.25,
            _ => cell.run.sparsity(tower),
        };
        let here = match *node.stage {
            Stage::Prune { tower: own, .. }
            | Stage::Refine { tower: own, .. }
            | Stage::Structure { tower: own, .. }
            | Stage::Reconstruct { tower: own, .. } => own == tower,
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

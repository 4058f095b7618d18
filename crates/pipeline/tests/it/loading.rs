//! Batches that are divided among domains by held-out losses, in the embedded world and in corpora.

use std::{fs, path::Path};

use ressa_data::Family;
use ressa_experiment::{
    RunConfig, StageNode,
    canonical::canonical,
    config::RestoreMethod,
    loading::{LoadingMethod, LoadingRecord},
    model::Preset,
    stage::stages,
};
use ressa_pipeline::Loading;
use ressa_store::{Cache, Store};
use serde_json::Value as Json;

use crate::{digests, execute, executor, make, published::paper_run, short_run};

fn adapt(nodes: &[StageNode]) -> &StageNode {
    nodes.iter().find(|node| node.stage.kind() == "adapt").unwrap()
}

/// What a training recorded, and its losses.
fn trained(store: &Path, nodes: &[StageNode]) -> (Option<LoadingRecord>, String) {
    let store = Store::open(store, Vec::new()).unwrap();
    let entry = store.require(&adapt(nodes).key.hex()).unwrap();
    let result: Json = entry.result().unwrap();
    let record = result.get("loading").map(|record| serde_json::from_value(record.clone()).unwrap());
    (record, fs::read_to_string(entry.file("losses.csv").unwrap()).unwrap())
}

/// Makes all that a training needs, and the training.
fn train(folder: &Path, nodes: &[StageNode], loading: Loading) {
    let mut executor = executor(folder).with_loading(loading);
    for node in nodes.iter().filter(|node| !["merge", "evaluate"].contains(&node.stage.kind())) {
        make(&mut executor, node).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
    }
}

fn dynamic(mut run: RunConfig) -> Vec<StageNode> {
    let loading = &mut run.restore.loading;
    (loading.method, loading.every, loading.held_out) = (LoadingMethod::Dynamic, 1, 2);
    run.evaluate.tasks = Vec::new();
    stages(&canonical(&run))
}

#[test]
fn kinds_of_questions_are_asked_by_weights_that_are_recorded() {
    let run = short_run(Preset::ShapesFlanT5, RestoreMethod::SparseLora);
    let nodes = dynamic(run.clone());
    let fixed = stages(&canonical(&run));
    assert_ne!(adapt(&nodes).key, adapt(&fixed).key);
    let cache = tempfile::tempdir().unwrap();
    let folders: Vec<_> = [0, 2]
        .map(|ahead| {
            let folder = tempfile::tempdir().unwrap();
            let cache = Some(Cache::new(cache.path(), 100 << 20));
            train(folder.path(), &nodes, Loading { ahead: Some(ahead), cache, ..Loading::default() });
            folder
        })
        .into();
    let until = nodes.iter().position(|node| node.stage.kind() == "adapt").unwrap();
    assert_eq!(digests(folders[0].path(), &nodes[..=until]), digests(folders[1].path(), &nodes[..=until]));
    // What a teacher says about such batches is kept for nobody.
    assert_eq!(Cache::new(cache.path(), 100 << 20).usage().get("teacher").map_or(0, |usage| usage.entries), 0);
    let (record, losses) = trained(folders[0].path(), &nodes);
    let record = record.unwrap();
    assert_eq!(record.domains, ["vqav2", "gqa", "okvqa"]);
    assert_eq!(record.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2]);
    assert!(record.reference.iter().all(|loss| *loss > 0.0), "{record:?}");
    let lines: Vec<&str> = losses.lines().collect();
    assert!(lines[0].ends_with("gradient_norm,weight_vqav2,weight_gqa,weight_okvqa"), "{losses}");
    assert!(lines[1].ends_with(",0.333333,0.333333,0.333333"), "{losses}");
    let last: f64 = lines[3].rsplit(',').next().unwrap().parse().unwrap();
    assert!((last - record.updates[1].weights[2]).abs() < 1e-6, "{losses}");

    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &fixed, Loading::default());
    let (none, losses) = trained(folder.path(), &fixed);
    assert!(none.is_none() && losses.lines().next().unwrap().ends_with("gradient_norm"), "{losses}");
}

/// Corpora of different sizes keep their own rounds, and a training on kept features measures what the image encoder makes of held-out pixels.
#[test]
fn corpora_are_drawn_from_by_weights() {
    let models = tempfile::tempdir().unwrap();
    let mut run = paper_run(models.path(), Family::T5);
    run.restore.steps = 4;
    let nodes = dynamic(run.clone());
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(first.path(), &nodes, Loading::default());
    train(second.path(), &nodes, Loading { ahead: Some(3), ..Loading::default() });
    let (record, losses) = trained(first.path(), &nodes);
    assert_eq!(trained(second.path(), &nodes), (record.clone(), losses));
    let record = record.unwrap();
    assert_eq!((record.domains.join(" "), record.weights.clone()), ("coco cc3m".to_owned(), vec![0.5, 0.5]));
    assert_eq!(record.updates.len(), 3);

    (run.restore.vision.tune, run.restore.distill.weight) = (false, 0.0);
    run.data.restoration.augment = ressa_experiment::config::Augment::None;
    let nodes = dynamic(run);
    let (plain, kept, cache) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    execute(&mut executor(plain.path()), &nodes);
    train(kept.path(), &nodes, Loading { cache: Some(Cache::new(cache.path(), 100 << 20)), ..Loading::default() });
    let [plain, kept] = [plain, kept].map(|folder| trained(folder.path(), &nodes).0.unwrap());
    assert_eq!(plain.reference, kept.reference);
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(plain.updates.iter().zip(&kept.updates).all(|(a, b)| close(&a.losses, &b.losses)), "{plain:?} {kept:?}");
}

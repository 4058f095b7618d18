//! Reconstruction before and behind other steps: masks stay, errors fall, and what was trained is found again by all that follows.

use std::collections::BTreeSet;

use ressa_experiment::{Pattern, StageNode, Tower, canonical::canonical, config::Metric, stage::stages};
use ressa_models::{MaskSet, WeightSet, load_folder};
use ressa_store::Store;
use serde_json::{Value as Json, json};

use crate::{
    digests, execute, executor,
    steps::{certificate, masks, of_kind, outcome, pruned_to, run_of, step, weights},
};

fn few(settings: Json) -> Json {
    let mut all = json!({ "samples": 8, "questions": 1, "learning-rate": 1e-3 });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    all
}

/// The values that a stage has published; none where training has helped no window.
fn changed(store: &Store, node: &StageNode) -> WeightSet {
    let path = store.require(&node.key.hex()).unwrap().file("weights.safetensors");
    path.map(|path| WeightSet::load(&path, &masks(store, node)).unwrap()).unwrap_or_default()
}

fn errors(store: &Store, node: &StageNode) -> Vec<(f64, f64)> {
    let result: Json = store.require(&node.key.hex()).unwrap().result().unwrap();
    let of = |error: &Json| (error["before"].as_f64().unwrap(), error["after"].as_f64().unwrap());
    result["errors"].as_object().unwrap().values().map(of).collect()
}

#[test]
fn a_reconstruction_stands_before_and_behind_other_steps() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let lists = [
        vec![pruned_to("prune", 0.5), step("reconstruct", "mend", few(json!({}))), step("restore", "tune", json!({}))],
        vec![
            pruned_to("prune", 0.5),
            step("restore", "tune", json!({})),
            step("reconstruct", "mend", few(json!({ "inputs": "changed", "window": "attention-mlp" }))),
            step("reconstruct", "again", few(json!({ "train": "norms" }))),
        ],
        vec![
            pruned_to("prune", 0.5),
            step("refine", "swap", json!({ "iterations": 10 })),
            step("reconstruct", "mend", few(json!({ "window": "matrix", "vision.tune": false }))),
            step("refine", "solve", json!({ "method": "least-squares" })),
        ],
        vec![
            pruned_to("first", 0.3),
            step(
                "reconstruct",
                "mend",
                few(
                    json!({ "train": "sparse-lora", "rank": 2, "window": 2, "inputs": "changed", "targets": "window" }),
                ),
            ),
            pruned_to("second", 0.5),
            step("restore", "tune", json!({})),
            pruned_to("third", 0.6),
        ],
    ];
    for steps in lists {
        let nodes = stages(&run_of(Metric::Magnitude, steps));
        let fresh: Vec<StageNode> = nodes.iter().filter(|node| !store.contains(&node.key.hex())).cloned().collect();
        execute(&mut executor, &fresh);
        for node in &nodes {
            assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind());
        }
        let mended = of_kind(&nodes, "reconstruct");
        assert!(!mended.is_empty());
        let mut better = 0;
        for node in &mended {
            let errors = errors(&store, node);
            assert!(errors.iter().all(|(before, after)| after <= before));
            better += errors.iter().filter(|(before, after)| after < before).count();
            assert!(certificate(&store, node).holds());
            for key in &node.inputs.masks {
                let earlier = nodes.iter().find(|other| other.key == *key).unwrap();
                if earlier.stage.masks() == node.stage.masks() {
                    let (before, after) = (masks(&store, earlier), masks(&store, node));
                    assert!(before.iter().all(|(layer, mask)| after.get(layer).unwrap().equal(mask)));
                }
            }
        }
        assert!(better > 0);
        let run = weights(&mut executor, outcome(&nodes));
        let sparsity = run.certificate.sparsity(Tower::Language).unwrap();
        let asked = if nodes.iter().filter(|node| node.stage.kind() == "prune").count() > 2 { 0.6 } else { 0.5 };
        assert!((sparsity - asked).abs() < 0.02, "{sparsity}");
        // Norms and biases have been carried on to the end.
        let layers: BTreeSet<&str> = run.layers().collect();
        let last = changed(&store, mended.last().unwrap());
        assert!(last.iter().all(|(weight, _)| layers.contains(weight)));
    }
}

/// What windows of the dense model see depends on no other tower; with targets to make good, a tower that nothing has touched is reconstructed too.
#[test]
fn a_tower_is_reconstructed_where_it_or_what_it_reads_has_changed() {
    let kinds = |settings: Json| -> Vec<Option<Tower>> {
        let pruned = step("prune", "prune", json!({ "vision.sparsity": 0.5, "language.sparsity": 0.0 }));
        let nodes = stages(&run_of(Metric::Magnitude, vec![pruned, step("reconstruct", "mend", few(settings))]));
        of_kind(&nodes, "reconstruct").iter().map(|node| node.stage.masks()).collect()
    };
    assert_eq!(kinds(json!({})), [Some(Tower::Vision)]);
    assert_eq!(kinds(json!({ "inputs": "changed", "targets": "window" })), [Some(Tower::Vision)]);
    assert_eq!(kinds(json!({ "inputs": "changed" })), Tower::ALL.map(Some));
    let alone = kinds(json!({ "inputs": "changed", "vision.tune": false, "connector.tune": false }));
    assert_eq!(alone, [Some(Tower::Language)]);
}

/// The same bits in one go and where a process is gone in the middle; N:M stays N:M; what is evaluated is what was published.
#[test]
fn a_reconstruction_repeats_to_the_bit_and_keeps_its_pattern() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut run = run_of(Metric::Wanda, Vec::new());
    run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
    run.steps =
        vec![step("prune", "prune", json!({})), step("reconstruct", "mend", few(json!({ "inputs": "changed" })))]
            .into();
    let nodes = stages(&canonical(&run));
    let mut whole = executor(first.path());
    execute(&mut whole, &nodes);
    let at = nodes.iter().position(|node| node.stage.kind() == "reconstruct").unwrap();
    execute(&mut executor(second.path()), &nodes[..=at]);
    execute(&mut executor(second.path()), &nodes[at + 1..]);
    assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));

    let store = Store::open(first.path(), Vec::new()).unwrap();
    let found = weights(&mut whole, outcome(&nodes));
    let dense = load_folder(&found.source, tch::Device::Cpu).unwrap();
    let mended = of_kind(&nodes, "reconstruct");
    let published: Vec<(MaskSet, WeightSet)> =
        mended.iter().map(|node| (masks(&store, node), changed(&store, node))).collect();
    assert!(published.iter().filter(|(_, values)| !values.is_empty()).count() >= 2);
    let mut seen = 0;
    for weight in dense.weights() {
        let Some((masks, values)) = published.iter().find(|(_, values)| values.get(weight.key()).is_some()) else {
            continue;
        };
        let (value, made) = (values.get(weight.key()).unwrap(), found.weight(weight.key(), weight.base()).unwrap());
        assert!(made.is_some_and(|made| made.equal(value)), "`{}`", weight.key());
        assert!(masks.get(weight.key()).is_some() || found.mask(weight.key()).is_none());
        seen += 1;
    }
    assert_eq!(seen, published.iter().map(|(_, values)| values.iter().count()).sum::<usize>());
    for tower in [Tower::Vision, Tower::Language] {
        assert_eq!(found.certificate.sparsity(tower), Some(0.5));
    }
    assert!(found.patterns().values().all(|pattern| *pattern == Pattern::NOfM { keep: 2, of: 4 }));
}

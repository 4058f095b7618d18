//! Runs of several steps: later ones start from what earlier ones made, what is gone stays gone, and all of it is found again in the store.

use std::path::Path;

use ressa_experiment::{
    Pattern, Readings, RunConfig, Stage, StageNode, Task, Tower,
    canonical::canonical,
    config::{Metric, RestoreMethod},
    model::Preset,
    record::Certificate,
    stage::{Inputs, stages},
    steps::StepConfig,
};
use ressa_models::{MaskSet, UpdateSet};
use ressa_pipeline::{Executor, RunWeights};
use ressa_store::Store;
use serde_json::{Value as Json, json};
use tch::{Kind, Tensor};

use crate::{execute, executed_alike, executor, short_run};

/// A step in which some settings differ from the section's.
pub fn step(kind: &str, name: &str, settings: Json) -> StepConfig {
    let mut body = settings;
    body["name"] = name.into();
    serde_json::from_value(json!({ kind: body })).unwrap()
}

pub fn pruned_to(name: &str, sparsity: f64) -> StepConfig {
    step("prune", name, json!({ "vision.sparsity": sparsity, "language.sparsity": sparsity }))
}

/// A run on the smallest model whose steps are those of a list.
pub fn run_of(metric: Metric, steps: Vec<StepConfig>) -> RunConfig {
    let mut run = short_run(Preset::ShapesFlanT5, RestoreMethod::SparseLora);
    run.prune.metric = metric;
    run.prune.pattern = Pattern::Unstructured;
    run.evaluate.tasks = vec![Task::Gqa];
    run.steps = steps.into();
    canonical(&run)
}

pub fn of_kind<'a>(nodes: &'a [StageNode], kind: &str) -> Vec<&'a StageNode> {
    nodes.iter().filter(|node| node.stage.kind() == kind).collect()
}

pub fn masks(store: &Store, node: &StageNode) -> MaskSet {
    MaskSet::load(&store.require(&node.key.hex()).unwrap().file("masks.safetensors").unwrap()).unwrap()
}

pub fn certificate(store: &Store, node: &StageNode) -> Certificate {
    store.require(&node.key.hex()).unwrap().result().unwrap()
}

pub fn weights(executor: &mut Executor, inputs: &Inputs) -> RunWeights {
    executor.run_weights(inputs, &Readings::default(), Path::new("")).unwrap()
}

/// What an evaluation of a run looks at.
pub fn outcome(nodes: &[StageNode]) -> &Inputs {
    &of_kind(nodes, "evaluate").last().unwrap().inputs
}

/// Whether nothing that `before` removes is kept by `after`.
fn nests(before: &MaskSet, after: &MaskSet) -> bool {
    before.iter().all(|(layer, mask)| {
        let kept = after.get(layer).unwrap().keep().logical_and(&mask.remove());
        kept.any().int64_value(&[]) == 0
    })
}

#[test]
fn gradual_pruning_is_a_list_of_steps() {
    for metric in [Metric::Wanda, Metric::SparseGpt] {
        let steps = vec![
            pruned_to("first", 0.3),
            step("restore", "tune", json!({})),
            pruned_to("second", 0.6),
            step("restore", "last", json!({ "steps": 2 })),
        ];
        let nodes = stages(&run_of(metric, steps));
        let kinds: Vec<&str> = nodes.iter().map(|node| node.stage.kind()).collect();
        let round = ["prune", "prune", "adapt", "merge"];
        assert_eq!(kinds, [&["dense"], &round[..], &round[..], &["evaluate"]].concat());
        let at = nodes.iter().rposition(|node| node.stage.kind() == "adapt").unwrap();
        let (first, mut whole) = executed_alike(&nodes, at);
        let store = Store::open(first.path(), Vec::new()).unwrap();
        let prunes = of_kind(&nodes, "prune");
        let [vision, language, vision_again, language_again] = prunes.as_slice() else { panic!("four") };
        assert!(nests(&masks(&store, vision), &masks(&store, vision_again)));
        assert!(nests(&masks(&store, language), &masks(&store, language_again)));
        let merges = of_kind(&nodes, "merge");
        for (merge, sparsity) in merges.iter().zip([0.3, 0.6]) {
            let certificate = certificate(&store, merge);
            for tower in [Tower::Vision, Tower::Language] {
                let found = certificate.sparsity(tower).unwrap();
                assert!((found - sparsity).abs() < 0.02, "{tower}: {found} of {sparsity}");
            }
            assert!(certificate.holds() && certificate.tensors.values().all(|tensor| tensor.revived == 0));
        }

        // The last weights are the first restoration's, or what pruning made of them, with the last update, under the last mask.
        let before =
            weights(&mut whole, &Inputs { merge: Some(merges[0].key), dense: Some(nodes[0].key), ..Inputs::default() });
        let last = weights(&mut whole, outcome(&nodes));
        let adapter = store.require(&of_kind(&nodes, "adapt")[1].key.hex()).unwrap();
        let updates = UpdateSet::load(&adapter.file("adapter.safetensors").unwrap()).unwrap();
        let mut moved = 0;
        for (layer, keep) in masks(&store, language_again).iter() {
            let [rows, columns] = keep.size();
            let dense = Tensor::ones([rows, columns], (Kind::Float, tch::Device::Cpu));
            let (one, other) =
                (before.weight(layer, &dense).unwrap().unwrap(), last.weight(layer, &dense).unwrap().unwrap());
            assert_eq!(other.masked_select(&keep.remove()).ne(0.0).any().int64_value(&[]), 0, "`{layer}`");
            assert!(last.mask(layer).unwrap().equal(keep));
            if metric == Metric::Wanda {
                let update = updates.get(layer).unwrap().form(&one, Some(keep), Kind::Float);
                assert!((update - &other).abs().max().double_value(&[]) < 1e-6, "`{layer}`");
            }
            moved += i64::from(!one.equal(&other));
        }
        assert!(moved > 0);
    }
}

/// Whatever pruned: no layer's error rises, as many weights are gone as before, and all that follows reads the new masks and weights.
#[test]
fn refinements_follow_prunings() {
    for (metric, pattern) in [
        (Metric::Magnitude, Pattern::Unstructured),
        (Metric::Wanda, Pattern::NOfM { keep: 2, of: 4 }),
        (Metric::SparseGpt, Pattern::Unstructured),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut executor = executor(folder.path());
        let store = Store::open(folder.path(), Vec::new()).unwrap();
        let mut run = run_of(metric, Vec::new());
        run.prune.pattern = pattern;
        let steps = vec![
            step("prune", "prune", json!({})),
            step("refine", "swap", json!({ "iterations": 20 })),
            step("refine", "solve", json!({ "method": "least-squares" })),
            step("restore", "restore", json!({})),
        ];
        run.steps = steps.into();
        let nodes = stages(&canonical(&run));
        execute(&mut executor, &nodes);
        nodes.iter().for_each(|node| assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new()));
        let (prunes, refines) = (of_kind(&nodes, "prune"), of_kind(&nodes, "refine"));
        assert_eq!((prunes.len(), refines.len(), of_kind(&nodes, "statistics").len()), (2, 4, 4));
        let mut better = 0;
        for (refine, earlier) in refines.iter().zip(prunes.iter().chain(&refines)) {
            let (before, after) = (masks(&store, earlier), masks(&store, refine));
            for (layer, mask) in after.iter() {
                assert_eq!(mask.kept(), before.get(layer).unwrap().kept(), "`{layer}`");
            }
            let result: Json = store.require(&refine.key.hex()).unwrap().result().unwrap();
            for (layer, error) in result["errors"].as_object().unwrap() {
                let (before, after) = (error["before"].as_f64().unwrap(), error["after"].as_f64().unwrap());
                assert!(after <= before, "`{layer}`: {before} to {after}");
                better += i32::from(after < before);
            }
        }
        assert!(better > 0, "{}", metric.name());
        // The merge and the evaluation see the last masks.
        let last = weights(&mut executor, outcome(&nodes));
        for refine in &refines[2..] {
            assert!(masks(&store, refine).iter().all(|(layer, mask)| last.mask(layer).unwrap().equal(mask)));
        }
    }
}

/// What was gone before a restoration stays gone when a later pruning is refined, although the refinement may choose again among what that pruning removed.
#[test]
fn refinements_leave_what_was_gone_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let steps = vec![
        pruned_to("first", 0.4),
        step("restore", "restore", json!({})),
        pruned_to("second", 0.6),
        step("refine", "swap", json!({ "iterations": 20 })),
    ];
    let nodes = stages(&run_of(Metric::Magnitude, steps));
    execute(&mut executor, &nodes);
    nodes.iter().for_each(|node| assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new()));
    let (prunes, refines) = (of_kind(&nodes, "prune"), of_kind(&nodes, "refine"));
    let mut swapped = 0;
    for ((first, second), refine) in prunes.iter().zip(&prunes[2..]).zip(&refines) {
        let [first, second, after] = [first, second, refine].map(|node| masks(&store, node));
        for (layer, mask) in after.iter() {
            let revived = mask.keep().logical_and(&first.get(layer).unwrap().remove());
            assert_eq!(revived.any().int64_value(&[]), 0, "`{layer}`");
            swapped += i32::from(!mask.equal(second.get(layer).unwrap()));
        }
    }
    assert!(refines.len() == 2 && swapped > 0, "{} refinements, {swapped} layers changed", refines.len());
}

/// A list is free: trained first and pruned then, twice in a row, with a method that fills what was pruned.
#[test]
fn steps_come_in_any_order_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let lists = [
        vec![step("restore", "restore", json!({})), pruned_to("prune", 0.5)],
        vec![pruned_to("first", 0.3), pruned_to("second", 0.5), step("restore", "restore", json!({}))],
        vec![pruned_to("first", 0.5), step("restore", "last", json!({})), step("restore", "again", json!({}))],
    ];
    for steps in lists {
        let nodes = stages(&run_of(Metric::Magnitude, steps));
        let fresh: Vec<StageNode> = nodes.iter().filter(|node| !store.contains(&node.key.hex())).cloned().collect();
        execute(&mut executor, &fresh);
        nodes.iter().for_each(|node| assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new()));
        let inputs = outcome(&nodes);
        let run = weights(&mut executor, inputs);
        let certificate = run.certificate.clone();
        for tower in [Tower::Vision, Tower::Language] {
            assert!((certificate.sparsity(tower).unwrap() - 0.5).abs() < 0.02);
        }
        for (layer, tensor) in certificate.tensors.iter().filter(|(_, tensor)| tensor.zeros > 0) {
            let keep = run.mask(layer).unwrap_or_else(|| panic!("`{layer}` has a mask"));
            assert!(keep.numel() - keep.kept() == tensor.zeros, "`{layer}`");
        }
    }
}

/// `lora` gives values to what was pruned, so the next step prunes from the start.
#[test]
fn what_lora_fills_is_not_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let filled = step("restore", "fill", json!({ "method": "lora" }));
    let nodes = stages(&run_of(Metric::Magnitude, vec![pruned_to("first", 0.5), filled, pruned_to("second", 0.3)]));
    execute(&mut executor, &nodes);
    nodes.iter().for_each(|node| assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new()));
    let run = weights(&mut executor, outcome(&nodes));
    for tower in [Tower::Vision, Tower::Language] {
        assert!((run.certificate.sparsity(tower).unwrap() - 0.3).abs() < 0.02);
    }
    assert!(nodes.iter().any(|node| matches!(*node.stage, Stage::Merge { method: RestoreMethod::Lora, .. })));
}

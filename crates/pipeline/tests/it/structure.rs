//! Runs that remove heads, channels and blocks as a whole, before and behind other steps.

use ressa_experiment::{
    Pattern, RunConfig, Stage, StageNode, Task, Tower,
    canonical::canonical,
    config::{Metric, RestoreMethod},
    model::Preset,
    record::Certificate,
    stage::stages,
    steps::StepConfig,
};
use ressa_models::{MaskSet, TowerCut, UpdateSet};
use ressa_store::Store;
use serde_json::json;
use tch::{Kind, Tensor};

use crate::{
    execute, executed_alike, executor, short_run,
    steps::{of_kind, outcome, step, weights},
};

fn run_of(preset: Preset, steps: Vec<StepConfig>) -> Vec<StageNode> {
    let mut run: RunConfig = short_run(preset, RestoreMethod::SparseLora);
    run.prune.metric = Metric::Wanda;
    run.evaluate.tasks = vec![Task::Gqa];
    run.restore.vision.bias = ressa_experiment::config::TrainedBiases::All;
    run.steps = steps.into();
    stages(&canonical(&run))
}

fn structure(name: &str, settings: serde_json::Value) -> StepConfig {
    let mut all = json!({ "calibration.images": 3, "calibration.questions": 1, "calibration.captions": 1 });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    step("structure", name, all)
}

fn file<T>(store: &Store, node: &StageNode, name: &str, load: impl Fn(&std::path::Path) -> T) -> T {
    load(&store.require(&node.key.hex()).unwrap().file(name).unwrap())
}

fn cut(store: &Store, node: &StageNode) -> TowerCut {
    file(store, node, "structure.safetensors", |path| TowerCut::load(path).unwrap())
}

fn masks(store: &Store, node: &StageNode) -> MaskSet {
    file(store, node, "masks.safetensors", |path| MaskSet::load(path).unwrap())
}

fn of_tower<'a>(nodes: &[&'a StageNode], tower: Tower) -> &'a StageNode {
    nodes.iter().find(|node| node.stage.masks() == Some(tower)).unwrap()
}

/// The weights that an evaluation looks at are zero wherever something was removed, biases of blocks among them.
fn check_outcome(folder: &std::path::Path, nodes: &[StageNode]) {
    let mut executor = executor(folder);
    let store = Store::open(folder, Vec::new()).unwrap();
    let last = weights(&mut executor, outcome(nodes));
    let mut biases = 0;
    for node in of_kind(nodes, "structure") {
        let (masks, cut) = (masks(&store, node), cut(&store, node));
        for (name, mask) in masks.iter() {
            let [rows, columns] = mask.size();
            let (size, gone) = match cut.layers.get(name) {
                Some(layer) => (vec![rows, columns], layer.keep((rows, columns), tch::Device::Cpu).logical_not()),
                None if name.ends_with(".bias") => (vec![columns], mask.remove().view([columns])),
                None => continue,
            };
            let weight = last.weight(name, &Tensor::ones(&size, (Kind::Float, tch::Device::Cpu))).unwrap().unwrap();
            let gone = weight.masked_select(&gone);
            assert_eq!(gone.ne(0.0).any().int64_value(&[]), 0, "`{name}`");
            biases += i64::from(name.ends_with(".bias") && gone.numel() > 0);
        }
    }
    assert!(biases > 0, "an encoder has biases");
    assert!(last.smaller().is_some());
}

#[test]
fn structure_then_a_pattern_then_training() {
    for preset in [Preset::ShapesFlanT5, Preset::ShapesVicuna] {
        let parts = json!({ "vision.channels": 0.25, "vision.blocks": 0.25, "connector.channels": 0.25, "language.heads": 0.25, "language.channels": 0.25, "language.blocks": 0.25 });
        let nodes = run_of(
            preset,
            vec![
                structure("small", parts),
                step("prune", "half", json!({ "pattern": "2:4" })),
                step("restore", "tune", json!({})),
            ],
        );
        let kinds: Vec<&str> = nodes.iter().map(|node| node.stage.kind()).collect();
        let structures = ["structure"; 3];
        assert_eq!(kinds, [&["dense"][..], &structures, &["prune", "prune", "adapt", "merge", "evaluate"]].concat());
        let (first, _) = executed_alike(&nodes, 4);

        let store = Store::open(first.path(), Vec::new()).unwrap();
        let (structures, prunes) = (of_kind(&nodes, "structure"), of_kind(&nodes, "prune"));
        for tower in [Tower::Vision, Tower::Language] {
            let (left, pruned) = (cut(&store, of_tower(&structures, tower)), masks(&store, of_tower(&prunes, tower)));
            for (layer, cut) in &left.layers {
                let keep = pruned.get(layer).unwrap().keep();
                let (rows, columns) = cut.size((keep.size()[0], keep.size()[1]));
                let groups = cut.of(&keep).reshape([-1, 4]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
                assert_eq!(groups.ne(2).any().int64_value(&[]), 0, "`{layer}` {rows} {columns}");
            }
        }
        let merge = of_kind(&nodes, "merge")[0];
        let certificate: Certificate = store.require(&merge.key.hex()).unwrap().result().unwrap();
        assert!(certificate.holds() && certificate.tensors.values().all(|tensor| tensor.revived == 0));
        // A training moves the biases that are left, and none of those that are gone.
        let adapter = store.require(&of_kind(&nodes, "adapt")[0].key.hex()).unwrap();
        let updates = UpdateSet::load(&adapter.file("adapter.safetensors").unwrap()).unwrap();
        assert!(updates.iter().any(|(name, _)| name.ends_with(".bias")));
        check_outcome(first.path(), &nodes);
    }
}

/// Blocks may go behind an N:M pattern: their layers are zeros, and all others still follow it.
#[test]
fn a_pattern_holds_behind_removed_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let blocks = structure("small", json!({ "block-score": "magnitude", "language.blocks": 0.25 }));
    let nodes = run_of(Preset::ShapesVicuna, vec![step("prune", "half", json!({ "pattern": "2:4" })), blocks]);
    let mut whole = executor(folder.path());
    execute(&mut whole, &nodes);
    nodes.iter().for_each(|node| assert_eq!(whole.verify(node).unwrap(), Vec::<String>::new()));
    let patterns = weights(&mut whole, outcome(&nodes)).patterns();
    let language = patterns.keys().filter(|name| name.starts_with("language_model.")).count();
    assert!(language > 0 && language < patterns.len(), "{patterns:?}");
    assert!(patterns.values().all(|pattern| *pattern == Pattern::NOfM { keep: 2, of: 4 }), "{patterns:?}");
}

#[test]
fn structure_behind_pruning_and_alone_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let half = json!({ "pattern": "unstructured", "vision.sparsity": 0.5, "language.sparsity": 0.5 });
    let by_blocks = json!({ "score": "wanda", "block-score": "influence", "vision.channels": 0.25, "language.blocks": 0.25, "language.channels": 0.25 });
    let nodes = run_of(
        Preset::ShapesFlanT5,
        vec![
            step("prune", "half", half),
            structure("small", by_blocks),
            step("refine", "swap", json!({ "iterations": 5 })),
        ],
    );
    let mut whole = executor(folder.path());
    execute(&mut whole, &nodes);
    nodes
        .iter()
        .for_each(|node| assert_eq!(whole.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind()));
    let (prunes, structures, refines) =
        (of_kind(&nodes, "prune"), of_kind(&nodes, "structure"), of_kind(&nodes, "refine"));
    for tower in [Tower::Vision, Tower::Language] {
        let [pruned, smaller, refined] =
            [&prunes, &structures, &refines].map(|kind| masks(&store, of_tower(kind, tower)));
        for (layer, mask) in pruned.iter() {
            let back = smaller.get(layer).unwrap().keep().logical_and(&mask.remove());
            assert_eq!(back.any().int64_value(&[]), 0, "`{layer}`");
            assert_eq!(refined.get(layer).unwrap().kept(), smaller.get(layer).unwrap().kept(), "`{layer}`");
        }
        let left = cut(&store, of_tower(&structures, tower));
        for (layer, cut) in &left.layers {
            let keep = refined.get(layer).unwrap().keep();
            let beyond = keep.logical_and(&cut.keep((keep.size()[0], keep.size()[1]), tch::Device::Cpu).logical_not());
            assert_eq!(beyond.any().int64_value(&[]), 0, "`{layer}`: a swap leads out of what is left");
        }
    }
    check_outcome(folder.path(), &nodes);

    // Alone, twice, with training between: targets count from the whole.
    let first = json!({ "score": "magnitude", "vision.channels": 0.25, "language.heads": 0.25 });
    let second = json!({ "score": "magnitude", "vision.channels": 0.5, "language.heads": 0.5 });
    let twice =
        vec![structure("first", first), step("restore", "tune", json!({ "steps": 2 })), structure("second", second)];
    let nodes = run_of(Preset::ShapesVicuna, twice);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let mut whole = executor(folder.path());
    execute(&mut whole, &nodes);
    nodes
        .iter()
        .for_each(|node| assert_eq!(whole.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind()));
    let structures = of_kind(&nodes, "structure");
    let numbers: Vec<_> = structures.iter().map(|node| cut(&store, node).numbers).collect();
    let channels = |at: usize| numbers[at].channels.map(|channels| (channels.left, channels.of));
    let heads = |at: usize| numbers[at].heads.map(|heads| (heads.left, heads.of));
    assert_eq!((channels(0), heads(1)), (Some((240, 320)), Some((5, 6))));
    assert_eq!((channels(2), heads(3)), (Some((160, 320)), Some((3, 6))));
    assert!(matches!(&*structures[2].stage, Stage::Structure { calibration: None, .. }));
    check_outcome(folder.path(), &nodes);
}

#[test]
fn what_a_configuration_cannot_say_fails_by_name() {
    let heads = json!({ "score": "random", "vision.heads": 0.25 });
    let nodes = run_of(Preset::ShapesFlanT5, vec![structure("small", heads)]);
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    execute(&mut executor, &nodes[..1]);
    let error = executor.execute(&nodes[1], 1, &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("structure.vision.heads") && error.contains("BLIP-2"), "{error}");
}

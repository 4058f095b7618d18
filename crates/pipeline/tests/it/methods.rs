//! Methods that change weights, methods that swap, statistics that are collected once, and tokens that do not count alike: through every stage.

use std::{collections::BTreeMap, fs, path::Path};

use ressa_experiment::{
    Pattern, Readings, RunConfig, Stage, StageNode, Task, Tower,
    allocation::{AllocationConfig, AllocationMethod},
    config::{
        BlockThreshold, Damping, InitialMetric, MethodConfig, Metric, Propagate, RestoreMethod, Rounding,
        StatisticsNeeds, Threshold, TokenConfig, TokenSelection,
    },
    model::Preset,
    record::Certificate,
    stage::{Inputs, stages},
};
use ressa_models::{MaskSet, UpdateSet, WeightSet, load_folder};
use ressa_pipeline::Executor;
use ressa_prune::method::solver;
use ressa_runtime::Device;
use ressa_store::Store;
use tch::{Kind, Tensor};

use crate::{digests, execute, executor, short_run};

fn run_of(metric: Metric, preset: Preset, restored: bool) -> RunConfig {
    let mut run = short_run(preset, if restored { RestoreMethod::SparseLora } else { RestoreMethod::None });
    run.prune.metric = metric;
    run.evaluate.tasks = vec![Task::Gqa];
    run
}

fn pruned(nodes: &[StageNode]) -> impl Iterator<Item = (Tower, &StageNode)> {
    nodes.iter().filter_map(|node| match &*node.stage {
        Stage::Prune { tower, .. } => Some((*tower, node)),
        _ => None,
    })
}

fn stored(folder: &Path, node: &StageNode) -> (MaskSet, WeightSet, Certificate) {
    let entry = Store::open(folder, Vec::new()).unwrap().require(&node.key.hex()).unwrap();
    let masks = MaskSet::load(&entry.file("masks.safetensors").unwrap()).unwrap();
    let weights = entry.file("weights.safetensors").map(|path| WeightSet::load(&path, &masks).unwrap());
    (masks, weights.unwrap_or_default(), entry.result().unwrap())
}

/// The dense model's weight of a layer.
fn dense(folder: &Path, nodes: &[StageNode]) -> BTreeMap<String, Tensor> {
    let entry = Store::open(folder, Vec::new()).unwrap().require(&nodes[0].key.hex()).unwrap();
    let model = load_folder(&entry.folder().join("model"), Device::Cpu).unwrap();
    model.linears().into_iter().map(|(id, linear)| (id.name.clone(), linear.weight().to_kind(Kind::Float))).collect()
}

fn certified(executor: &mut Executor, folder: &Path, nodes: &[StageNode]) {
    for node in nodes {
        assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind());
    }
    for (_, node) in pruned(nodes) {
        let (_, _, certificate) = stored(folder, node);
        assert!(certificate.holds(), "{:?}", certificate.violations);
    }
}

/// SparseGPT's weights reach the next tower, the adapters, the merge and the export; the masks alone would give others.
#[test]
fn changed_weights_are_used_by_everything_downstream() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = run_of(Metric::SparseGpt, Preset::ShapesFlanT5, true);
    run.prune.pattern = Pattern::Unstructured;
    let nodes = stages(&run);
    let mut executor = executor(folder.path());
    execute(&mut executor, &nodes);
    certified(&mut executor, folder.path(), &nodes);

    let dense = dense(folder.path(), &nodes);
    let prunes: Vec<&StageNode> = pruned(&nodes).map(|(_, node)| node).collect();
    let store = Store::open(folder.path(), Vec::new()).unwrap();
    let adapt = nodes.iter().find(|node| matches!(*node.stage, Stage::Adapt { .. })).unwrap();
    let adapter = store.require(&adapt.key.hex()).unwrap().file("adapter.safetensors").unwrap();
    let adapters = UpdateSet::load(&adapter).unwrap();
    let bare =
        Inputs { dense: Some(nodes[0].key), masks: prunes.iter().map(|node| node.key).collect(), ..Inputs::default() };
    let merge = nodes.iter().find(|node| matches!(*node.stage, Stage::Merge { .. })).unwrap();
    let whole = Inputs { merge: Some(merge.key), masks: Vec::new(), ..bare.clone() };
    let mut weights = |inputs: &Inputs| executor.run_weights(inputs, &Readings::default(), Path::new("")).unwrap();
    let (bare, whole) = (weights(&bare), weights(&whole));
    let mut moved = 0;
    for node in &prunes {
        let (masks, weights, _) = stored(folder.path(), node);
        for (layer, keep) in masks.iter() {
            let changed = weights.get(layer).expect("every layer is solved");
            let keep = &keep.keep();
            assert_eq!(changed.masked_select(&keep.logical_not()).ne(0.0).any().int64_value(&[]), 0);
            moved += changed.ne_tensor(&dense[layer]).logical_and(keep).sum(Kind::Int64).int64_value(&[]);
            assert!(bare.weight(layer, &dense[layer]).unwrap().unwrap().equal(changed), "{layer}");
            // What the adapters were trained on is what they are merged into.
            let adapter = adapters.get(layer).unwrap();
            let [(_, a), (_, b)] = adapter.parameters()[..] else { panic!("two factors") };
            let update = (b * adapter.settings()["scale"].as_f64().unwrap()).matmul(a);
            let expected = (changed + update).masked_fill(&keep.logical_not(), 0.0);
            let found = whole.weight(layer, &dense[layer]).unwrap().unwrap();
            assert!(found.allclose(&expected, 1e-5, 1e-6, false), "{layer}");
        }
    }
    assert!(moved > 1000, "{moved}");

    // The language tower was calibrated behind the changed image encoder: without its weights the masks are others.
    let path = store.require(&prunes[0].key.hex()).unwrap().file("weights.safetensors").unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 64;
    fs::write(&path, bytes).unwrap();
    let violations = executor.verify(prunes[0]).unwrap();
    assert!(violations.iter().any(|v| v.contains("weights.safetensors")), "{violations:?}");
}

/// What a plan has collected for a method is what the method asks for.
#[test]
fn plans_collect_what_methods_need() {
    let initials = [InitialMetric::Magnitude, InitialMetric::Wanda, InitialMetric::Ria, InitialMetric::SparseGpt];
    for (metric, initial) in Metric::METHODS.into_iter().flat_map(|metric| initials.map(|initial| (metric, initial))) {
        let mut method = MethodConfig::default();
        method.dsnot.initial = initial;
        let (planned, needed) = (StatisticsNeeds::of(metric, &method), solver(metric, &method, 0).unwrap().needs());
        let planned = (planned.norms, planned.moments, planned.gram);
        assert_eq!(planned, (needed.norms, needed.moments, needed.gram), "{} from {initial:?}", metric.name());
    }
}

/// Each method with N:M and without, in both families; the same again in another store.
#[test]
fn methods_are_certified_and_repeated_to_the_bit() {
    for (metric, preset) in [
        (Metric::Ria, Preset::ShapesVicuna),
        (Metric::SparseGpt, Preset::ShapesVicuna),
        (Metric::Alps, Preset::ShapesFlanT5),
        (Metric::Dsnot, Preset::ShapesFlanT5),
    ] {
        let mut nodes = stages(&run_of(metric, preset, false));
        let mut unstructured = run_of(metric, preset, false);
        unstructured.prune.pattern = Pattern::Unstructured;
        unstructured.prune.dsnot.initial = InitialMetric::Magnitude;
        unstructured.prune.vision.sparsity = 0.7;
        for node in stages(&unstructured) {
            if !nodes.iter().any(|known| known.key == node.key) {
                nodes.push(node);
            }
        }
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut executor_one = executor(first.path());
        execute(&mut executor_one, &nodes);
        execute(&mut executor(second.path()), &nodes);
        assert_eq!(digests(first.path(), &nodes), digests(second.path(), &nodes));
        certified(&mut executor_one, first.path(), &nodes);
        for (tower, node) in pruned(&nodes) {
            let (_, weights, certificate) = stored(first.path(), node);
            assert_eq!(!weights.is_empty(), metric.changes_weights());
            let Stage::Prune { sparsity, .. } = &*node.stage else { unreachable!() };
            let found = certificate.sparsity(tower).unwrap();
            assert!((found - sparsity.unwrap_or(0.5)).abs() < 0.01, "{metric:?} {tower}: {found}");
        }
    }
}

/// What is read from the statistics stage prunes as what is collected on the way does, whatever else was collected.
#[test]
fn stored_statistics_prune_to_the_same_bit() {
    let (shared, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for metric in [Metric::Wanda, Metric::SparseGpt, Metric::Dsnot] {
        let mut run = run_of(metric, Preset::ShapesFlanT5, false);
        run.prune.calibration.propagate = Propagate::Dense;
        let nodes = stages(&run);
        let kinds: Vec<&str> = nodes.iter().map(|node| node.stage.kind()).collect();
        assert_eq!(kinds, ["dense", "statistics", "prune", "statistics", "prune", "evaluate"]);
        execute(&mut executor(shared.path()), &nodes);
        let on_the_way: Vec<StageNode> =
            nodes.iter().filter(|node| node.stage.kind() != "statistics").cloned().collect();
        execute(&mut executor(alone.path()), &on_the_way);
        assert_eq!(digests(shared.path(), &on_the_way), digests(alone.path(), &on_the_way), "{metric:?}");
    }
}

/// The reference's choices: thresholds that miss the number are certified without it.
#[test]
fn thresholds_and_rounding_of_published_code() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let mut zeros = |change: &dyn Fn(&mut RunConfig)| {
        let mut run = run_of(Metric::Wanda, Preset::ShapesFlanT5, false);
        run.prune.pattern = Pattern::Unstructured;
        run.prune.language.sparsity = 0.0;
        run.prune.vision.sparsity = 0.7;
        change(&mut run);
        let nodes = stages(&run);
        let nodes = &nodes[..nodes.len() - 1];
        execute(&mut executor, nodes);
        certified(&mut executor, folder.path(), nodes);
        stored(folder.path(), nodes.last().unwrap()).2.tower(Tower::Vision).0
    };
    let exact = zeros(&|_| {});
    let truncated = zeros(&|run| run.prune.rounding = Rounding::Truncated);
    let nearest = zeros(&|run| run.prune.rounding = Rounding::Nearest);
    let strict = zeros(&|run| run.prune.threshold = Threshold::Strict);
    let inclusive = zeros(&|run| run.prune.threshold = Threshold::Inclusive);
    assert!(truncated <= exact && exact <= nearest, "{truncated} {exact} {nearest}");
    assert!(strict <= exact && exact < inclusive, "{strict} {exact} {inclusive}");
    let gpt = |run: &mut RunConfig| {
        run.prune.metric = Metric::SparseGpt;
        run.prune.sparsegpt.damping = Damping::OnFailure;
    };
    let published = zeros(&|run| {
        gpt(run);
        run.prune.sparsegpt.threshold = BlockThreshold::Inclusive;
    });
    assert!(published > zeros(&gpt));
}

/// Weights of tokens and ATV's choice reach the masks of the towers whose tokens they are about, and no others.
#[test]
fn tokens_count_as_the_experiment_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let mut masks = |tokens: TokenConfig| {
        let mut run = run_of(Metric::Wanda, Preset::ShapesVicuna, false);
        run.prune.connector.sparsity = 0.5;
        run.prune.calibration.propagate = Propagate::Dense;
        run.prune.calibration.tokens = tokens;
        let nodes = stages(&run);
        execute(&mut executor, &nodes[..nodes.len() - 1]);
        let of = |(tower, node)| {
            let entry =
                Store::open(folder.path(), Vec::new()).unwrap().require(&StageNode::clone(node).key.hex()).unwrap();
            (tower, entry.manifest.files["masks.safetensors"].blake3.clone())
        };
        pruned(&nodes).map(of).collect::<BTreeMap<Tower, _>>()
    };
    let even = masks(TokenConfig::default());
    let differ = |other: &BTreeMap<Tower, _>| Tower::ALL.map(|tower| other[&tower] != even[&tower]);
    // All visual, all query and text, all three.
    let no_image = masks(TokenConfig { visual: 0.25, ..TokenConfig::default() });
    assert_eq!(differ(&no_image), [false, false, true]);
    let no_query = masks(TokenConfig { query: 0.25, ..TokenConfig::default() });
    assert_eq!(differ(&no_query), [false, true, false]);
    let text = masks(TokenConfig { text: 4.0, ..TokenConfig::default() });
    assert_eq!(differ(&text), [false, true, true]);
    let atv = masks(TokenConfig { select: TokenSelection::Atv, ..TokenConfig::default() });
    assert_eq!(differ(&atv), [false, false, true]);
}

/// A projection within the connector's budget: masked, certified, tuned, merged and exported with it, and divided budgets count it.
#[test]
fn a_projection_goes_with_its_connector_through_every_stage() {
    const PROJECTION: &str = "language_projection";
    let folder = tempfile::tempdir().unwrap();
    let mut executor = executor(folder.path());
    let mut run = run_of(Metric::SparseGpt, Preset::ShapesFlanT5, true);
    run.prune.pattern = Pattern::Unstructured;
    (run.prune.connector.sparsity, run.prune.connector.projection) = (0.5, true);
    run.prune.allocation = AllocationConfig {
        method: AllocationMethod::Table,
        table: [(PROJECTION.to_owned(), 0.25)].into_iter().collect(),
        ..AllocationConfig::default()
    };
    let nodes = stages(&run);
    execute(&mut executor, &nodes);
    certified(&mut executor, folder.path(), &nodes);
    let of_connector = pruned(&nodes).find(|(tower, _)| *tower == Tower::Connector).unwrap().1;
    let (masks, weights, certificate) = stored(folder.path(), of_connector);
    // 96 rows of 64 weights, of which the table removes a quarter; the budget is that of all weights together.
    let found = &certificate.tensors[PROJECTION];
    assert_eq!((found.zeros, found.total), (1536, 6144));
    assert_eq!(certificate.sparsity(Tower::Connector), Some(0.5));
    assert!(masks.get(PROJECTION).is_some() && weights.get(PROJECTION).is_some());

    let result = |kind: &str| -> Certificate {
        let node = nodes.iter().find(|node| node.stage.kind() == kind).unwrap();
        let store = Store::open(folder.path(), Vec::new()).unwrap();
        store.require(&node.key.hex()).unwrap().result().unwrap()
    };
    let merged = result("merge");
    assert!(merged.holds() && merged.tensors[PROJECTION].zeros >= 1536, "{:?}", merged.violations);
    let merge = nodes.iter().find(|node| matches!(*node.stage, Stage::Merge { .. })).unwrap().key;
    let inputs = Inputs { dense: Some(nodes[0].key), merge: Some(merge), ..Inputs::default() };
    let whole = executor.run_weights(&inputs, &Readings::default(), Path::new("")).unwrap();
    assert!(whole.is_changed(PROJECTION) && whole.patterns().contains_key("language_projection.weight"));
}

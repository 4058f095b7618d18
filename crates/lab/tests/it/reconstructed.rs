//! A reconstructed run as a folder: it opens, and answers as the run does.

use std::path::Path;

use ressa_experiment::{
    Pattern, RunConfig, StageNode, Tower,
    canonical::canonical,
    config::Metric,
    job::{Export, Job},
    model::{ModelConfig, Preset},
    stage::{Inputs, stages},
    steps::StepConfig,
};
use ressa_models::{Entry, MaskSet, Prompts, TextBatch, VisionLanguage, WeightSet, load_folder};
use ressa_pipeline::Executor;
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions};
use ressa_store::{Environment, Store};
use serde_json::json;
use tch::{Kind, Tensor};

/// Logits of two answers, and features behind a block of the image encoder.
fn outputs(model: &dyn VisionLanguage) -> [Tensor; 2] {
    let side = 32;
    let pixels = (Tensor::arange(3 * side * side, (Kind::Float, Device::Cpu)) * 0.37).sin().view([1, 3, side, side]);
    let text = TextBatch::pad(&[vec![5, 9, 7]], 0, Device::Cpu);
    let prompts = Prompts {
        image: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        qformer: text.shallow_clone(),
        language: text,
    };
    let block = model.run_block(Tower::Vision, 0, &model.enter_from(Entry::Pixels(&pixels)));
    let features = model.encode_images(&pixels);
    let prefix = model.visual_prefix(&features, &prompts);
    [model.force(Some(&prefix), &prompts.language, &[vec![6, 8]]).logits, block.hidden]
}

#[test]
fn the_folder_of_a_reconstructed_run_answers_as_the_run() {
    let _no_grad = tch::no_grad_guard();
    let root = tempfile::tempdir().unwrap();
    let open = || Store::open(root.path().join("store"), Vec::new()).unwrap();
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    run.dense.steps = Some(2);
    run.prune.metric = Metric::Magnitude;
    run.prune.pattern = Pattern::NOfM { keep: 2, of: 4 };
    (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.5, 0.5);
    let step = |kind: &str, settings: serde_json::Value| -> StepConfig {
        let mut body = settings;
        body["name"] = kind.into();
        serde_json::from_value(json!({ kind: body })).unwrap()
    };
    let reconstruct = json!({ "samples": 8, "questions": 1, "learning-rate": 1e-3, "inputs": "changed" });
    run.steps = vec![step("prune", json!({})), step("reconstruct", reconstruct)].into();
    let nodes: Vec<StageNode> = stages(&canonical(&run)).into_iter().filter(|n| n.stage.kind() != "evaluate").collect();
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let mut executor = Executor::new(open(), device, Environment::default());
    for node in &nodes {
        executor.execute(node, 1, &mut |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
        executor.store().publish(&node.key.hex(), 1).unwrap();
    }
    let mended: Vec<&StageNode> = nodes.iter().filter(|node| node.stage.kind() == "reconstruct").collect();
    assert_eq!(mended.len(), 3);
    let output = root.path().join("folder");
    let inputs =
        Inputs { dense: Some(nodes[0].key), masks: mended.iter().map(|n| n.key).collect(), ..Inputs::default() };
    let job = Export {
        store: root.path().join("store"),
        shipped: Vec::new(),
        root: root.path().to_owned(),
        inputs: inputs.clone(),
        readings: Default::default(),
        output: output.clone(),
        max_shard_size: None,
        full_size: false,
        container: Default::default(),
        card: json!({ "base": "", "label": "", "run": "", "stages": [], "restored": null, "seed": null, "scores": [], "program": "" }),
    };
    // Results that cannot be written are exported all the same: nothing but the output is.
    let drafts = root.path().join("store/drafts");
    std::fs::remove_dir_all(&drafts).unwrap();
    std::fs::write(&drafts, "no folder").unwrap();
    ressa_lab::run(&Job::Export(Box::new(job)), Device::Cpu, &mut |_, _| ()).unwrap();
    std::fs::remove_file(&drafts).unwrap();

    // The same from what the stages published, rounded to the folder's type.
    let source = executor.run_weights(&inputs, &Default::default(), Path::new("")).unwrap().source;
    let mut expected = load_folder(&source, Device::Cpu).unwrap();
    let dense = outputs(expected.as_ref());
    let (mut all, mut changed, store) = (MaskSet::new(), 0, open());
    for node in &mended {
        let entry = store.require(&node.key.hex()).unwrap();
        let masks = MaskSet::load(&entry.file("masks.safetensors").unwrap()).unwrap();
        // Not there where training has helped no window.
        if let Ok(path) = entry.file("weights.safetensors") {
            WeightSet::load(&path, &masks).unwrap().apply(expected.as_mut()).unwrap();
            changed += 1;
        }
        all.extend(masks);
    }
    assert!(changed >= 2);
    all.apply(expected.as_mut()).unwrap();
    for weight in expected.weights_mut() {
        let rounded = weight.base().to_kind(Kind::BFloat16).to_kind(weight.base().kind());
        weight.set_base(rounded).unwrap();
    }
    let (expected, found) = (outputs(expected.as_ref()), outputs(load_folder(&output, Device::Cpu).unwrap().as_ref()));
    for ((expected, found), dense) in expected.iter().zip(&found).zip(&dense) {
        assert!(found.equal(expected) && !found.equal(dense));
    }
}

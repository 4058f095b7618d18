//! Learned queries that are removed: a run goes on without them, and its folder is one of fewer queries.

use std::{fs, path::Path};

use ressa_checkpoint::{Checkpoint, ExportRequest, export_smaller, misfits, read_config};
use ressa_experiment::{
    RunConfig, StageNode,
    canonical::canonical,
    config::{Metric, RestoreMethod},
    job::{Export, Forward, Job, ModelAt},
    model::{ModelConfig, Preset},
    stage::stages,
    steps::StepConfig,
    structure::{GroupScore, TowerStructure},
};
use ressa_lab::LabError;
use ressa_models::{
    Cuts, LoadOptions, Prompts, Surgery, TextBatch, Tower, UpdateSet, VisionLanguage, load_folder, load_model,
};
use ressa_pipeline::Executor;
use ressa_prune::structure::{StructureRequest, remove_groups};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions};
use ressa_store::{Environment, Store};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

fn logits(model: &dyn VisionLanguage, side: i64) -> Tensor {
    let pixels = (Tensor::arange(3 * side * side, (Kind::Float, Device::Cpu)) * 0.37).sin().view([1, 3, side, side]);
    let text = TextBatch::pad(&[vec![5, 9, 7]], 0, Device::Cpu);
    let prompts = Prompts {
        image: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        qformer: text.shallow_clone(),
        language: text,
    };
    let prefix = model.visual_prefix(&model.encode_images(&pixels), &prompts);
    model.force(Some(&prefix), &prompts.language, &[vec![6, 8]]).logits
}

/// The folder without the queries opens as a smaller model, answers as the model in memory that has lost them, and its processor asks for as many places.
#[test]
fn the_folder_has_fewer_queries() {
    let _no_grad = tch::no_grad_guard();
    for name in ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt"] {
        let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens");
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("source");
        fs::create_dir(&source).unwrap();
        for file in fs::read_dir(goldens.join(name)).unwrap().map(|file| file.unwrap().path()) {
            fs::copy(&file, source.join(file.file_name().unwrap())).unwrap();
        }
        fs::remove_file(source.join("golden.safetensors")).unwrap();
        let config = read_config(&source).unwrap();
        let many = config["num_query_tokens"].as_i64().unwrap();
        fs::write(source.join("processor_config.json"), json!({ "num_query_tokens": many }).to_string()).unwrap();
        let mut model = load_model(&source, &LoadOptions::on(Device::Cpu)).unwrap();
        let (tower, target) = (Tower::Connector, TowerStructure { queries: 2.0, ..TowerStructure::default() });
        let request =
            StructureRequest { tower, target, score: Some(GroupScore::Magnitude), block_score: None, seed: 0 };
        let cut = remove_groups(&mut model, &request, None, &[], &mut |_| {}).unwrap().cut;
        let kept = cut.queries.as_ref().unwrap().shallow_clone();
        let mut cuts = Cuts::default();
        cuts.insert(tower, cut);
        let (output, patterns) = (root.path().join("smaller"), Default::default());
        let request = ExportRequest {
            source: &source,
            output: &output,
            max_shard_size: None,
            container: Default::default(),
            patterns: &patterns,
            program: "a test",
            run: None,
        };
        let smaller = cuts.smaller().unwrap();
        assert!(smaller.has_fewer_queries());
        export_smaller::<LabError>(&request, &smaller, &mut |_, _| Ok(None), None, &mut |_, _| ()).unwrap();
        for file in ["config.json", "processor_config.json"] {
            let settings: Value = serde_json::from_slice(&fs::read(output.join(file)).unwrap()).unwrap();
            assert_eq!(settings["num_query_tokens"], 2, "{name} {file}");
        }
        assert_eq!(misfits(&Checkpoint::open(&output).unwrap()), Vec::<String>::new(), "{name}");
        let dense = logits(&model, model.config().image_size());
        model.keep_queries(&kept).unwrap();
        let side = model.config().image_size();
        let (expected, found) = (logits(&model, side), load_folder(&output, Device::Cpu).unwrap());
        assert_eq!((found.image_tokens(), logits(found.as_ref(), side).equal(&expected)), (2, true), "{name}");
        assert!(!expected.equal(&dense), "{name}");

        // As other programs ask: with as many image tokens in the text.
        let golden: Vec<(String, Tensor)> =
            Tensor::read_safetensors(goldens.join(name).join("golden.safetensors")).unwrap();
        let find = |wanted: &str| golden.iter().find(|(name, _)| name == wanted).map(|(_, tensor)| tensor);
        let ids = find("right.input_ids").unwrap();
        let fewer = |tensor: &Tensor| match tensor.size()[1] == ids.size()[1] {
            true => tensor.narrow(1, many - 2, tensor.size()[1] - many + 2),
            false => tensor.shallow_clone(),
        };
        let names = ["input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask"];
        let texts = names.map(|name| (name, find(&format!("right.{name}")).map(fewer)));
        let mut inputs: Vec<(&str, Tensor)> =
            texts.into_iter().filter_map(|(name, tensor)| Some((name, tensor?.contiguous()))).collect();
        inputs.push(("pixel_values", find("pixel_values").unwrap().shallow_clone()));
        let (given, answered) = (root.path().join("in.safetensors"), root.path().join("out.safetensors"));
        Tensor::write_safetensors(&inputs, &given).unwrap();
        let job = Forward { model: ModelAt { folder: output, compute: None }, inputs: given, output: answered };
        ressa_lab::run(&Job::Forward(job), Device::Cpu, &mut |_, _| ()).unwrap();
    }
}

/// A run that removes queries, trains those that are left, and removes more: what is exported computes what the stages say, and the full size is refused.
#[test]
fn a_run_trains_the_queries_that_are_left() {
    let root = tempfile::tempdir().unwrap();
    let open = || Store::open(root.path().join("store"), Vec::new()).unwrap();
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    run.dense.steps = Some(2);
    run.prune.metric = Metric::Magnitude;
    (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.0, 0.5);
    run.restore.method = RestoreMethod::SparseLora;
    (run.restore.steps, run.restore.batch, run.restore.samples) = (2, 4, 8);
    run.restore.connector.queries = true;
    run.restore.distill.weight = 0.5;
    (run.evaluate.questions, run.evaluate.images) = (6, 4);
    run.evaluate.tasks = vec![ressa_experiment::Task::Gqa];
    let step =
        |kind: &str, settings: Value| -> StepConfig { serde_json::from_value(json!({ kind: settings })).unwrap() };
    let removal = |name: &str, score: &str, left: u32| {
        let calibration = json!({ "images": 3, "questions": 1, "captions": 1 });
        step(
            "structure",
            json!({ "name": name, "score": score, "connector.queries": left, "calibration": calibration }),
        )
    };
    run.steps = vec![
        removal("first", "gradient", 7),
        step("prune", json!({ "name": "half" })),
        step("restore", json!({ "name": "one" })),
        removal("second", "wanda", 4),
        step("restore", json!({ "name": "two" })),
    ]
    .into();
    let nodes: Vec<StageNode> = stages(&canonical(&run)).into_iter().collect();
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let mut executor = Executor::new(open(), device, Environment::default());
    for node in &nodes {
        executor.execute(node, 1, &mut |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", node.stage.kind()));
        executor.store().publish(&node.key.hex(), 1).unwrap();
        assert_eq!(executor.verify(node).unwrap(), Vec::<String>::new(), "{}", node.stage.kind());
    }
    let of_kind = |kind: &str| nodes.iter().filter(|node| node.stage.kind() == kind).collect::<Vec<_>>();
    let store = open();
    let lefts: Vec<String> = (of_kind("structure").iter())
        .map(|node| store.require(&node.key.hex()).unwrap().manifest.result["left"]["queries"].to_string())
        .collect();
    assert_eq!(lefts, ["\"7 of 10\"", "\"4 of 10\""]);
    // Updates are of the queries that were left when they trained.
    let shapes: Vec<Vec<i64>> = (of_kind("adapt").iter())
        .map(|node| {
            let path = store.require(&node.key.hex()).unwrap().file("adapter.safetensors").unwrap();
            let updates = UpdateSet::load(&path).unwrap();
            updates.get("query_tokens").expect("trained").parameters()[0].1.size()
        })
        .collect();
    assert!(shapes[0].contains(&7) && shapes[1].contains(&4), "{shapes:?}");

    let inputs = &of_kind("evaluate")[0].inputs;
    let job = |full_size: bool, output: &str| {
        Job::Export(Box::new(Export {
            store: root.path().join("store"),
            shipped: Vec::new(),
            root: root.path().to_owned(),
            inputs: (**inputs).clone(),
            readings: Default::default(),
            output: root.path().join(output),
            max_shard_size: None,
            full_size,
            container: Default::default(),
            card: json!({ "base": "", "label": "", "run": "", "stages": [], "restored": null, "seed": null, "scores": [], "program": "" }),
        }))
    };
    let export = |full_size, output| ressa_lab::run(&job(full_size, output), Device::Cpu, &mut |_, _| ());
    let refused = export(true, "full").unwrap_err().to_string();
    assert!(refused.contains("removed learned queries") && refused.contains("--full-size"), "{refused}");
    export(false, "smaller").unwrap();

    // The same from what the stages published, rounded to the folder's type.
    let _no_grad = tch::no_grad_guard();
    let weights = executor.run_weights(inputs, &Default::default(), Path::new("")).unwrap();
    let mut expected = load_folder(&weights.source, Device::Cpu).unwrap();
    for weight in expected.weights_mut() {
        let stored = weight.base().to_kind(Kind::BFloat16);
        let value = weights.weight(weight.key(), &stored).unwrap().unwrap_or(stored);
        weight.set_base(value.to_kind(Kind::BFloat16).to_kind(weight.base().kind())).unwrap();
    }
    let smaller = weights.smaller().unwrap();
    let kept: Vec<i64> = smaller.columns["query_tokens"].iter().map(|&at| at as i64).collect();
    assert_eq!(kept.len(), 4);
    expected.keep_queries(&Tensor::from_slice(&kept)).unwrap();
    let found = load_folder(&root.path().join("smaller"), Device::Cpu).unwrap();
    assert!(logits(found.as_ref(), 48).equal(&logits(expected.as_ref(), 48)));
}

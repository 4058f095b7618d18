//! Models that read images at their own size: answers as transformers gives them, pruning block by block, folders that open again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::{
    Pattern,
    config::{Metric, PruneConfig, TowerPrune},
    job::{CalibrationRequest, CalibrationSource, Forward, Generate, Generated, Job, ModelAt, PromptRequest, Prune},
};
use ressa_lab::run;
use ressa_models::{LoadOptions, Surgery, load_model};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const FOLDERS: [&str; 14] = [
    "qwen2-vl",
    "qwen2-vl-parts",
    "qwen2_5-vl",
    "qwen2_5-vl-parts",
    "smolvlm",
    "smolvlm-thirds",
    "idefics3",
    "idefics3-whole",
    "internvl",
    "internvl-llama",
    "internvl-one",
    "llava-next",
    "llava-next-layers",
    "llava-next-full",
];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens")
}

fn picture(name: &str) -> PathBuf {
    goldens().join(format!("images/{name}.png"))
}

fn at(name: &str) -> ModelAt {
    ModelAt { folder: goldens().join(name), compute: None }
}

#[test]
fn questions_about_pictures_of_different_sizes_are_answered_in_one_job() {
    for name in FOLDERS {
        let text: Value = serde_json::from_slice(&fs::read(goldens().join(name).join("golden.json")).unwrap()).unwrap();
        for (search, options) in text["searches"].as_object().unwrap() {
            let answers = text["generated"][search].as_object().unwrap();
            let asked = |key: &String| {
                let (shown, prompt) = key.split_once(": ").unwrap();
                PromptRequest { image: picture(shown), prompt: prompt.to_owned() }
            };
            let job = Generate {
                model: at(name),
                requests: answers.keys().map(asked).collect(),
                search: serde_json::from_value(options.clone()).unwrap(),
            };
            let found = run(&Job::Generate(job), Device::Cpu, &mut |_, _| ()).unwrap();
            let found: Vec<Generated> = serde_json::from_value(found).unwrap();
            for ((key, wanted), found) in answers.iter().zip(found) {
                let wanted: Vec<u32> = serde_json::from_value(wanted.clone()).unwrap();
                assert_eq!(found.tokens, wanted, "{name} {search} {key}");
            }
        }
    }
}

fn pruned(name: &str, output: PathBuf, metric: Metric, spill: bool) -> Result<Value, ressa_lab::LabError> {
    let half = TowerPrune { sparsity: 0.5, ..TowerPrune::default() };
    let (vision, connector, language) = (half.clone(), half.clone(), half);
    // Its heads make 30 inputs, which groups of four do not divide.
    let pattern = match name {
        "llava-next-layers" => Pattern::Unstructured,
        _ => Pattern::NOfM { keep: 2, of: 4 },
    };
    let ask = |shown: &str, prompt: &str, answer: &str| CalibrationRequest {
        image: picture(shown),
        prompt: prompt.to_owned(),
        answer: answer.to_owned(),
    };
    let job = Prune {
        model: at(name),
        prune: PruneConfig { metric, pattern, vision, connector, language, ..PruneConfig::default() },
        calibration: CalibrationSource::Listed(vec![
            ask("wide", "what is red ?", "a circle"),
            ask("tall", "what is red ?", "a circle"),
            ask("wide", "is it on the left", "yes"),
        ]),
        samples: None,
        seed: 0,
        memory_limit: None,
        spill,
        device_activations: 0,
        checkpoint_after: 0.0,
        output,
    };
    run(&Job::Prune(Box::new(job)), Device::Cpu, &mut |_, _| ())
}

#[test]
fn folders_are_pruned_block_by_block_with_activations_in_memory_or_not() {
    for name in FOLDERS {
        let root = tempfile::tempdir().unwrap();
        for metric in [Metric::Wanda, Metric::SparseGpt] {
            let folders = [false, true].map(|spill| {
                let output = root.path().join(format!("{}-{spill}", metric.name()));
                pruned(name, output.clone(), metric, spill).unwrap_or_else(|e| panic!("{name}: {e}"));
                output
            });
            let weights = |folder: &PathBuf| fs::read(folder.join("model.safetensors")).unwrap();
            assert!(weights(&folders[0]) == weights(&folders[1]), "{name} {}", metric.name());
            let model = load_model(&folders[0], &LoadOptions::on(Device::Cpu)).unwrap();
            assert!(model.linears().len() >= 20);
            for (id, linear) in model.linears() {
                let zeros = linear.weight().eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
                assert!((zeros - 0.5).abs() < 1e-3, "{name} {}: {zeros}", id.name);
            }
        }
        // Names and settings are the source's.
        let header = |folder: &Path| {
            let file = ressa_checkpoint::File::open(&folder.join("model.safetensors")).unwrap();
            file.entries().iter().map(|entry| (entry.name.clone(), entry.shape.clone())).collect::<Vec<_>>()
        };
        let output = root.path().join("wanda-false");
        assert_eq!(header(&goldens().join(name)), header(&output));
        for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"] {
            assert!(output.join(file).is_file(), "{file}");
        }
    }
}

#[test]
fn a_strip_is_refused_with_its_file() {
    let root = tempfile::tempdir().unwrap();
    let strip = root.path().join("strip.bmp");
    let mut bytes = b"BM".to_vec();
    for value in [54 + 4 * 30_000, 0, 54, 40, 1, 30_000, 1 | 24 << 16, 0, 0, 0, 0, 0, 0u32] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.resize(54 + 4 * 30_000, 9);
    fs::write(&strip, bytes).unwrap();
    let requests = vec![PromptRequest { image: strip, prompt: "what is red ?".to_owned() }];
    let job = Generate { model: at("qwen2-vl"), requests, search: Default::default() };
    let error = run(&Job::Generate(job), Device::Cpu, &mut |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("strip.bmp") && error.contains("30000 times"), "{error}");
}

#[test]
fn a_forward_pass_takes_the_tensors_of_the_processor_by_their_names() {
    let root = tempfile::tempdir().unwrap();
    let (inputs, output) = (root.path().join("in.safetensors"), root.path().join("out.safetensors"));
    let pixels = Tensor::ones([24, 96], (Kind::Float, Device::Cpu));
    let grid = Tensor::from_slice(&[1i64, 4, 6]).view([1, 3]);
    let ids = Tensor::from_slice(&[3i64, 5, 5, 5, 5, 5, 5, 4, 9]).view([1, 9]);
    let mask = Tensor::ones_like(&ids);
    let named = [("pixel_values", &pixels), ("image_grid_thw", &grid), ("input_ids", &ids), ("attention_mask", &mask)];
    let run = |given: &[(&str, &Tensor)]| {
        Tensor::write_safetensors(given, &inputs).unwrap();
        let job = Forward { model: at("qwen2_5-vl"), inputs: inputs.clone(), output: output.clone() };
        run(&Job::Forward(job), Device::Cpu, &mut |_, _| ())
    };
    run(&named).unwrap();
    let found: Vec<(String, Tensor)> = Tensor::read_safetensors(&output).unwrap();
    let logits = found.iter().find(|(name, _)| name == "logits").unwrap();
    assert_eq!(logits.1.size(), [1, 9, 40]);
    let missing: Vec<_> = named.iter().filter(|(name, _)| *name != "image_grid_thw").copied().collect();
    let error = run(&missing).unwrap_err().to_string();
    assert!(error.contains("`image_grid_thw`"), "{error}");
}

#[test]
fn a_forward_pass_over_tiles_takes_which_of_their_pixels_are_real() {
    let root = tempfile::tempdir().unwrap();
    let (inputs, output) = (root.path().join("in.safetensors"), root.path().join("out.safetensors"));
    let golden: Vec<(String, Tensor)> = Tensor::read_safetensors(goldens().join("smolvlm/golden.safetensors")).unwrap();
    let get = |name: &str| golden.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor).unwrap();
    let ids = get("padded.input_ids");
    let mask = Tensor::ones_like(ids);
    let named = [
        ("pixel_values", get("padded.pixel_values")),
        ("pixel_attention_mask", get("padded.pixel_attention_mask")),
        ("input_ids", ids),
        ("attention_mask", &mask),
    ];
    let run = |given: &[(&str, &Tensor)]| {
        Tensor::write_safetensors(given, &inputs).unwrap();
        let job = Forward { model: at("smolvlm"), inputs: inputs.clone(), output: output.clone() };
        run(&Job::Forward(job), Device::Cpu, &mut |_, _| ()).unwrap();
        let found: Vec<(String, Tensor)> = Tensor::read_safetensors(&output).unwrap();
        found.into_iter().find(|(name, _)| name == "logits").unwrap().1
    };
    let apart = |logits: &Tensor| {
        let wanted = get("padded.logits");
        (logits - wanted).abs().max().double_value(&[]) / wanted.abs().max().double_value(&[])
    };
    assert!(apart(&run(&named)) < 3e-5);
    let whole: Vec<_> = named.iter().filter(|(name, _)| *name != "pixel_attention_mask").copied().collect();
    assert!(apart(&run(&whole)) > 1e-3, "padding counts");
}

#[test]
fn a_forward_pass_over_tiles_without_padding_takes_the_sizes_of_the_images() {
    let root = tempfile::tempdir().unwrap();
    let (inputs, output) = (root.path().join("in.safetensors"), root.path().join("out.safetensors"));
    let file = goldens().join("llava-next-full/golden.safetensors");
    let golden: Vec<(String, Tensor)> = Tensor::read_safetensors(file).unwrap();
    let get = |name: &str| golden.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor).unwrap();
    let tiles = |picture: &str| (get(&format!("levels.{picture}")).to_kind(Kind::Float) / 255.0 - 0.5) / 0.5;
    let pixels = Tensor::cat(&["wide", "tall", "wide"].map(tiles), 0);
    let sizes = Tensor::from_slice(&[38i64, 61, 26, 11, 38, 61]).view([3, 2]);
    let named = [
        ("pixel_values", &pixels),
        ("image_sizes", &sizes),
        ("input_ids", get("input_ids")),
        ("attention_mask", get("attention_mask")),
        ("labels", get("labels")),
    ];
    let run = |given: &[(&str, &Tensor)]| {
        Tensor::write_safetensors(given, &inputs).unwrap();
        let job = Forward { model: at("llava-next-full"), inputs: inputs.clone(), output: output.clone() };
        run(&Job::Forward(job), Device::Cpu, &mut |_, _| ())
    };
    let loss = run(&named).unwrap()["loss"].as_f64().unwrap();
    assert!((loss - get("loss").double_value(&[0])).abs() < 1e-4, "{loss}");
    let missing: Vec<_> = named.iter().filter(|(name, _)| *name != "image_sizes").copied().collect();
    let error = run(&missing).unwrap_err().to_string();
    assert!(error.contains("`image_sizes`"), "{error}");
}

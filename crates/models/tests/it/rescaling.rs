//! Planted channel scales: other weights, the same function to the bit.

use std::{fs, path::Path};

use ressa_experiment::job::Compute;
use ressa_models::{
    Blip2Config, Infer, LoadOptions, Model, ModelError, Rescaled, Retrieve, Search, Spread, Storage, Surgery,
    load_model,
    presets::{random_tensors, tiny_blip2_flant5, tiny_blip2_opt, tiny_flant5, tiny_retrieval, tiny_vicuna},
    rescale_folder, save_folder,
};
use ressa_runtime::{DeviceChoice, RuntimeOptions};
use tch::{Device, Tensor};

use crate::common::{VOCABULARY, answers, instructions, pixels, prompts};

fn everything() -> [(&'static str, Blip2Config); 6] {
    [
        ("flant5", tiny_flant5(VOCABULARY)),
        ("vicuna", tiny_vicuna(VOCABULARY)),
        ("blip2-flant5", tiny_blip2_flant5(VOCABULARY)),
        ("blip2-opt", tiny_blip2_opt(VOCABULARY, true)),
        ("blip2-opt, norms after", tiny_blip2_opt(VOCABULARY, false)),
        ("retrieval", tiny_retrieval(VOCABULARY)),
    ]
}

fn written(config: &Blip2Config, storage: Storage) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("source");
    save_folder(&source, config, &random_tensors(config, 3).unwrap(), storage).unwrap();
    scratch
}

fn rescale(home: &Path, name: &str, deviation: f64, seed: u64) -> Result<Rescaled, ModelError> {
    rescale_folder(&home.join("source"), &home.join(name), Spread { deviation, seed }, &mut |_, _| {})
}

fn load(folder: &Path, compute: Compute) -> Model {
    load_model(folder, &LoadOptions { compute, ..LoadOptions::on(Device::Cpu) }).unwrap()
}

/// Everything the model computes of some prompts: logits, or matching scores, and what it says.
fn outputs(model: &Model) -> (Tensor, Vec<Vec<u32>>) {
    let (images, texts) = instructions();
    let batch = prompts(&images, &texts);
    let features = model.encode_images(&pixels(2));
    if !model.writes() {
        return (model.matching_scores(&features, &batch.image, &batch.qformer).unwrap(), Vec::new());
    }
    let prefix = model.visual_prefix(&features, &batch);
    let said =
        model.generate(&prefix, &batch.language, &Search { beams: 3, max_new_tokens: 5, ..Search::default() }).unwrap();
    let logits = model.force(Some(&prefix), &batch.language, &answers()).logits;
    (logits, said.into_iter().map(|answer| answer.tokens).collect())
}

#[test]
fn every_family_computes_the_same_bits() {
    ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 }).unwrap();
    let _no_grad = tch::no_grad_guard();
    for (name, config) in everything() {
        for storage in [Storage::F32, Storage::Bf16] {
            let home = written(&config, storage);
            let rescaled = rescale(home.path(), "rescaled", 1.5, 0).unwrap();
            for compute in [Compute::Float32, Compute::Bfloat16] {
                let [one, two] = ["source", "rescaled"].map(|folder| load(&home.path().join(folder), compute));
                let ((logits, said), (again, resaid)) = (outputs(&one), outputs(&two));
                assert!(logits.equal(&again), "{name} {storage:?} {compute:?}");
                assert_eq!(said, resaid, "{name} {storage:?} {compute:?}");
            }
            // Every linear behind a norm is another one, and no other is.
            let [one, two] = ["source", "rescaled"].map(|folder| load(&home.path().join(folder), Compute::Float32));
            let feeds = one.feeds();
            assert_eq!(feeds.len(), rescaled.norms, "{name}");
            for ((id, before), (_, after)) in one.linears().into_iter().zip(two.linears()) {
                let behind = feeds.iter().any(|feed| feed.readers.contains(&id.name));
                assert_eq!(before.weight().equal(after.weight()), !behind, "{name} {}", id.name);
            }
        }
    }
}

/// Two blocks of everything: which norms have nothing but prunable linears behind them.
#[test]
fn norms_feed_what_their_architecture_says() {
    let count = |config: &Blip2Config| {
        let feeds = ressa_models::rescale::feeds(config).unwrap();
        let readers: usize = feeds.iter().map(|feed| feed.readers.len()).sum();
        (feeds.len(), readers)
    };
    // Two norms per ViT block, a linear behind each.
    let vision = (4, 4);
    let with = |norms, readers| (vision.0 + norms, vision.1 + readers);
    let found = everything().map(|(_, config)| count(&config));
    // Encoder 2 x (qkv, wi), its last norm (k, v of both cross-attentions), decoder 2 x (qkv, q, wi).
    let t5 = with(4 + 1 + 6, 10 + 4 + 12);
    assert_eq!(found, [t5, with(4, 10), t5, with(4, 8), vision, vision]);
    let feeds = ressa_models::rescale::feeds(&tiny_flant5(VOCABULARY)).unwrap();
    let last = feeds.iter().find(|feed| feed.norm == "language_model.encoder.final_layer_norm").unwrap();
    assert_eq!(last.readers.len(), 4);
    assert!(last.readers.iter().all(|reader| reader.contains(".EncDecAttention.")));
}

#[test]
fn scales_are_drawn_as_asked_and_nothing_else_changes() {
    let home = written(&tiny_vicuna(VOCABULARY), Storage::Bf16);
    let bytes = |folder: &str, file: &str| fs::read(home.path().join(folder).join(file)).unwrap();
    let none = rescale(home.path(), "none", 0.0, 5).unwrap();
    assert_eq!(none.deviation, 0.0);
    for file in fs::read_dir(home.path().join("source")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        assert_eq!(bytes("source", &file), bytes("none", &file), "{file}");
    }

    let sigma = 1.5;
    let first = rescale(home.path(), "first", sigma, 5).unwrap();
    assert!((first.deviation - sigma).abs() < 0.15, "{first:?}");
    assert_eq!(rescale(home.path(), "again", sigma, 5).unwrap(), first);
    rescale(home.path(), "other", sigma, 6).unwrap();
    let weights = |folder| bytes(folder, "model.safetensors");
    assert_eq!(weights("first"), weights("again"));
    assert_ne!(weights("first"), weights("other"));
    // A norm of the same width elsewhere has scales of its own.
    let [one, two] = ["source", "first"].map(|folder| load(&home.path().join(folder), Compute::Float32).tensors());
    let scales = |norm: &str| &two[norm] / &one[norm];
    let [a, b] = [0, 1].map(|i| scales(&format!("language_model.model.layers.{i}.input_layernorm.weight")));
    assert!(!a.equal(&b));
    assert!((a.log2() - a.log2().round()).abs().max().double_value(&[]) == 0.0);
    assert_eq!(bytes("first", "config.json"), bytes("source", "config.json"));
}

#[test]
fn values_that_cannot_be_scaled_exactly_are_refused() {
    let home = written(&tiny_flant5(VOCABULARY), Storage::F32);
    let error = rescale(home.path(), "wild", 100.0, 0).unwrap_err().to_string();
    assert!(error.contains("`model.channel-spread`") && error.contains("F32"), "{error}");
    assert!(!home.path().join("wild").exists());
    fs::remove_file(home.path().join("source/config.json")).unwrap();
    assert!(rescale(home.path(), "lost", 0.7, 0).unwrap_err().to_string().contains("config.json"));
}

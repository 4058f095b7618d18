//! Weights from disk: mapped or converted, tied or copied, sound or not.

use std::{fs, path::Path};

use ressa_experiment::job::Compute;
use ressa_models::{
    Blip2Config, InBlocks, Infer, LoadOptions, Lora, LoraParts, Model, ModelError, Retrieve, SparseLora, Storage,
    Surgery, TensorMap, Update, load_model,
    presets::{random_tensors, tiny_blip2_flant5, tiny_blip2_opt, tiny_flant5, tiny_retrieval, tiny_vicuna},
    save_folder,
};
use ressa_testkit::assert_close;
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::common::{VOCABULARY, answers, instructions, pixels, prompts};

fn everything() -> Vec<Blip2Config> {
    vec![
        tiny_flant5(VOCABULARY),
        tiny_vicuna(VOCABULARY),
        tiny_blip2_flant5(VOCABULARY),
        tiny_blip2_opt(VOCABULARY, true),
        tiny_blip2_opt(VOCABULARY, false),
        tiny_retrieval(VOCABULARY),
    ]
}

fn written(config: &Blip2Config, storage: Storage) -> (tempfile::TempDir, TensorMap) {
    let scratch = tempfile::tempdir().expect("a place for files");
    let tensors = random_tensors(config, 3).expect("presets are sound");
    save_folder(scratch.path(), config, &tensors, storage).expect("a place for files");
    (scratch, tensors)
}

fn load(folder: &Path, compute: Compute, convert_up_to: u64) -> Result<Model, ModelError> {
    load_model(folder, &LoadOptions { compute, convert_up_to, ..LoadOptions::on(Device::Cpu) })
}

/// Everything the model computes of some prompts, end to end.
fn outputs(model: &Model) -> Tensor {
    let (images, texts) = instructions();
    let batch = prompts(&images, &texts);
    let features = model.encode_images(&pixels(2));
    if model.blocks(ressa_models::Tower::Language) == 0 {
        return model.matching_scores(&features, &batch.image, &batch.qformer).expect("a retrieval model");
    }
    model.force(Some(&model.visual_prefix(&features, &batch)), &batch.language, &answers()).logits
}

#[test]
fn weights_left_as_stored_compute_the_same_bits_as_converted_ones() {
    let _no_grad = tch::no_grad_guard();
    for config in everything() {
        let (folder, _) = written(&config, Storage::Bf16);
        let mut mapped = load(folder.path(), Compute::Float32, 0).unwrap();
        let mut converted = load(folder.path(), Compute::Float32, u64::MAX).unwrap();
        let kinds = |model: &Model| model.linears().iter().map(|(_, l)| l.weight().kind()).collect::<Vec<_>>();
        assert!(kinds(&mapped).iter().all(|&kind| kind == Kind::BFloat16));
        assert!(kinds(&converted).iter().all(|&kind| kind == Kind::Float));
        assert!(outputs(&mapped).equal(&outputs(&converted)), "{:?}", config.family());
        // With masks and adapters, baked or not: rounded once, in f32.
        for model in [&mut mapped, &mut converted] {
            for (at, (_, linear)) in model.linears_mut().into_iter().enumerate() {
                let (rows, columns) = linear.shape();
                linear.set_mask(Some(linear.weight().to_kind(Kind::Float).abs().gt(0.05))).unwrap();
                let (a, b) = (
                    Tensor::full([2, columns], 0.01, (Kind::Float, Device::Cpu)),
                    Tensor::full([rows, 2], 0.02, (Kind::Float, Device::Cpu)),
                );
                let parts = LoraParts { a, b, scale: 1.5 };
                let update: Box<dyn Update> =
                    if at % 4 == 0 { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) };
                linear.set_update((at % 2 == 0).then_some(update)).unwrap();
            }
        }
        let before = outputs(&mapped);
        assert!(before.equal(&outputs(&converted)), "{:?}", config.family());
        assert!(mapped.shallow_clone().encode_images(&pixels(1)).equal(&mapped.encode_images(&pixels(1))));
        for (_, linear) in mapped.linears_mut() {
            linear.matrix_mut().bake().unwrap();
        }
        assert!(outputs(&mapped).equal(&before));
    }
}

#[test]
fn half_types_compute_what_f32_computes_up_to_their_rounding() {
    let _no_grad = tch::no_grad_guard();
    for config in everything() {
        let (folder, _) = written(&config, Storage::Bf16);
        let exact = outputs(&load(folder.path(), Compute::Float32, 0).unwrap());
        // Some dozens of roundings of 2^-9 and 2^-12 in a row; how they add up differs between processors.
        for (compute, tolerance) in [(Compute::Bfloat16, 0.12), (Compute::Float16, 2e-2)] {
            let model = load(folder.path(), compute, 0).unwrap();
            assert_close(&format!("{compute:?}"), &outputs(&model).to_kind(Kind::Float), &exact, tolerance);
        }
    }
}

#[test]
fn tensors_outlive_their_model_and_their_folder_and_writing_reaches_no_file() {
    let config = tiny_vicuna(VOCABULARY);
    let (folder, tensors) = written(&config, Storage::F32);
    let file = folder.path().join("model.safetensors");
    let before = fs::read(&file).unwrap();
    let model = load(folder.path(), Compute::Float32, 0).unwrap();
    let held = model.tensors();
    let name = "language_model.model.norm.weight";
    let _ = held[name].shallow_clone().fill_(7.0);
    assert_eq!(fs::read(&file).unwrap(), before);
    drop(model);
    drop(folder);
    assert!(held.iter().filter(|(other, _)| *other != name).all(|(name, tensor)| tensor.equal(&tensors[name])));
    assert_eq!(held[name].mean(Kind::Float).double_value(&[]), 7.0);
}

#[test]
fn tensors_that_are_not_aligned_are_read_nevertheless() {
    let config = tiny_flant5(VOCABULARY);
    let (folder, tensors) = written(&config, Storage::F32);
    let file = folder.path().join("model.safetensors");
    let bytes = fs::read(&file).unwrap();
    let (length, rest) = bytes.split_at(8);
    let header = u64::from_le_bytes(length.try_into().unwrap());
    let (json, data) = rest.split_at(header as usize);
    fs::write(&file, [&(header + 1).to_le_bytes(), json, b" ", data].concat()).unwrap();
    let model = load(folder.path(), Compute::Float32, 0).unwrap();
    assert!(model.tensors().iter().all(|(name, tensor)| tensor.equal(&tensors[name])));
}

#[test]
fn copies_of_tied_tensors_must_be_copies() {
    for (config, original, copies) in [
        (
            tiny_flant5(VOCABULARY),
            "language_model.shared.weight",
            &["language_model.encoder.embed_tokens.weight", "language_model.decoder.embed_tokens.weight"][..],
        ),
        (
            tiny_blip2_opt(VOCABULARY, true),
            "language_model.model.decoder.embed_tokens.weight",
            &["language_model.lm_head.weight"][..],
        ),
    ] {
        let (folder, mut tensors) = written(&config, Storage::F32);
        let save = |tensors: &TensorMap| save_folder(folder.path(), &config, tensors, Storage::F32).unwrap();
        for copy in copies {
            tensors.insert((*copy).to_owned(), tensors[original].copy());
        }
        save(&tensors);
        assert!(load(folder.path(), Compute::Float32, 0).is_ok());
        for copy in copies {
            let mut spoilt: TensorMap = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
            spoilt.insert((*copy).to_owned(), &tensors[original] + 0.001);
            save(&spoilt);
            let error = load(folder.path(), Compute::Float32, 0).err().expect("it differs").to_string();
            assert!(error.contains(copy) && error.contains(original), "{error}");
        }
    }
}

/// `tie_word_embeddings: true` means a shared, scaled head where the checkpoint has one table, and nothing where it has two.
#[test]
fn a_head_of_its_own_is_used_whatever_the_configuration_says_of_tying() {
    let _no_grad = tch::no_grad_guard();
    let config = tiny_flant5(VOCABULARY);
    let mut tensors = random_tensors(&config, 3).unwrap();
    let separate = outputs(&Model::from_tensors(&config, &tensors).unwrap());
    let mut tied = serde_json::to_value(&config).unwrap();
    tied["text_config"]["tie_word_embeddings"] = json!(true);
    let tied: Blip2Config = serde_json::from_value(tied).unwrap();
    assert!(outputs(&Model::from_tensors(&tied, &tensors).unwrap()).equal(&separate));

    let shared = tensors["language_model.shared.weight"].copy();
    tensors.insert("language_model.lm_head.weight".into(), shared);
    let unscaled = outputs(&Model::from_tensors(&config, &tensors).unwrap());
    let scaled = outputs(&Model::from_tensors(&tied, &tensors).unwrap());
    assert_close("scaled by width^-1/2", &(scaled.shallow_clone() * 32f64.sqrt()), &unscaled, 1e-5);
    tensors.remove("language_model.lm_head.weight");
    assert!(outputs(&Model::from_tensors(&tied, &tensors).unwrap()).equal(&scaled));
    let missing = Model::from_tensors(&config, &tensors).err().expect("a head is asked for");
    assert!(matches!(missing, ModelError::Missing(name) if name == "language_model.lm_head.weight"));
}

#[test]
fn weights_that_are_no_numbers_are_named_and_counted() {
    let config = tiny_blip2_opt(VOCABULARY, true);
    for storage in [Storage::F32, Storage::Bf16] {
        let (folder, mut tensors) = written(&config, storage);
        let name = "language_model.model.decoder.layers.1.fc2.weight";
        let spoilt = tensors[name].copy();
        let _ = spoilt.get(3).narrow(0, 0, 2).fill_(f64::NAN);
        let _ = spoilt.get(5).narrow(0, 7, 1).fill_(f64::NEG_INFINITY);
        tensors.insert(name.to_owned(), spoilt);
        save_folder(folder.path(), &config, &tensors, storage).unwrap();
        let error = load(folder.path(), Compute::Float32, 0).err().expect("it is spoilt");
        assert!(matches!(&error, ModelError::NotFinite { name: found, count: 3 } if found == name), "{error}");
    }
}

#[test]
fn weights_of_whole_numbers_and_unknown_networks_are_refused() {
    let config = tiny_retrieval(VOCABULARY);
    let (folder, mut tensors) = written(&config, Storage::F32);
    let whole = tensors["itm_head.weight"].to_kind(Kind::Int64);
    tensors.insert("itm_head.weight".into(), whole);
    let all: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Tensor::write_safetensors(&all, folder.path().join("model.safetensors")).unwrap();
    let error = load(folder.path(), Compute::Float32, 0).err().expect("whole numbers").to_string();
    assert_eq!(error, "tensor `itm_head.weight` has type `I64`; weights must be F32, F16, BF16 or F64");

    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let classes = "`InstructBlipForConditionalGeneration`";
    for (from, to, supported) in [
        ("Blip2ForImageTextRetrieval", "Blip2TextModelWithProjection", classes),
        ("\"blip-2\"", "\"flamingo\"", "instructblip, blip-2, llava"),
    ] {
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let error = load(folder.path(), Compute::Float32, 0).err().expect("unknown").to_string();
        assert!(error.contains(to.trim_matches('"')) && error.contains(supported), "{error}");
    }
}

//! Random checkpoints: the same bytes each time, folders that open, and nothing left behind where they cannot be written.

use std::{collections::BTreeMap, fs, path::Path};

use ressa_data::Processor;
use ressa_experiment::job::{Compute, RandomCheckpoint};
use ressa_lab::{LabError, random::random_checkpoint};
use ressa_models::{LoadOptions, Surgery, load_model};
use tch::{Device, Kind};

/// A configuration of the models crate's goldens.
fn like(family: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/tests/goldens")
        .join(family)
        .join("config.json")
        .display()
        .to_string()
}

fn write(like: &str, output: &Path, seed: u64, dtype: Compute) -> Result<serde_json::Value, LabError> {
    let job = RandomCheckpoint { like: like.to_owned(), output: output.to_owned(), seed, dtype };
    random_checkpoint(&job, &mut |_, _| ())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()) {
        let name = item.file_name().unwrap().to_string_lossy().into_owned();
        if item.is_dir() {
            files.extend(self::files(&item).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(item).unwrap());
        }
    }
    files
}

#[test]
fn a_folder_of_every_family_opens_and_is_the_same_each_time() {
    let root = tempfile::tempdir().unwrap();
    let blip2 = ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt", "blip2-itm"];
    for family in blip2.into_iter().chain([
        "qwen2-vl",
        "qwen2_5-vl-parts",
        "llava-full",
        "llava-siglip",
        "llava-dinov2-gated",
        "llava-layers",
        "llava-next-layers",
        "llava-next-full",
        "smolvlm",
        "internvl",
    ]) {
        for dtype in [Compute::Float32, Compute::Bfloat16, Compute::Float16] {
            let folder = root.path().join(format!("{family}-{}", dtype.name()));
            let summary = write(&like(family), &folder, 1, dtype).unwrap();
            let model = load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap();
            let parameters: usize = model.tensors().values().map(|tensor| tensor.numel()).sum();
            assert_eq!(summary["parameters"].as_u64(), Some(parameters as u64), "{family}");
            Processor::load(&folder).unwrap();
            let again = root.path().join("again");
            write(&like(family), &again, 1, dtype).unwrap();
            assert!(files(&folder) == files(&again), "{family}: other bytes from the same seed");
            fs::remove_dir_all(&again).unwrap();
        }
    }
}

#[test]
fn values_are_spread_as_they_should_be_and_depend_on_the_seed() {
    let root = tempfile::tempdir().unwrap();
    let tensors = |seed: u64| {
        let folder = root.path().join(seed.to_string());
        write(&like("instructblip-vicuna"), &folder, seed, Compute::Float32).unwrap();
        load_model(&folder, &LoadOptions::on(Device::Cpu)).unwrap().tensors()
    };
    let (first, second) = (tensors(1), tensors(2));
    let head = &first["language_model.lm_head.weight"];
    let scaled = head * (head.size()[1] as f64).sqrt();
    assert!(scaled.mean(Kind::Float).double_value(&[]).abs() < 0.1);
    assert!((scaled.std(true).double_value(&[]) - 1.0).abs() < 0.1);
    assert!(scaled.abs().max().double_value(&[]) > 2.0, "not just coin flips");
    assert!(!head.equal(&second["language_model.lm_head.weight"]));
    assert!(!head.equal(&first["language_model.model.embed_tokens.weight"]), "two tensors of one shape are the same");
    assert!(first["language_model.model.norm.weight"].eq(1.0).all().int64_value(&[]) == 1);
}

#[test]
fn what_is_in_the_way_stays_and_what_is_begun_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let full = root.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.txt"), "years of work").unwrap();
    let error = write(&like("blip2-opt"), &full, 0, Compute::Float32).unwrap_err().to_string();
    assert!(error.contains("something already"), "{error}");
    assert_eq!(files(&full).len(), 1);

    let error = write("instructblip-flan-t5-xs", &full, 0, Compute::Float32).unwrap_err().to_string();
    assert!(error.contains("`instructblip-flan-t5-xs`") && error.contains("instructblip-flan-t5-xl"), "{error}");

    // Sixteen million words of a million numbers each: refused before anything is written.
    let mut vast: serde_json::Value = serde_json::from_slice(&fs::read(like("blip2-opt")).unwrap()).unwrap();
    (vast["text_config"]["vocab_size"], vast["text_config"]["word_embed_proj_dim"]) =
        ((1 << 24).into(), (1 << 20).into());
    fs::write(root.path().join("vast.json"), vast.to_string()).unwrap();
    let target = root.path().join("vast");
    let error = write(&root.path().join("vast.json").display().to_string(), &target, 0, Compute::Float32).unwrap_err();
    assert_eq!(error.kind(), ressa_experiment::protocol::FailureKind::Storage, "{error}");
    assert!(error.to_string().contains("bytes are needed and"), "{error}");
    assert!(!target.exists() && !root.path().join(".vast.draft").exists());

    // What a killed run left behind does not stay in the way.
    fs::create_dir(root.path().join(".small.draft")).unwrap();
    fs::write(root.path().join(".small.draft/model.safetensors"), "half").unwrap();
    write(&like("blip2-opt"), &root.path().join("small"), 0, Compute::Float32).unwrap();
    assert!(!root.path().join(".small.draft").exists());

    // A file where a folder is to be.
    let error = write(&like("blip2-opt"), &full.join("thesis.txt/model"), 0, Compute::Float32).unwrap_err();
    assert_eq!(error.kind(), ressa_experiment::protocol::FailureKind::Storage, "{error}");
}

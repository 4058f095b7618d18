//! Model folders, mask files, adapter files: what is written is read, and what is wrong is named.

use std::{fs, path::Path};

use ressa_models::{
    Infer, LoadOptions, Lora, LoraParts, MaskSet, Model, ModelError, SparseLora, Storage, Surgery, Update, UpdateSet,
    load_folder, load_model,
    presets::{random_tensors, tiny_flant5, tiny_vicuna},
    save_folder,
};
use tch::{Device, Kind, Tensor};

use crate::common::{models, pixels};

fn read(folder: &Path, file: &str) -> Vec<u8> {
    fs::read(folder.join(file)).expect("the file was written")
}

#[test]
fn save_load_save_gives_the_same_bytes() {
    let scratch = tempfile::tempdir().unwrap();
    for (name, config) in [("t5", tiny_flant5(40)), ("llama", tiny_vicuna(40))] {
        for storage in [Storage::F32, Storage::Bf16] {
            let tensors = random_tensors(&config, 3).unwrap();
            let (first, second) = (
                scratch.path().join(format!("{name}-{storage:?}-1")),
                scratch.path().join(format!("{name}-{storage:?}-2")),
            );
            save_folder(&first, &config, &tensors, storage).unwrap();
            let loaded = load_model(&first, &LoadOptions::on(Device::Cpu)).unwrap();
            assert_eq!(loaded.config().text_config(), &config.text_config);
            assert_eq!(loaded.config().rest()["dtype"], storage.name());
            save_folder(&second, loaded.config(), &loaded.tensors(), storage).unwrap();
            for file in ["config.json", "generation_config.json", "model.safetensors"] {
                assert_eq!(read(&first, file), read(&second, file), "{name} {storage:?} {file}");
            }
            if storage == Storage::F32 {
                let original = Model::from_tensors(&config, &tensors).unwrap();
                assert_eq!(loaded.special_tokens(), original.special_tokens());
                let _no_grad = tch::no_grad_guard();
                assert!(loaded.encode_images(&pixels(1)).equal(&original.encode_images(&pixels(1))));
            }
        }
    }
}

/// A folder that may be spoilt.
fn folder() -> (tempfile::TempDir, ressa_models::Blip2Config, ressa_models::TensorMap) {
    let scratch = tempfile::tempdir().unwrap();
    let config = tiny_flant5(40);
    let tensors = random_tensors(&config, 3).unwrap();
    save_folder(scratch.path(), &config, &tensors, Storage::F32).unwrap();
    (scratch, config, tensors)
}

fn load_error(folder: &Path) -> ModelError {
    load_folder(folder, Device::Cpu).err().expect("the folder is spoilt")
}

#[test]
fn tensors_missing_misshapen_or_unasked_for_are_named() {
    let (scratch, config, mut tensors) = folder();
    let taken = tensors.remove("language_model.shared.weight").unwrap();
    save_folder(scratch.path(), &config, &tensors, Storage::F32).unwrap();
    assert!(matches!(load_error(scratch.path()), ModelError::Missing(name) if name == "language_model.shared.weight"));

    tensors.insert("language_model.shared.weight".into(), taken.tr());
    save_folder(scratch.path(), &config, &tensors, Storage::F32).unwrap();
    assert!(
        matches!(load_error(scratch.path()), ModelError::Shape { found, wanted, .. } if found == [32, 40] && wanted == [40, 32])
    );

    tensors.insert("language_model.shared.weight".into(), taken);
    tensors.insert("language_model.stray.weight".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    save_folder(scratch.path(), &config, &tensors, Storage::F32).unwrap();
    assert!(
        matches!(load_error(scratch.path()), ModelError::Leftover(names) if names == ["language_model.stray.weight"])
    );

    tensors.remove("language_model.stray.weight");
    tensors.insert(
        "qformer.embeddings.position_ids".into(),
        Tensor::arange(24, (Kind::Int64, Device::Cpu)).to_kind(Kind::Float),
    );
    save_folder(scratch.path(), &config, &tensors, Storage::F32).unwrap();
    assert!(load_folder(scratch.path(), Device::Cpu).is_ok(), "a known leftover is no error");
}

#[test]
fn hostile_files_are_refused() {
    let (scratch, ..) = folder();
    let path = scratch.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let spoil = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load_error(scratch.path()).to_string()
    };
    for bytes in [&good[..good.len() - 1], &good[..100], &[], &[0xff; 64]] {
        assert!(spoil(bytes).contains("model.safetensors` cannot be"), "{} bytes", bytes.len());
    }
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0u8; 8]].concat();
    let overlap = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let outside = r#"{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}"#;
    let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#;
    for text in [overlap, outside, huge] {
        assert!(spoil(&header(text)).contains("cannot be used"), "{text}");
    }
    assert!(spoil(b"PK\x03\x04 a zip archive").contains("pickled"));

    fs::remove_file(&path).unwrap();
    fs::write(scratch.path().join("model.safetensors.index.json"), r#"{"weight_map":{"a":"../model.safetensors"}}"#)
        .unwrap();
    assert!(load_error(scratch.path()).to_string().contains("../model.safetensors\"` is not the name"));
}

#[test]
fn configurations_that_no_network_can_have_are_refused() {
    let (scratch, ..) = folder();
    let path = scratch.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, message) in [
        (r#""num_attention_heads": 3"#, r#""num_attention_heads": 5"#, "does not divide"),
        (r#""num_attention_heads": 3"#, r#""num_attention_heads": 0"#, "_config.num_attention_heads` is 0"),
        (r#""d_model": 32"#, r#""d_model": -32"#, "`text_config.d_model` is -32"),
        (r#""cross_attention_frequency": 1"#, r#""cross_attention_frequency": 0"#, "cross_attention_frequency` is 0"),
        (r#""num_layers": 2"#, r#""num_layers": 1000000000000"#, "num_layers` is 1000000000000"),
        (r#""vocab_size": 40"#, r#""vocab_size": 4000000000000"#, "vocab_size` is 4000000000000"),
        (r#""model_type": "instructblip","#, r#""model_type": "blip","#, "`model_type` is `blip`"),
        (r#""model_type": "t5""#, r#""model_type": "mamba""#, "mamba"),
        ("gated-gelu", "relu", "only gated forms"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let error = load_error(scratch.path()).to_string();
        assert!(error.contains(message), "{to}: {error}");
    }
}

#[test]
fn sharded_folders_equal_single_ones() {
    let (scratch, _, tensors) = folder();
    let whole = load_folder(scratch.path(), Device::Cpu).unwrap();
    let names: Vec<&String> = tensors.keys().collect();
    let mut map = serde_json::Map::new();
    for (piece, names) in names.chunks(names.len() / 2 + 1).enumerate() {
        let file = format!("model-{piece}.safetensors");
        let part: Vec<(&str, &Tensor)> = names.iter().map(|n| (n.as_str(), &tensors[*n])).collect();
        Tensor::write_safetensors(&part, scratch.path().join(&file)).unwrap();
        map.extend(names.iter().map(|name| ((*name).clone(), file.clone().into())));
    }
    fs::remove_file(scratch.path().join("model.safetensors")).unwrap();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    fs::write(scratch.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let sharded = load_folder(scratch.path(), Device::Cpu).unwrap();
    for ((name, a), (_, b)) in whole.tensors().iter().zip(&sharded.tensors()) {
        assert!(a.equal(b), "{name}");
    }
}

#[test]
fn masks_survive_their_file_bit_by_bit() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("masks.safetensors");
    let mut masks = MaskSet::new();
    for columns in [1, 7, 8, 9, 24] {
        let wave = (Tensor::arange(5 * columns, (Kind::Float, Device::Cpu)) * 2.3).sin().view([5, columns]);
        masks.insert(format!("layer{columns}"), wave.gt(0.1));
    }
    masks.save(&path).unwrap();
    let first = fs::read(&path).unwrap();
    let loaded = MaskSet::load(&path).unwrap();
    assert_eq!((loaded.len(), loaded.count()), (masks.len(), masks.count()));
    assert!(loaded.iter().all(|(name, mask)| mask.keep().equal(&masks.get(name).unwrap().keep())));
    loaded.save(&path).unwrap();
    assert_eq!(first, fs::read(&path).unwrap());

    let one = MaskSet::load(&path).unwrap();
    let kept: i64 = one.iter().map(|(_, mask)| mask.kept() as i64).sum();
    assert_eq!((one.count().kept, one.count().total), (kept as u64, 5 * (1 + 7 + 8 + 9 + 24)));

    fs::write(&path, &first[..first.len() - 1]).unwrap();
    assert!(MaskSet::load(&path).is_err());
}

#[test]
fn masks_and_adapters_go_to_their_layers_and_nowhere_else() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("adapters.safetensors");
    for (_, mut model) in models() {
        let mut masks = MaskSet::new();
        let mut adapters = UpdateSet::new();
        for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.role.ends_with('o') || id.role == "fc2") {
            let (outputs, inputs) = linear.shape();
            masks.insert(&id.name, linear.weight().abs().gt(0.05));
            let b = Tensor::full([outputs, 2], 0.25, (Kind::Float, Device::Cpu));
            let a = Tensor::full([2, inputs], 0.5, (Kind::Float, Device::Cpu));
            let parts = LoraParts { a, b, scale: 1.5 };
            let update: Box<dyn Update> =
                if id.block == 0 { Box::new(SparseLora(parts)) } else { Box::new(Lora(parts)) };
            adapters.insert(&id.name, update);
        }
        assert!(!masks.is_empty());
        adapters.save(&path).unwrap();
        let adapters = UpdateSet::load(&path).unwrap();
        masks.apply(&mut model).unwrap();
        adapters.apply(&mut model).unwrap();
        for (id, linear) in model.linears() {
            assert_eq!(linear.mask().is_some(), masks.get(&id.name).is_some(), "{}", id.name);
            let update = linear.matrix().update();
            let found =
                update.map(|u| (u.settings()["scale"].as_f64(), u.respects_mask(), u.parameters()[0].1.size()[0]));
            assert_eq!(found, masks.get(&id.name).map(|_| (Some(1.5), id.block == 0, 2)), "{}", id.name);
        }
        assert_eq!(MaskSet::of(&model).count(), masks.count());
        MaskSet::new().apply(&mut model).unwrap();
        assert!(MaskSet::of(&model).is_empty());

        masks.insert("no.such.layer", Tensor::ones([1, 1], (Kind::Bool, Device::Cpu)));
        let error = masks.apply(&mut model).unwrap_err().to_string();
        assert_eq!(error, "the model has no prunable layer `no.such.layer`");
    }
}

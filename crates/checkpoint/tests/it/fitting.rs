//! Configurations and weights that do not belong together.

use std::{fs, path::Path};

use ressa_checkpoint::{Checkpoint, Outline, inspect, misfits};
use serde_json::{Value, json};

use crate::making::{Piece, file, put};

/// Folders with weights, of the models crate's goldens.
const GOLDENS: [&str; 5] = ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt", "blip2-itm"];

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens").join(name)
}

fn config(name: &str, file: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(name).join(file)).unwrap()).unwrap()
}

#[test]
fn folders_that_load_have_no_problems() {
    for name in GOLDENS {
        assert_eq!(inspect(&golden(name), false).unwrap().problems, Vec::<String>::new(), "{name}");
        // Newer folders say elsewhere whether a head is tied, so it may count as one that need not be there.
        let outline = |file: &str| {
            let Outline { linears, mut others, heads } = Outline::of(config(name, file).as_object().unwrap()).unwrap();
            others.extend(heads);
            (linears, others)
        };
        assert!(outline("config.json") == outline("config.v5.json"), "{name}");
    }
}

#[test]
fn a_configuration_that_no_network_has_is_told_field_by_field() {
    let told = |name: &str, pointer: &str, value: Value| {
        let mut config = config(name, "config.json");
        *config.pointer_mut(pointer).unwrap() = value;
        Outline::of(config.as_object().unwrap()).unwrap_err().join("; ")
    };
    for (pointer, value, said) in [
        ("/model_type", json!("kosmos-2"), "`kosmos-2`"),
        ("/text_config/model_type", json!("gemma"), "`gemma`; supported are `t5`, `opt`, `llama`, `qwen2`, `mistral`"),
        ("/vision_config/hidden_size", json!(-20), "`vision_config.hidden_size` is -20"),
        ("/vision_config/patch_size", json!(0), "`vision_config.patch_size` is 0"),
        ("/vision_config/num_attention_heads", json!(7), "`num_attention_heads` = 7 does not divide"),
        ("/qformer_config/num_hidden_layers", json!(1e9), "`qformer_config.num_hidden_layers` is 1000000000.0"),
        ("/text_config/d_ff", json!("wide"), "`text_config.d_ff` is \"wide\""),
        ("/text_config", json!(3), "`text_config` is not an object"),
    ] {
        let told = told("instructblip-flant5", pointer, value);
        assert!(told.contains(said), "{pointer}: {told}");
    }
    assert!(told("blip2-itm", "/qformer_config/use_qformer_text_input", json!(false)).contains("reads captions"));
}

#[test]
fn weights_that_the_configuration_does_not_describe_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let from = golden("instructblip-flant5");
    let sound = Checkpoint::open(&from).unwrap();
    let tell = |change: &dyn Fn(&mut Vec<Piece>), config: &dyn Fn(&mut Value)| {
        let piece = |(file, entry): (&ressa_checkpoint::File, &ressa_checkpoint::Entry)| Piece {
            name: entry.name.clone().leak(),
            dtype: entry.dtype.to_string().leak(),
            shape: entry.shape.clone(),
            bytes: file.bytes(entry).to_vec(),
        };
        let mut pieces: Vec<Piece> = sound.tensors().map(piece).collect();
        change(&mut pieces);
        put(folder.path(), "model.safetensors", file("", 0, &pieces));
        let mut written = self::config("instructblip-flant5", "config.json");
        config(&mut written);
        put(folder.path(), "config.json", written.to_string());
        misfits(&Checkpoint::open(folder.path()).unwrap())
    };
    let same = |_: &mut Value| ();
    let at = |pieces: &mut Vec<Piece>, name: &str| pieces.iter().position(|piece| piece.name == name).unwrap();
    const Q: &str = "language_model.decoder.block.0.layer.1.EncDecAttention.q.weight";
    const FC1: &str = "vision_model.encoder.layers.0.mlp.fc1";
    assert_eq!(tell(&|_| (), &same), Vec::<String>::new());

    let renamed = tell(
        &|pieces| {
            let at = at(pieces, Q);
            pieces[at].name = "language_model.decoder.block.0.layer.1.CrossAttention.q.weight";
        },
        &same,
    );
    assert_eq!(renamed.len(), 2, "{renamed:?}");
    assert!(renamed[0].starts_with("missing") && renamed[0].contains(Q), "{renamed:?}");
    assert!(renamed[1].contains("no place for") && renamed[1].contains("CrossAttention"), "{renamed:?}");

    let turned = tell(
        &|pieces| {
            let at = at(pieces, &format!("{FC1}.weight"));
            pieces[at].shape.reverse()
        },
        &same,
    );
    assert!(turned.len() == 1 && turned[0].contains("of another shape"), "{turned:?}");
    let whole = tell(
        &|pieces| {
            let at = at(pieces, &format!("{FC1}.bias"));
            pieces[at].dtype = if pieces[at].dtype == "F32" { "I32" } else { "I16" }
        },
        &same,
    );
    assert!(whole.len() == 1 && whole[0].contains(&format!("`{FC1}.bias I")), "{whole:?}");

    let deeper = tell(&|_| (), &|config| config["vision_config"]["num_hidden_layers"] = json!(12));
    assert!(deeper.len() == 1 && deeper[0].contains("vision_model.encoder.layers.10.mlp.fc1.weight"), "{deeper:?}");
    let shallower = tell(&|_| (), &|config| config["text_config"]["num_decoder_layers"] = json!(1));
    assert!(shallower.len() == 1 && shallower[0].contains("no place for"), "{shallower:?}");
    let narrower = tell(&|_| (), &|config| config["num_query_tokens"] = json!(1));
    assert!(narrower.len() == 1 && narrower[0].contains("query_tokens"), "{narrower:?}");
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert_eq!(misfits(&Checkpoint::open(folder.path()).unwrap()).len(), 1);
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_eq!(misfits(&Checkpoint::open(folder.path()).unwrap()).len(), 1);
}

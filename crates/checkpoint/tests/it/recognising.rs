//! Folders of other programs: read as transformers reads them, or refused by the name of what they are.

use std::path::Path;

use ressa_checkpoint::{Checkpoint, absent_pieces, inspect, quantized};
use serde_json::{Value, json};

use crate::making::{Piece, f32s, file, put, values};

const Q: &str = "language_model.encoder.block.0.layer.0.SelfAttention.q.weight";

fn plain() -> Vec<Piece> {
    vec![f32s(Q, &[2, 2], values(4))]
}

fn index(name: &str) -> String {
    json!({"metadata": {}, "weight_map": {Q: name}}).to_string()
}

/// What is said about a folder: by whoever opens its weights, which an inspection repeats.
fn said(make: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let said = match Checkpoint::open(folder.path()) {
        Err(error) => error.to_string(),
        Ok(checkpoint) => {
            let reason = quantized(&checkpoint).expect("something is wrong with it");
            format!("`{}` cannot be used: {reason}", folder.path().display())
        }
    };
    assert!(inspect(folder.path(), false).unwrap().problems.contains(&said), "{said}");
    said.replace(&folder.path().display().to_string(), "FOLDER").replace("`FOLDER` cannot be used: ", "")
}

#[test]
fn the_whole_file_counts_before_the_list_of_pieces() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "model.safetensors", file("", 0, &plain()));
    put(folder.path(), "model.safetensors.index.json", index("gone.safetensors"));
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert_eq!((opened.files().len(), opened.index().is_some()), (1, false));
    assert_eq!(absent_pieces(folder.path()), Vec::<String>::new());
    // A damaged list beside it does not matter either.
    put(folder.path(), "model.safetensors.index.json", "{");
    assert!(Checkpoint::open(folder.path()).is_ok());
}

#[test]
fn tensors_below_model_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let wrapped = Piece { name: "model.query_tokens", ..f32s("", &[1, 2], values(2)) };
    put(folder.path(), "a.safetensors", file("", 0, &[wrapped]));
    let listed = json!({"weight_map": {"model.query_tokens": "a.safetensors"}}).to_string();
    put(folder.path(), "model.safetensors.index.json", listed);
    let opened = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(opened.names().collect::<Vec<_>>(), ["query_tokens"]);
    assert!(opened.get("query_tokens").is_some());
    let both = [f32s("query_tokens", &[1], [1.0]), f32s("model.query_tokens", &[1], [2.0])];
    put(folder.path(), "model.safetensors", file("", 0, &both));
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor `query_tokens` is there twice, once below `model.`"), "{error}");
}

#[test]
fn folders_that_hold_something_else_are_named() {
    let adapter = json!({"peft_type": "LORA", "base_model_name_or_path": "org/base"}).to_string();
    let found = [
        said(|folder| put(folder, "model.fp16.safetensors", file("", 0, &plain()))),
        said(|folder| put(folder, "model.safetensors.index.fp16.json", index("model.fp16-00001-of-00002.safetensors"))),
        said(|folder| put(folder, "open_clip_model.safetensors", file("", 0, &plain()))),
        said(|folder| {
            put(folder, "model-00001-of-00002.safetensors", file("", 0, &plain()));
            put(folder, "model-00002-of-00002.safetensors", file("", 0, &[]));
        }),
        said(|folder| {
            put(folder, "adapter_config.json", &adapter);
            put(folder, "adapter_model.safetensors", file("", 0, &plain()));
        }),
        said(|folder| {
            put(folder, "adapter_config.json", &adapter);
            put(folder, "model.safetensors", file("", 0, &plain()));
        }),
    ];
    insta::assert_snapshot!(found.join("\n"), @"
    it holds neither `model.safetensors` nor `model.safetensors.index.json`, only the variant `fp16` (`model.fp16.safetensors`); rename its files to names without `.fp16`, such as `model.safetensors`
    it holds neither `model.safetensors` nor `model.safetensors.index.json`, only the variant `fp16` (`model.safetensors.index.fp16.json`); rename its files to names without `.fp16`, such as `model.safetensors.index.json`
    it holds neither `model.safetensors` nor `model.safetensors.index.json`, but `open_clip_model.safetensors`; if that is the whole model, rename it to `model.safetensors`
    it holds neither `model.safetensors` nor `model.safetensors.index.json`, but pieces without the list of their tensors (`model-00001-of-00002.safetensors`, ...); copy `model.safetensors.index.json` too
    it holds an adapter (`adapter_config.json`) of `org/base`, not a model; merge the adapter into the base model with PEFT's `merge_and_unload()` and save the result
    it holds an adapter (`adapter_config.json`) beside weights, and transformers would load `org/base` and the adapter; remove the adapter's files to use the weights as they are
    ");
}

#[test]
fn quantized_weights_are_named_with_their_method() {
    let with = |name: &'static str, config: Value| {
        said(move |folder| {
            put(folder, "config.json", config.to_string());
            let codes = Piece { name, dtype: "U8", shape: vec![4], bytes: vec![1; 4] };
            put(folder, "model.safetensors", file("", 0, &[codes]));
        })
    };
    let none = json!({});
    let found = [
        with("language_model.q.weight_packed", json!({"quantization_config": {"quant_method": "compressed-tensors"}})),
        with("language_model.q.qweight", none.clone()),
        with("language_model.q.weight.absmax", none.clone()),
        with("language_model.q.SCB", none.clone()),
        said(|folder| {
            let eight = Piece { name: Q, dtype: "F8_E4M3", shape: vec![2, 2], bytes: vec![1; 4] };
            put(folder, "model.safetensors", file("", 0, &[eight]));
        }),
        said(|folder| {
            put(folder, "config.json", json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}).to_string());
            put(folder, "model.safetensors", file("", 0, &plain()));
        }),
    ];
    let advice =
        "; use the model's unquantized folder, or have its library write one (transformers: `model.dequantize()`)";
    insta::assert_snapshot!(found.join("\n").replace(advice, ""), @"
    its weights are quantized (compressed-tensors; tensor `language_model.q.weight_packed`)
    its weights are quantized (GPTQ or AWQ; tensor `language_model.q.qweight`)
    its weights are quantized (bitsandbytes, 4 bits; tensor `language_model.q.weight.absmax`)
    its weights are quantized (bitsandbytes, 8 bits; tensor `language_model.q.SCB`)
    its weights are quantized (weights of 8 bits; tensor `language_model.encoder.block.0.layer.0.SelfAttention.q.weight`)
    its `config.json` asks for quantized weights (`quantization_config`, method gptq), and these are not; remove the entry to use them as they are
    ");
    // Weights that are sparse and stored as they are can be read, whatever wrote them.
    let folder = tempfile::tempdir().unwrap();
    let sparse =
        json!({"quantization_config": {"quant_method": "compressed-tensors", "sparsity_config": {"format": "dense"}}});
    put(folder.path(), "config.json", sparse.to_string());
    put(folder.path(), "model.safetensors", file("", 0, &plain()));
    assert_eq!(quantized(&Checkpoint::open(folder.path()).unwrap()), None);
}

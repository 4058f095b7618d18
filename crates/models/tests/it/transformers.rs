//! Against what transformers computed, tensor by tensor and token by token; made by `scripts/export_goldens.py`.

use std::{fs, path::PathBuf};

use ressa_experiment::job::SearchOptions;
use ressa_models::{
    Infer, LoadOptions, Search,
    folder::{read_config, read_generation},
    load_model,
};
use ressa_testkit::Golden;
use serde_json::Value;
use tch::Device;

use crate::common::prompts;

/// Rounding of f32 over these depths stays below 2e-6; a tanh GELU in place of the exact one would show as 8e-5.
const TOLERANCE: f64 = 2e-5;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn rows(golden: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(golden.clone()).expect("rows of token ids")
}

#[test]
fn every_part_gives_what_transformers_gives() {
    let _no_grad = tch::no_grad_guard();
    for name in ["flant5", "vicuna"] {
        let model = load_model(&folder(name), &LoadOptions::on(Device::Cpu)).unwrap();
        let config = read_config(&folder(name)).unwrap();
        let generation = read_generation(&folder(name)).unwrap();
        let tensors = Golden::open(folder(name).join("golden.safetensors"));
        let text: Value = serde_json::from_slice(&fs::read(folder(name).join("golden.json")).unwrap()).unwrap();
        let (texts, answers) = (rows(&text["prompts"]), rows(&text["answers"]));

        let features = model.encode_images(&tensors.get("pixels"));
        tensors.check("features", &features, TOLERANCE);
        // One batch here, one row at a time there.
        let batch = prompts(&[0, 1, 2], &texts);
        let queries = model.query_output(&features, &batch);
        let prefix = model.project(&queries);
        let forced = model.force(Some(&prefix), &batch.language, &answers);
        for (row, answer) in answers.iter().enumerate() {
            let one = row as i64;
            tensors.check(&format!("queries.{row}"), &queries.narrow(0, one, 1), TOLERANCE);
            tensors.check(&format!("prefix.{row}"), &prefix.narrow(0, one, 1), TOLERANCE);
            let logits = forced.logits.narrow(0, one, 1).narrow(1, 0, answer.len() as i64 + 1);
            tensors.check(&format!("logits.{row}"), &logits, TOLERANCE);
        }
        for (search, options) in text["searches"].as_object().unwrap() {
            let options: SearchOptions = serde_json::from_value(options.clone()).unwrap();
            let resolved = Search::resolve(&options, &generation, config.text_config()).unwrap();
            let found = model.generate(&prefix, &batch.language, &resolved).unwrap();
            let found: Vec<Vec<u32>> = found.into_iter().map(|answer| answer.tokens).collect();
            assert_eq!(found, rows(&text["generated"][search]), "{name} {search}");
        }
    }
}

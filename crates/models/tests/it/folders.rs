//! A folder of every family against what transformers computed on it, batch by batch; made by `scripts/export_goldens.py`.
//!
//! Each folder is in another of the forms that checkpoints come in: bf16, f16 or f32 weights, one file or several, copies of tied tensors and
//! leftovers of old releases.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ressa_experiment::job::{Compute, SearchOptions};
use ressa_models::{
    ForwardInputs, Infer, LoadOptions, Model, Observer, Retrieve, Search, Surgery, TextBatch,
    folder::{load_as, read_config, read_config_file, read_generation},
    load_model,
};
use ressa_testkit::{Golden, assert_close};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use crate::common::prompts;

/// Those that write.
const WRITERS: [&str; 4] = ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt"];

/// Rounding of f32 over these depths stays below 2e-6; a tanh GELU in place of the exact one would show as 8e-5.
const TOLERANCE: f64 = 2e-5;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn golden(name: &str) -> (Golden, Value) {
    let text = fs::read(folder(name).join("golden.json")).unwrap();
    (Golden::open(folder(name).join("golden.safetensors")), serde_json::from_slice(&text).unwrap())
}

fn load(name: &str) -> Model {
    load_model(&folder(name), &LoadOptions::on(Device::Cpu)).unwrap()
}

fn rows(ids: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(ids.clone()).expect("rows of token ids")
}

/// The inputs of a batch: `right` is padded on the right and has labels, `left` is as processors pad prompts.
fn inputs(tensors: &Golden, batch: &str) -> ForwardInputs {
    let get = |name: &str| tensors.get(&format!("{batch}.{name}"));
    let some = |name: &str| tensors.contains(&format!("{batch}.{name}")).then(|| get(name));
    ForwardInputs {
        pixel_values: tensors.get("pixel_values"),
        input_ids: get("input_ids"),
        attention_mask: get("attention_mask"),
        labels: some("labels"),
        qformer_input_ids: some("qformer_input_ids"),
        qformer_attention_mask: some("qformer_attention_mask"),
    }
}

/// Row `row` of a batch, with every token that is padding cut out.
fn alone(inputs: &ForwardInputs, row: i64) -> ForwardInputs {
    let cut = |values: &Tensor, mask: &Tensor| {
        let kept = mask.select(0, row).to_kind(Kind::Bool);
        values.select(0, row).masked_select(&kept).unsqueeze(0)
    };
    let ones = |values: &Tensor| values.ones_like();
    let input_ids = cut(&inputs.input_ids, &inputs.attention_mask);
    let labels = inputs.labels.as_ref().map(|labels| {
        let own = if labels.size() == inputs.attention_mask.size() {
            inputs.attention_mask.shallow_clone()
        } else {
            labels.ge(0)
        };
        cut(labels, &own)
    });
    let mask = inputs.qformer_attention_mask.as_ref();
    let qformer = inputs.qformer_input_ids.as_ref().zip(mask).map(|(ids, mask)| cut(ids, mask));
    ForwardInputs {
        pixel_values: inputs.pixel_values.narrow(0, row, 1),
        attention_mask: ones(&input_ids),
        input_ids,
        labels,
        qformer_attention_mask: qformer.as_ref().map(ones),
        qformer_input_ids: qformer,
    }
}

#[test]
fn batches_padded_on_either_side_give_what_transformers_gives() {
    for name in WRITERS {
        let (tensors, _) = golden(name);
        let config = read_config_file(&folder(name).join("config.v5.json")).unwrap();
        let newer = load_as(&folder(name), config.as_ref(), &LoadOptions::on(Device::Cpu)).unwrap();
        for (form, model) in [("as written", load(name)), ("as version 5 writes it", newer)] {
            for batch in ["right", "left"] {
                let found = model.forward(&inputs(&tensors, batch)).unwrap();
                let parts = [
                    ("vision_last_hidden_state", &found.vision_last_hidden_state),
                    ("qformer_query_output", &found.qformer_query_output),
                    ("language_model_inputs", &found.language_model_inputs),
                    ("logits", &found.logits),
                ];
                for (part, value) in parts {
                    let expected = tensors.get(&format!("{batch}.{part}"));
                    assert_close(&format!("{name}, configuration {form}: {batch} {part}"), value, &expected, TOLERANCE);
                }
                let loss = format!("{batch}.loss");
                assert_eq!(found.loss.is_some(), tensors.contains(&loss), "{name}");
                if let Some(found) = found.loss {
                    tensors.check(&loss, &found.view([1]), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn half_precision_is_as_near_as_that_of_transformers() {
    for name in WRITERS {
        let (tensors, _) = golden(name);
        let options = LoadOptions { compute: Compute::Bfloat16, ..LoadOptions::on(Device::Cpu) };
        let model = load_model(&folder(name), &options).unwrap();
        let found = model.forward(&inputs(&tensors, "right")).unwrap();
        let exact = tensors.get("right.logits");
        let away = |logits: &Tensor| (logits.to_kind(Kind::Float) - &exact).abs().max().double_value(&[]);
        let (ours, theirs) = (away(&found.logits), away(&tensors.get("bf16.logits")));
        // Both are the largest of some hundred rounding errors, theirs of the machine that wrote the golden.
        assert!(ours > 0.0 && ours <= 3.0 * theirs, "{name}: {ours} from the f32 logits, transformers {theirs}");
    }
}

/// Sums over the rows that a linear has read.
#[derive(Default)]
pub struct Moments {
    pub rows: i64,
    pub sums: Option<(Tensor, Tensor)>,
    paused: bool,
}

impl Moments {
    /// Compares them with those that a golden has of a linear.
    pub fn check(&self, name: &str, linear: &str, tensors: &Golden, tolerance: f64) {
        let (sum, squares) = self.sums.as_ref().unwrap();
        assert_eq!(tensors.get(&format!("stats.{linear}.rows")).int64_value(&[0]), self.rows, "{name} {linear}");
        tensors.check(&format!("stats.{linear}.sum"), &sum.to_kind(Kind::Float), tolerance);
        tensors.check(&format!("stats.{linear}.sqsum"), &squares.to_kind(Kind::Float), tolerance);
    }

    /// Stops or resumes looking; answers with how it was.
    pub fn pause(&mut self, paused: bool) -> bool {
        std::mem::replace(&mut self.paused, paused)
    }
}

impl Observer for Moments {
    fn observe(&mut self, input: &Tensor) {
        if self.paused {
            return;
        }
        let x = input.to_kind(Kind::Double).view([-1, *input.size().last().unwrap()]);
        let all = |x: &Tensor| x.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        self.rows += x.size()[0];
        self.sums = Some(match self.sums.take() {
            None => (all(&x), all(&x.square())),
            Some((sum, squares)) => (sum + all(&x), squares + all(&x.square())),
        });
    }
}

#[test]
fn every_prunable_linear_sees_the_inputs_that_it_sees_in_transformers() {
    for name in WRITERS {
        let (tensors, text) = golden(name);
        let model = load(name);
        let mut seen = BTreeMap::new();
        let mut guards = Vec::new();
        for (id, linear) in model.linears() {
            let moments = Arc::new(Mutex::new(Moments::default()));
            guards.push(linear.tap(Arc::clone(&moments) as Arc<Mutex<dyn Observer>>));
            seen.insert(id.name.clone(), moments);
        }
        for sample in text["samples"].as_array().unwrap() {
            model.forward(&alone(&inputs(&tensors, "right"), sample.as_i64().unwrap())).unwrap();
        }
        let theirs: Vec<&str> =
            tensors.iter().filter_map(|(key, _)| key.strip_prefix("stats.")?.strip_suffix(".rows")).collect();
        assert_eq!(theirs, seen.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");
        for (linear, moments) in &seen {
            moments.lock().unwrap().check(name, linear, &tensors, TOLERANCE);
        }
    }
}

#[test]
fn searches_give_the_tokens_that_transformers_gives() {
    let _no_grad = tch::no_grad_guard();
    for name in WRITERS {
        let (tensors, text) = golden(name);
        let (model, path) = (load(name), folder(name));
        let (config, generation) = (read_config(&path).unwrap(), read_generation(&path).unwrap());
        let features = model.encode_images(&tensors.get("pixel_values"));
        let mut batch = prompts(&[0, 1, 2], &rows(&text["prompts"]));
        batch.qformer = TextBatch::pad(&rows(&text["qformer"]), 0, Device::Cpu);
        let prefix = model.visual_prefix(&features, &batch);
        for (search, golden) in text["generate"].as_object().unwrap() {
            let options: SearchOptions = serde_json::from_value(golden["options"].clone()).unwrap();
            let resolved = Search::resolve(&options, &generation, config.text_config()).unwrap();
            let found = model.generate(&prefix, &batch.language, &resolved).unwrap();
            let found: Vec<Vec<u32>> = found.into_iter().map(|answer| answer.tokens).collect();
            assert_eq!(found, rows(&golden["tokens"]), "{name} {search}");
        }
    }
}

#[test]
fn images_and_captions_meet_as_in_transformers_at_any_image_size() {
    let _no_grad = tch::no_grad_guard();
    let name = "blip2-itm";
    let (tensors, text) = golden(name);
    let model = load(name);
    let captions = TextBatch::pad(&rows(&text["captions"]), 0, Device::Cpu);
    for size in ["", "large."] {
        let check = |part: &str, value: &Tensor| tensors.check(&format!("{size}{part}"), value, TOLERANCE);
        let features = model.encode_images(&tensors.get(&format!("{size}pixel_values")));
        check("vision_last_hidden_state", &features);
        let (images, texts) = (model.retrieval_images(&features).unwrap(), model.retrieval_texts(&captions).unwrap());
        check("image_embeds", &images);
        check("text_embeds", &texts);
        // Each caption meets the query that is nearest to it.
        let contrast = images.matmul(&texts.transpose(0, 1)).amax([1i64].as_slice(), false);
        check("contrast", &contrast);
        let pairs = Tensor::from_slice(&[0i64, 1, 2]);
        let scores = model.matching_scores(&features, &pairs, &captions).unwrap();
        let expected = tensors.get(&format!("{size}matching_logits")).select(1, 1);
        assert_close(&format!("{size}matching_logits"), &scores, &expected, TOLERANCE);
    }
}

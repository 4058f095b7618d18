//! Every architecture in another of the forms that checkpoints come in, against what transformers computed; made by
//! `scripts/export_goldens.py`.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ressa_experiment::job::Compute;
use ressa_models::{
    ForwardInputs, Infer, LoadOptions, Model, Observer, Retrieve, Surgery, TextBatch, Tower,
    folder::{load_as, read_config_file},
    load_model,
};
use ressa_testkit::{Golden, difference};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Rounding of f32 over these depths stays below 3e-6; a tanh GELU in place of the exact one would show as 8e-5.
const TOLERANCE: f64 = 2e-5;
const WRITING: [&str; 4] = ["instructblip-flant5", "instructblip-vicuna", "blip2-flant5", "blip2-opt"];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn golden(name: &str) -> Golden {
    Golden::open(folder(name).join("golden.safetensors"))
}

fn load(name: &str, compute: Compute) -> Model {
    let options = LoadOptions { compute, convert_up_to: 0, ..LoadOptions::on(Device::Cpu) };
    load_model(&folder(name), &options).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn inputs(tensors: &Golden, batch: &str) -> ForwardInputs {
    let find = |name: &str| {
        let name = format!("{batch}.{name}");
        tensors.contains(&name).then(|| tensors.get(&name))
    };
    ForwardInputs {
        pixel_values: tensors.get("pixel_values"),
        input_ids: tensors.get(&format!("{batch}.input_ids")),
        attention_mask: tensors.get(&format!("{batch}.attention_mask")),
        labels: find("labels"),
        qformer_input_ids: find("qformer_input_ids"),
        qformer_attention_mask: find("qformer_attention_mask"),
    }
}

#[test]
fn padded_batches_give_what_transformers_gives() {
    for name in WRITING {
        let tensors = golden(name);
        let config = read_config_file(&folder(name).join("config.v5.json")).unwrap();
        let later = load_as(&folder(name), config.as_ref(), &LoadOptions::on(Device::Cpu)).unwrap();
        for (release, model) in [("4", load(name, Compute::Float32)), ("5", later)] {
            for batch in ["right", "left"] {
                let found = model.forward(&inputs(&tensors, batch)).unwrap();
                let loss = found.loss.map(|loss| loss.view([1]));
                for (part, actual) in [
                    ("vision_last_hidden_state", Some(found.vision_last_hidden_state)),
                    ("qformer_query_output", Some(found.qformer_query_output)),
                    ("language_model_inputs", Some(found.language_model_inputs)),
                    ("logits", Some(found.logits)),
                    ("loss", loss),
                ] {
                    let key = format!("{batch}.{part}");
                    assert_eq!(actual.is_some(), tensors.contains(&key), "{name}, release {release}: {key}");
                    actual.iter().for_each(|actual| tensors.check(&key, actual, TOLERANCE));
                }
            }
        }
    }
}

/// Machines whose kernels sum in another order round to other numbers of bf16. The largest of some hundred rounding errors then is another
/// one: without AVX the reference itself is up to 1.8 times as far from f32 as the golden is, and as far from the golden. Hence the bound on
/// both distances; a part that computes in another type or order of operations than the reference is far beyond.
#[test]
fn bf16_computes_what_transformers_computes_in_it() {
    for name in WRITING {
        let tensors = golden(name);
        let found = load(name, Compute::Bfloat16).forward(&inputs(&tensors, "right")).unwrap();
        assert_eq!(found.logits.kind(), Kind::BFloat16);
        let logits = found.logits.to_kind(Kind::Float);
        let far = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let rounding = far(&tensors.get("bf16.logits"), &tensors.get("right.logits"));
        for reference in ["bf16.logits", "right.logits"] {
            let distance = far(&logits, &tensors.get(reference));
            assert!(distance <= 3.0 * rounding, "{name}: {distance} from `{reference}`, rounding is {rounding}");
        }
        let loss = found.loss.expect("there are labels").double_value(&[]);
        let expected = tensors.get("right.loss").double_value(&[0]);
        assert!((loss - expected).abs() < 0.02 * expected, "{name}: {loss}, not {expected}");
    }
}

/// Sums over a linear's inputs.
#[derive(Default)]
struct Sums(Vec<Tensor>);

impl Observer for Sums {
    fn observe(&mut self, input: &Tensor) {
        self.0.push(input.flatten(0, -2).to_kind(Kind::Double));
    }
}

/// One row without its padding.
fn alone(tensors: &Golden, row: i64) -> ForwardInputs {
    let batch = inputs(tensors, "right");
    let real = |mask: &Tensor| mask.get(row).nonzero().squeeze_dim(1);
    let keep = |ids: &Tensor, at: &Tensor| ids.narrow(0, row, 1).index_select(1, at);
    let text = real(&batch.attention_mask);
    let instruction = batch.qformer_attention_mask.as_ref().map(real);
    let labels = batch.labels.map(|labels| {
        let of_text = labels.size() == batch.input_ids.size();
        keep(&labels, &if of_text { text.shallow_clone() } else { real(&labels.ne(-100)) })
    });
    ForwardInputs {
        pixel_values: batch.pixel_values.narrow(0, row, 1),
        input_ids: keep(&batch.input_ids, &text),
        attention_mask: keep(&batch.attention_mask, &text),
        labels,
        qformer_input_ids: batch.qformer_input_ids.zip(instruction).map(|(ids, at)| keep(&ids, &at)),
        qformer_attention_mask: None,
    }
}

#[test]
fn every_prunable_linear_sees_what_transformers_shows_its_own() {
    for name in WRITING {
        let (model, tensors) = (load(name, Compute::Float32), golden(name));
        let text: Value = serde_json::from_slice(&fs::read(folder(name).join("golden.json")).unwrap()).unwrap();
        let seen: Vec<_> = model.linears().iter().map(|_| Arc::new(Mutex::new(Sums::default()))).collect();
        let taps: Vec<_> = model.linears().iter().zip(&seen).map(|((_, l), seen)| l.tap(seen.clone())).collect();
        for row in text["samples"].as_array().expect("a list of rows") {
            model.forward(&alone(&tensors, row.as_i64().expect("a row"))).unwrap();
        }
        drop(taps);
        // The exporter leaves the Q-Former's out, for size.
        let wanted = |tower: Tower| tower != Tower::Connector;
        for ((id, _), seen) in model.linears().iter().zip(&seen).filter(|((id, _), _)| wanted(id.tower)) {
            let rows = Tensor::cat(&seen.lock().expect("no tap has failed").0, 0);
            let expected = |part: &str| tensors.get(&format!("stats.{}.{part}", id.name));
            assert_eq!(expected("rows").int64_value(&[0]), rows.size()[0], "{name}: {}", id.name);
            for (part, actual) in [("sum", rows.shallow_clone()), ("sqsum", rows.square())] {
                let actual = actual.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
                let found = difference(&actual, &expected(part));
                assert!(found.within(TOLERANCE), "{name}: {} {part}: {found:?}", id.name);
            }
        }
    }
}

#[test]
fn retrieval_gives_what_transformers_gives() {
    let _no_grad = tch::no_grad_guard();
    let (model, tensors) = (load("blip2-itm", Compute::Float32), golden("blip2-itm"));
    let captions = TextBatch::new(tensors.get("input_ids"), tensors.get("attention_mask").ne(0));
    let rows = Tensor::arange(captions.ids.size()[0], (Kind::Int64, Device::Cpu));
    for size in ["", "large."] {
        let features = model.encode_images(&tensors.get(&format!("{size}pixel_values")));
        tensors.check(&format!("{size}vision_last_hidden_state"), &features, TOLERANCE);
        let images = model.retrieval_images(&features).expect("it has the head");
        tensors.check(&format!("{size}image_embeds"), &images, TOLERANCE);
        let texts = model.retrieval_texts(&captions).expect("it has the head");
        tensors.check(if size.is_empty() { "text_embeds" } else { "large.text_embeds" }, &texts, TOLERANCE);
        let scores = model.matching_scores(&features, &rows, &captions).expect("it has the head");
        let expected = tensors.get(&format!("{size}matching_logits"));
        let found = difference(&scores, &expected.select(1, 1));
        assert!(found.within(TOLERANCE), "{found:?}");
    }
}

//! Compares the networks with what transformers computed: `golden MODEL_FOLDER GOLDEN_FOLDER [CONFIG.json]`.
//!
//! The golden folder holds `golden.safetensors` (inputs, image features, Q-Former and encoder states, logits, loss), `stats.safetensors`
//! (sums over the inputs of each linear) and `golden.json` (generated tokens). A configuration, if given, takes the place of the folder's.
//! Exits with 1 if anything differs by more than 3e-5 of the largest expected value.

#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
};

use ressa_experiment::job::{Compute, SearchOptions};
use ressa_models::{
    Answer, ForwardInputs, Infer, LoadOptions, Model, Observer, Prompts, Search, Surgery, TextBatch,
    config::GenerationConfig,
    folder::{load_as, read_config, read_config_file, read_generation},
};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions};
use ressa_testkit::{Golden, difference};
use serde_json::Value;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 3e-5;
/// Two roundings of bf16 along paths that differ in their order; what transformers itself varies by.
const ROUNDED: f64 = 3e-2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, golden, config @ ..] = arguments.as_slice() else {
        println!("usage: golden MODEL_FOLDER GOLDEN_FOLDER [CONFIG.json]");
        return ExitCode::from(2);
    };
    match compare(Path::new(model), Path::new(golden), config.first().map(Path::new)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Collects verdicts and prints each.
struct Checks(bool);

impl Checks {
    fn close(&mut self, what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
        if actual.size() != expected.size() {
            println!("FAIL {what}: shape {:?}, expected {:?}", actual.size(), expected.size());
            self.0 = false;
            return;
        }
        let found = difference(actual, expected);
        let measured = format!("{:.1e} of {:.3}", found.largest / found.scale, found.scale);
        self.verdict(what, found.within(tolerance), &measured);
    }

    fn verdict(&mut self, what: &str, good: bool, measured: &str) {
        println!("{} {what}: {measured}", if good { "ok  " } else { "FAIL" });
        self.0 &= good;
    }
}

fn compare(folder: &Path, golden: &Path, config: Option<&Path>) -> Result<bool, Box<dyn std::error::Error>> {
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 })?;
    let _no_grad = tch::no_grad_guard();
    let config = config.map_or_else(|| read_config(folder), read_config_file)?;
    let load = |compute| load_as(folder, config.as_ref(), &LoadOptions { compute, ..LoadOptions::on(device) });
    let model = load(Compute::Float32)?;
    let tensors = Golden::open(golden.join("golden.safetensors"));
    let mut checks = Checks(true);
    // Of rounded weights only the answers' logits were exported.
    if config.rest().get("dtype").or(config.rest().get("torch_dtype")).is_some_and(|dtype| dtype == "bfloat16") {
        for (compute, name, tolerance) in [
            (Compute::Float32, "bf16_weights_fp32_compute", TOLERANCE),
            (Compute::Bfloat16, "bf16_weights_bf16_compute", ROUNDED),
        ] {
            let found = load(compute)?.forward(&inputs(&tensors, "train", None))?;
            let logits = answer_logits(&found.logits, &tensors.get("train.labels"));
            checks.close(name, &logits, &tensors.get(&format!("{name}.answer_logits")), tolerance);
            let loss = found.loss.ok_or("no loss although there were labels")?;
            checks.close(name, &loss.view([1]), &tensors.get(&format!("{name}.train_loss")), tolerance);
        }
        return Ok(checks.0);
    }

    let found = model.forward(&inputs(&tensors, "train", None))?;
    let loss = found.loss.as_ref().ok_or("no loss although there were labels")?.view([1]);
    for (name, actual) in [
        ("vision_last_hidden_state", &found.vision_last_hidden_state),
        ("qformer_query_output", &found.qformer_query_output),
        ("language_model_inputs", &found.language_model_inputs),
        ("train_logits", &found.logits),
        ("train_loss", &loss),
    ] {
        checks.close(name, actual, &tensors.get(name), TOLERANCE);
    }
    if tensors.contains("prompt_logits_last4") {
        let found = model.forward(&inputs(&tensors, "in", None))?.logits;
        let last = found.narrow(1, found.size()[1] - 4, 4);
        checks.close("prompt_logits_last4", &last, &tensors.get("prompt_logits_last4"), TOLERANCE);
    }
    statistics(&model, &tensors, &Golden::open(golden.join("stats.safetensors")), &mut checks)?;
    generated(&model, &tensors, &read_generation(folder)?, golden, &mut checks)?;
    Ok(checks.0)
}

/// The batch `train` or `in`, or one row of it.
fn inputs(tensors: &Golden, batch: &str, row: Option<i64>) -> ForwardInputs {
    let pick = |tensor: Tensor| row.map_or_else(|| tensor.shallow_clone(), |row| tensor.narrow(0, row, 1));
    let optional = |name: &str| tensors.contains(name).then(|| pick(tensors.get(name)));
    let of = |name: &str| pick(tensors.get(&format!("{batch}.{name}")));
    ForwardInputs {
        pixel_values: pick(tensors.get("pixel_values")),
        input_ids: of("input_ids"),
        attention_mask: of("attention_mask"),
        labels: optional(&format!("{batch}.labels")),
        qformer_input_ids: optional("in.qformer_input_ids"),
        qformer_attention_mask: optional("in.qformer_attention_mask"),
    }
}

/// Logits that predict the labels, `[labels that count, vocabulary]`.
fn answer_logits(logits: &Tensor, labels: &Tensor) -> Tensor {
    let tokens = labels.size()[1];
    let logits = logits.narrow(1, 0, tokens - 1).flatten(0, 1);
    let counts = labels.narrow(1, 1, tokens - 1).ne(-100).reshape([-1]).nonzero().squeeze_dim(1);
    logits.index_select(0, &counts).to_kind(Kind::Float)
}

/// Sums over a linear's inputs.
#[derive(Default)]
struct Sums(Option<[Tensor; 2]>, i64);

impl Observer for Sums {
    fn observe(&mut self, input: &Tensor) {
        let rows = input.flatten(0, -2).to_kind(Kind::Double);
        self.1 += rows.size()[0];
        let sums = [&rows, &(&rows * &rows)].map(|x| x.sum_dim_intlist([0i64].as_slice(), false, Kind::Double));
        self.0 = Some(match self.0.take() {
            Some([sum, squares]) => [sum + &sums[0], squares + &sums[1]],
            None => sums,
        });
    }
}

/// Each sample alone, without padding, and what every prunable linear has seen of all of them.
fn statistics(
    model: &Model,
    tensors: &Golden,
    expected: &Golden,
    checks: &mut Checks,
) -> Result<(), Box<dyn std::error::Error>> {
    let seen: Vec<_> = model.linears().iter().map(|_| Arc::new(Mutex::new(Sums::default()))).collect();
    let taps: Vec<_> = model.linears().iter().zip(&seen).map(|((_, linear), seen)| linear.tap(seen.clone())).collect();
    for row in 0..tensors.get("pixel_values").size()[0] {
        let mut sample = inputs(tensors, "train", Some(row));
        let real = |mask: &Tensor| mask.squeeze_dim(0).nonzero().squeeze_dim(1);
        let text = real(&sample.attention_mask);
        let labels = sample.labels.take();
        sample.labels = labels.map(|labels| match labels.size() == sample.input_ids.size() {
            true => labels.index_select(1, &text),
            false => labels.index_select(1, &real(&labels.ne(-100))),
        });
        sample.input_ids = sample.input_ids.index_select(1, &text);
        sample.attention_mask = sample.attention_mask.index_select(1, &text);
        if let Some(mask) = sample.qformer_attention_mask.take() {
            sample.qformer_input_ids = sample.qformer_input_ids.map(|ids| ids.index_select(1, &real(&mask)));
        }
        model.forward(&sample)?;
    }
    drop(taps);
    let mut compared = BTreeSet::new();
    let (mut worst, mut good) = (0f64, true);
    for ((id, _), seen) in model.linears().iter().zip(&seen) {
        let seen = seen.lock().map_err(|_| "a tap has failed")?;
        let Some([sum, squares]) = &seen.0 else { continue };
        compared.insert(id.name.clone());
        for (part, actual) in [("sum", sum), ("sqsum", squares)] {
            let found = difference(actual, &expected.get(&format!("{}.{part}", id.name)));
            worst = worst.max(found.largest / found.scale);
            good &= found.within(TOLERANCE);
        }
        good &= expected.get(&format!("{}.rows", id.name)).int64_value(&[0]) == seen.1;
    }
    let named: BTreeSet<String> =
        expected.iter().filter_map(|(name, _)| name.strip_suffix(".rows").map(str::to_owned)).collect();
    let rest: Vec<&String> = named.difference(&compared).collect();
    checks.verdict("statistics", good, &format!("{worst:.1e} over {} linears, {rest:?} not prunable", compared.len()));
    Ok(())
}

/// Tokens that searches give.
fn generated(
    model: &Model,
    tensors: &Golden,
    generation: &GenerationConfig,
    golden: &Path,
    checks: &mut Checks,
) -> Result<(), Box<dyn std::error::Error>> {
    let text: Value = serde_json::from_slice(&std::fs::read(golden.join("golden.json"))?)?;
    let image_token = text["image_token_index"].as_i64().unwrap_or(-1);
    let pad = text["pad_token_id"].as_i64().unwrap_or(0);
    let language = rows(tensors, "in.input_ids", "in.attention_mask", image_token);
    let qformer = match tensors.contains("in.qformer_input_ids") {
        true => rows(tensors, "in.qformer_input_ids", "in.qformer_attention_mask", -1),
        false => vec![Vec::new(); language.len()],
    };
    let prompts = Prompts {
        image: Tensor::arange(language.len() as i64, (Kind::Int64, Device::Cpu)),
        qformer: TextBatch::pad(&qformer, 0, Device::Cpu),
        language: TextBatch::pad(&language, pad as u32, Device::Cpu),
    };
    let prefix = model.visual_prefix(&model.encode_images(&tensors.get("pixel_values")), &prompts);
    for (name, case) in text["generate"].as_object().into_iter().flatten() {
        let options = &case["options"];
        let options: SearchOptions = serde_json::from_value(options.clone())?;
        let search = Search::resolve(&options, generation, model.config().text_config())?;
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["tokens"].clone())?;
        let tokens = |found: Vec<Answer>| found.into_iter().map(|answer| answer.tokens).collect::<Vec<_>>();
        let found = tokens(model.generate(&prefix, &prompts.language, &search)?);
        let mut same = found == expected;
        for (row, expected) in expected.iter().enumerate() {
            let one = |text: &TextBatch| {
                let real = text.mask.get(row as i64).sum(Kind::Int64).int64_value(&[]);
                let cut = |t: &Tensor| t.narrow(0, row as i64, 1).narrow(1, 0, real);
                TextBatch::new(cut(&text.ids), cut(&text.mask))
            };
            let alone = prefix.narrow(0, row as i64, 1);
            same &= tokens(model.generate(&alone, &one(&prompts.language), &search)?) == [expected.clone()];
        }
        let measured = if same { "equal".to_owned() } else { format!("{found:?}, not {expected:?}") };
        checks.verdict(&format!("generate {name}"), same, &measured);
    }
    Ok(())
}

fn ids(tensor: &Tensor) -> Vec<i64> {
    Vec::try_from(tensor.to_kind(Kind::Int64).contiguous().view([-1])).unwrap_or_default()
}

/// Real tokens of each row, without image positions.
fn rows(tensors: &Golden, name: &str, mask: &str, image_token: i64) -> Vec<Vec<u32>> {
    let (tokens, mask) = (tensors.get(name), tensors.get(mask));
    let row = |at: i64| {
        let real = ids(&mask.get(at));
        ids(&tokens.get(at))
            .into_iter()
            .zip(real)
            .filter(|(id, real)| *real != 0 && *id != image_token)
            .map(|(id, _)| id as u32)
            .collect()
    };
    (0..tokens.size()[0]).map(row).collect()
}

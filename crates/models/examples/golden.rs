//! Compares the networks with what transformers computed: `golden MODEL_FOLDER GOLDEN_FOLDER`.
//!
//! The golden folder holds `golden.safetensors` (inputs, image features, Q-Former and encoder states, forced logits, loss) and `golden.json`
//! (generated tokens). Exits with 1 if anything differs by more than 3e-5 of the largest expected value.

#![allow(clippy::print_stdout)]

use std::{path::Path, process::ExitCode};

use ressa_experiment::job::SearchOptions;
use ressa_models::{
    Answer, Prompts, Search, TextBatch, VisionLanguage,
    folder::{read_config, read_generation},
    load_instructblip,
};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions};
use ressa_testkit::{Golden, difference};
use serde_json::Value;
use tch::{Kind, Tensor};

const TOLERANCE: f64 = 3e-5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, model, golden] = arguments.as_slice() else {
        println!("usage: golden MODEL_FOLDER GOLDEN_FOLDER");
        return ExitCode::from(2);
    };
    match compare(Path::new(model), Path::new(golden)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(folder: &Path, golden: &Path) -> Result<bool, Box<dyn std::error::Error>> {
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 })?;
    let _no_grad = tch::no_grad_guard();
    let (config, generation) = (read_config(folder)?, read_generation(folder)?);
    let model = load_instructblip(folder, device)?;
    let tensors = Golden::open(golden.join("golden.safetensors"));
    let text: Value = serde_json::from_slice(&std::fs::read(golden.join("golden.json"))?)?;
    let image_token = text["image_token_index"].as_i64().unwrap_or(-1);
    let eos = text["eos_token_id"].as_i64().unwrap_or(-1);
    let pad = text["pad_token_id"].as_i64().unwrap_or(0);
    let mut good = true;
    let mut check = |what: &str, actual: &Tensor, expected: &Tensor| {
        if actual.size() != expected.size() {
            println!("FAIL {what}: shape {:?}, expected {:?}", actual.size(), expected.size());
            good = false;
            return;
        }
        let found = difference(actual, expected);
        let ok = found.within(TOLERANCE);
        good &= ok;
        println!(
            "{} {what}: {:.1e} of {:.3}",
            if ok { "ok  " } else { "FAIL" },
            found.largest / found.scale,
            found.scale
        );
    };

    // Of rounded weights only the answers' logits were exported.
    let rounded = folder.display().to_string().ends_with("bf16");
    let features = model.encode_images(&tensors.get("pixel_values"));
    if !rounded {
        check("vision", &features, &tensors.get("vision_last_hidden_state"));
    }

    let qformer = rows(&tensors, "in.qformer_input_ids", "in.qformer_attention_mask", -1);
    let language = rows(&tensors, "in.input_ids", "in.attention_mask", image_token);
    let count = qformer.len() as i64;
    let prompts = Prompts {
        image: Tensor::arange(count, (Kind::Int64, device)),
        qformer: TextBatch::pad(&qformer, 0, device),
        language: TextBatch::pad(&language, pad as u32, device),
    };
    let queries = model.query_output(&features, &prompts);
    let prefix = model.project(&queries);
    if !rounded {
        check("queries", &queries, &tensors.get("qformer_query_output"));
        check("prefix", &prefix, &tensors.get("language_model_inputs"));
    }
    if let Some(states) = model.encode_prompt(&prefix, &prompts.language) {
        let expected = tensors.get("t5_encoder_last_hidden_state");
        let real = prompts
            .language
            .mask
            .constant_pad_nd([prefix.size()[1], 0])
            .logical_or(&position_before(&states, prefix.size()[1]));
        let real = real.unsqueeze(-1).to_kind(Kind::Float);
        check("encoder", &(states * &real), &(expected * &real));
    }

    let (instruction, answers) = training_rows(&tensors, image_token, eos);
    let batch = TextBatch::pad(&instruction, pad as u32, device);
    let forced = model.force(Some(&prefix), &batch, &answers);
    let loss = forced.loss();
    let expected_logits = tensors.get("train_logits");
    let labels = tensors.get("train.labels");
    let decoder_only = expected_logits.size()[1] > forced.logits.size()[1] + 1;
    let mut mine = Vec::new();
    let mut theirs = Vec::new();
    for row in 0..count {
        let real: Vec<i64> =
            ids(&labels.get(row)).iter().enumerate().filter(|(_, l)| **l != -100).map(|(at, _)| at as i64).collect();
        for (t, at) in real.into_iter().enumerate() {
            mine.push(forced.logits.get(row).get(t as i64));
            theirs.push(expected_logits.get(row).get(if decoder_only { at - 1 } else { at }));
        }
    }
    let (mine, theirs) = (Tensor::stack(&mine, 0), Tensor::stack(&theirs, 0));
    if rounded {
        check("answer logits, bf16 weights", &mine, &tensors.get("bf16_weights_fp32_compute.answer_logits"));
    } else {
        check("forced logits", &mine, &theirs);
        check("loss", &loss.view([1]), &tensors.get("train_loss"));
    }

    for (name, case) in text["generate"].as_object().into_iter().flatten() {
        let options = &case["options"];
        if rounded {
            continue;
        }
        let options: SearchOptions = serde_json::from_value(options.clone())?;
        let search = Search::resolve(&options, &generation, &config.text_config)?;
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["tokens"].clone())?;
        let tokens = |found: Vec<Answer>| found.into_iter().map(|answer| answer.tokens).collect::<Vec<_>>();
        let found = tokens(model.generate(&prefix, &prompts.language, &search)?);
        let mut same = found == expected;
        for (row, expected) in expected.iter().enumerate() {
            let one = |text: &TextBatch| {
                let real = text.mask.get(row as i64).sum(Kind::Int64).int64_value(&[]);
                let cut = |t: &Tensor| t.narrow(0, row as i64, 1).narrow(1, 0, real);
                TextBatch { ids: cut(&text.ids), mask: cut(&text.mask) }
            };
            let alone = prefix.narrow(0, row as i64, 1);
            same &= tokens(model.generate(&alone, &one(&prompts.language), &search)?) == [expected.clone()];
        }
        println!("{} generate {name}", if same { "ok  " } else { "FAIL" });
        if !same {
            println!("     {found:?}\n     {expected:?}");
            good = false;
        }
    }
    Ok(good)
}

/// True at the first `count` positions.
fn position_before(states: &Tensor, count: i64) -> Tensor {
    Tensor::arange(states.size()[1], (Kind::Int64, Device::Cpu)).less(count).unsqueeze(0)
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

/// Instruction and answer (without its end token) of each training row. Decoder-only rows hold both in one sequence.
fn training_rows(tensors: &Golden, image_token: i64, eos: i64) -> (Vec<Vec<u32>>, Vec<Vec<u32>>) {
    let labels = tensors.get("train.labels");
    let sequences = rows(tensors, "train.input_ids", "train.attention_mask", image_token);
    let mut instructions = Vec::new();
    let mut answers = Vec::new();
    for (row, mut sequence) in sequences.into_iter().enumerate() {
        let answer: Vec<u32> =
            ids(&labels.get(row as i64)).into_iter().filter(|&l| l != -100).map(|l| l as u32).collect();
        if labels.size()[1] == tensors.get("train.input_ids").size()[1] {
            sequence.truncate(sequence.len() - answer.len());
        }
        instructions.push(sequence);
        answers.push(answer.strip_suffix(&[eos as u32]).map_or(answer.clone(), <[u32]>::to_vec));
    }
    (instructions, answers)
}

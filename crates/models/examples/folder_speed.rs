//! Times a folder's teacher-forced pass and search: `folder_speed FOLDER INPUTS SEARCH THREADS REPEATS`.
//!
//! `INPUTS` is a safetensors file with `pixel_values` (one image per row), `qformer_ids`, `qformer_mask`, `language_ids`, `language_mask`
//! (without image positions, padded right) and `answers` (padded with -100); `SEARCH` is JSON with the names of `SearchOptions`. The search
//! asks every row about the first image. Prints JSON: seconds of loading, wall and CPU seconds of each repeat, tokens.
//! `scripts/bench_transformers.py` calls it.

#![allow(clippy::print_stdout)]

use std::{path::Path, time::Instant};

use ressa_models::{
    Prompts, Search, TextBatch,
    folder::{read_config, read_generation},
    load_folder,
};
use ressa_runtime::{DeviceChoice, RuntimeOptions, cpu_seconds};
use ressa_testkit::Golden;
use serde_json::json;
use tch::{Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, inputs, search, threads, repeats] = arguments.as_slice() else {
        return Err("usage: folder_speed FOLDER INPUTS SEARCH THREADS REPEATS".into());
    };
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: threads.parse()? })?;
    let _no_grad = tch::no_grad_guard();
    let folder = Path::new(folder);
    let start = Instant::now();
    let model = load_folder(folder, device)?;
    let load = start.elapsed().as_secs_f64();
    let search =
        Search::resolve(&serde_json::from_str(search)?, &read_generation(folder)?, read_config(folder)?.text_config())?;
    let inputs = Golden::open(inputs);
    let text = |name: &str| {
        let mask = inputs.get(&format!("{name}_mask")).to_kind(Kind::Bool);
        TextBatch::new(inputs.get(&format!("{name}_ids")), mask)
    };
    let pixels = inputs.get("pixel_values");
    let rows = pixels.size()[0];
    let prompts = |image: Tensor| Prompts { image, qformer: text("qformer"), language: text("language") };
    let each = prompts(Tensor::arange(rows, (Kind::Int64, device)));
    let shared = prompts(Tensor::zeros([rows], (Kind::Int64, device)));
    let labels = inputs.get("answers");
    let answers: Vec<Vec<u32>> = (0..rows)
        .map(|row| {
            Vec::<i64>::try_from(labels.get(row))
                .map(|ids| ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
        })
        .collect::<Result<_, _>>()?;

    let (mut loss, mut tokens) = (0.0, Vec::new());
    let mut forward = Vec::new();
    let mut generate = Vec::new();
    for _ in 0..repeats.parse::<usize>()? {
        forward.push(timed(|| {
            let prefix = model.visual_prefix(&model.encode_images(&pixels), &each);
            loss = model.force(Some(&prefix), &each.language, &answers).loss().double_value(&[]);
            Ok(())
        })?);
        generate.push(timed(|| {
            let prefix = model.visual_prefix(&model.encode_images(&pixels.narrow(0, 0, 1)), &shared);
            let found = model.generate(&prefix, &shared.language, &search)?;
            tokens = found.into_iter().map(|answer| answer.tokens).collect();
            Ok(())
        })?);
    }
    println!("{}", json!({ "load": load, "forward": forward, "generate": generate, "loss": loss, "tokens": tokens }));
    Ok(())
}

/// Wall and CPU seconds.
fn timed(work: impl FnOnce() -> Result<(), ressa_models::ModelError>) -> Result<[f64; 2], ressa_models::ModelError> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    Ok([start.elapsed().as_secs_f64(), cpu_seconds() - cpu])
}

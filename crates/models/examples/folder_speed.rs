//! Times a folder's teacher-forced pass and search: `folder_speed FOLDER INPUTS SEARCH THREADS REPEATS`.
//!
//! `INPUTS` is a safetensors file with `pixel_values` (one image per row), `qformer_ids`, `qformer_mask`, `language_ids`, `language_mask`
//! (without image positions, padded right) and `answers` (padded with -100). Where images stand among words, `before` is what stands before a
//! text, `image_token` the id that stands for a feature, `grid` frames, rows and columns of an image, `mosaic` rows and columns of its tiles,
//! features along a side and what is cut of both axes. `SEARCH` is JSON with the names of `SearchOptions`. The search
//! asks every row about the first image. Prints JSON: seconds of loading, wall and CPU seconds of each repeat, tokens.
//! `scripts/bench_transformers.py` calls it.

#![allow(clippy::print_stdout)]

use std::{path::Path, sync::Arc, time::Instant};

use ressa_models::{
    Layout, Mosaic, Prompts, Search, TextBatch,
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
    let layout = layout(&inputs)?.map(Arc::new);
    let pixels = inputs.get("pixel_values");
    let rows = pixels.size()[0];
    let prompts =
        |image: Tensor| Prompts { image, qformer: text("qformer"), language: text("language").behind(layout.clone()) };
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
            let found = model.answer(&model.encode_images(&pixels.narrow(0, 0, 1)), &shared, &search)?;
            tokens = found.into_iter().map(|answer| answer.tokens).collect();
            Ok(())
        })?);
    }
    println!("{}", json!({ "load": load, "forward": forward, "generate": generate, "loss": loss, "tokens": tokens }));
    Ok(())
}

/// What stands before every text.
fn layout(inputs: &Golden) -> Result<Option<Layout>, Box<dyn std::error::Error>> {
    let numbers = |name: &str| -> Result<Option<Vec<u32>>, Box<dyn std::error::Error>> {
        if !inputs.contains(name) {
            return Ok(None);
        }
        let whole = Vec::<i64>::try_from(inputs.get(name).to_kind(Kind::Int64))?;
        Ok(Some(whole.into_iter().map(u32::try_from).collect::<Result<_, _>>()?))
    };
    let (Some(ids), Some(image)) = (numbers("before")?, numbers("image_token")?) else { return Ok(None) };
    let grid = numbers("grid")?.map(<[u32; 3]>::try_from).transpose().map_err(|_| "`grid` has three numbers")?;
    let mosaic = numbers("mosaic")?.map(<[u32; 5]>::try_from).transpose().map_err(|_| "`mosaic` has five numbers")?;
    Ok(Some(Layout {
        ids,
        image_token: image.first().copied().unwrap_or_default(),
        grids: Vec::from_iter(grid),
        mosaic: mosaic.map(|[rows, columns, side, above, left]| Mosaic {
            tiles: [rows, columns],
            side,
            cut: [above, left],
        }),
    }))
}

/// Wall and CPU seconds.
fn timed(work: impl FnOnce() -> Result<(), ressa_models::ModelError>) -> Result<[f64; 2], ressa_models::ModelError> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    work()?;
    Ok([start.elapsed().as_secs_f64(), cpu_seconds() - cpu])
}

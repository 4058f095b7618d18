//! Prunes the image encoder and the language model of a published shape, in memory, and prints seconds as JSON:
//! `tower_speed NAME METHOD PATTERN SAMPLES DEVICE DTYPE [VISION LANGUAGE]`, such as `instructblip-flan-t5-xl wanda 50 128 cuda:0 bfloat16`. Two numbers at
//! the end make the towers shorter; an encoder-decoder has so many blocks in either half.
//!
//! Weights are random, and drawn on the device; loading is not timed.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use ressa_experiment::{
    Pattern, Tower,
    config::{MethodConfig, Propagate, TokenConfig},
    job::Compute,
};
use ressa_models::{
    Architecture, LoadOptions, Model, Prompts, Sample, TensorMap, TextBatch, VisionLanguage,
    config::{GenerationConfig, TextConfig},
    published::published_config,
};
use ressa_prune::{PruneRequest, TowerInputs, solve_tower};
use ressa_runtime::RuntimeOptions;
use tch::{Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>())
}

fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let ([name, method, pattern, samples, device, dtype, blocks @ ..], 6 | 8) = (arguments, arguments.len()) else {
        return Err("usage: tower_speed NAME METHOD PATTERN SAMPLES DEVICE DTYPE [VISION LANGUAGE]".into());
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
    let device = ressa_runtime::init(&RuntimeOptions { device: device.parse()?, threads })?;
    let _no_grad = tch::no_grad_guard();
    let compute: Compute = dtype.parse()?;
    let options = LoadOptions { compute, ..LoadOptions::on(device) };
    let mut config = published_config(name).ok_or_else(|| format!("no published model `{name}`"))?;
    if let [vision, language] = blocks {
        config.vision_config.num_hidden_layers = vision.parse()?;
        let language = language.parse()?;
        match &mut config.text_config {
            TextConfig::T5(text) => (text.num_layers, text.num_decoder_layers) = (language, Some(language)),
            TextConfig::Llama(text) | TextConfig::Qwen2(text) | TextConfig::Mistral(text) => {
                text.num_hidden_layers = language
            }
            TextConfig::Opt(text) => text.num_hidden_layers = language,
        }
    }
    let mut tensors = TensorMap::new();
    for (name, shape) in Model::tensor_shapes(&config)? {
        let fan_in: i64 = shape.iter().skip(1).product();
        let spread = if shape.len() == 1 { 1.0 } else { (fan_in.max(1) as f64).powf(-0.5) };
        tensors.insert(name, Tensor::randn(shape.as_slice(), (options.kind(), device)) * spread);
    }
    let special = config.special_tokens(&GenerationConfig::default());
    let mut model = Model::load(&config, special, &mut &tensors, &options)?;
    drop(tensors);

    let side = config.vision_config.image_size;
    let text = |from: u32, length: u32| TextBatch::pad(&[(from..from + length).collect()], 0, device);
    let samples: Vec<Sample> = (0..samples.parse::<u32>()?)
        .map(|at| Sample {
            pixels: Tensor::randn([1, 3, side, side], (Kind::Float, device)),
            prompt: Prompts {
                image: Tensor::zeros([1], (Kind::Int64, device)),
                qformer: text(1000, 8),
                language: text(100, 8),
            },
            answer: (200..208 + at % 8).collect(),
        })
        .collect();
    let (pattern, sparsity) = match pattern.split_once(':') {
        Some((keep, of)) => (Pattern::NOfM { keep: keep.parse()?, of: of.parse()? }, None),
        None => (Pattern::Unstructured, Some(pattern.parse::<f64>()? / 100.0)),
    };
    for tower in [Tower::Vision, Tower::Language] {
        let request = PruneRequest {
            tower,
            metric: method.parse()?,
            method: MethodConfig::default(),
            pattern,
            sparsity,
            group: None,
            propagate: Propagate::Pruned,
            tokens: TokenConfig::default(),
            seed: 0,
        };
        let inputs = TowerInputs { samples: &samples, ..TowerInputs::default() };
        let clock = Instant::now();
        let masks = solve_tower(&mut model as &mut dyn VisionLanguage, &request, inputs, &mut |_| ())?.masks;
        // What was only launched is waited for.
        let kept = masks.iter().next().map(|(_, keep)| keep.kept());
        let seconds = clock.elapsed().as_secs_f64();
        println!(
            "{{\"tower\": \"{tower}\", \"seconds\": {seconds:.3}, \"layers\": {}, \"kept\": {kept:?}}}",
            masks.len()
        );
    }
    Ok(())
}

//! Likelihoods of options beside single passes.

use std::path::Path;

use ressa_data::{Benchmark, Content, Family, Processor, tokenizer::VOCABULARY_SIZE, write_processor_files};
use ressa_eval::{Batching, PredictOptions, Prediction, Prepared, predict};
use ressa_experiment::{
    Task,
    config::{AskingConfig, DataConfig, DataSource},
};
use ressa_models::{Prompts, TextBatch, VisionLanguage, presets};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

/// Largest difference of a sum of logarithms in f32: products of another size.
const TOLERANCE: f64 = 1e-4;

fn benchmark(task: Task) -> Benchmark {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/published");
    let config = DataConfig { source: DataSource::Folder, root: Some(root), ..DataConfig::default() };
    Benchmark::load(&config, task, 100).expect("the miniature").asked(&AskingConfig::default())
}

/// The likelihood of an option by itself, token by token.
fn alone(model: &dyn VisionLanguage, processor: &Processor, pixels: &Tensor, stem: &str, option: &str) -> f64 {
    let batch = |ids: Vec<u32>| TextBatch::pad(&[ids], processor.pad(), Device::Cpu);
    let language = processor.encode_prompt(stem).expect("words");
    let whole = processor.encode_prompt(&format!("{stem} {option}")).expect("words");
    let ids = match whole.strip_prefix(language.as_slice()) {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        _ => processor.encode_answer(option).expect("words"),
    };
    let prompts = Prompts {
        image: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        qformer: batch(processor.encode_qformer(stem).expect("words")),
        language: batch(language),
    };
    let prefix = model.visual_prefix(&model.encode_images(pixels), &prompts);
    let forced = model.force(Some(&prefix), &prompts.language, std::slice::from_ref(&ids));
    let chances = forced.logits.softmax(-1, Kind::Double);
    ids.iter().enumerate().map(|(at, id)| chances.double_value(&[0, at as i64, i64::from(*id)]).ln()).sum()
}

#[test]
fn options_have_the_likelihood_that_each_has_alone() {
    for family in [Family::T5, Family::Llama] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_processor_files(folder.path(), family, 10).expect("files are written");
        let processor = Processor::load(folder.path()).expect("files are read");
        let words = VOCABULARY_SIZE as i64;
        let mut config =
            if family == Family::T5 { presets::shapes_flant5(words) } else { presets::shapes_vicuna(words) };
        config.qformer_config.max_position_embeddings = 128;
        let model = presets::random(&config, 3).expect("a model");
        for task in [Task::Mmbench, Task::Scienceqa] {
            let benchmark = benchmark(task);
            let prepared = Prepared::new(&processor, &benchmark, Device::Cpu).expect("texts");
            let found = |batching| {
                let options = PredictOptions { batching, published: true, ..PredictOptions::default() };
                tch::no_grad(|| predict(&model, &prepared, &options, &mut |_| ()).expect("predictions"))
            };
            let [one, many, padded] = [Batching::exact(1), Batching::exact(64), Batching::padded(5)].map(found);
            for (at, item) in benchmark.items().iter().enumerate() {
                let Content::Choice { stem, options, .. } = &item.content else { panic!("{item:?}") };
                let image = benchmark.images()[item.image].image().expect("an image");
                let (height, width) = processor.image_size();
                let pixels = processor.pixels([image.as_ref()]).expect("pixels");
                let pixels = Tensor::from_slice(&pixels).view([1, 3, i64::from(height), i64::from(width)]);
                for batches in [&one, &many, &padded] {
                    let Prediction::Choice { log_likelihoods, tokens, .. } = &batches[at] else { panic!("no choice") };
                    assert_eq!((log_likelihoods.len(), tokens.len()), (options.len(), options.len()));
                    for (option, value) in options.iter().zip(log_likelihoods) {
                        let expected = tch::no_grad(|| alone(&model, &processor, &pixels, stem, option));
                        assert!((value - expected).abs() < TOLERANCE, "{task} {option}: {value} instead of {expected}");
                    }
                }
            }
        }
    }
}

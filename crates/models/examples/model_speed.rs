//! Times a training step of the embedded world's models: forward and backward of each part, CPU milliseconds, one thread.

#![allow(clippy::print_stdout)]

use ressa_models::{
    Infer, Model, Prompts, Search, TensorMap, TextBatch,
    presets::{random_tensors, shapes_flant5, shapes_vicuna},
};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions, cpu_seconds};
use tch::{Kind, Tensor};

const IMAGES: i64 = 16;
const ROWS: i64 = 96;
const REPEATS: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: 1 })?;
    for (name, config) in [("shapes-flant5", shapes_flant5(140)), ("shapes-vicuna", shapes_vicuna(140))] {
        let tensors = random_tensors(&config, 0)?;
        let trained: TensorMap = tensors.iter().map(|(n, t)| (n.clone(), t.copy().set_requires_grad(true))).collect();
        let pixels = Tensor::randn([IMAGES, 3, 48, 48], (Kind::Float, Device::Cpu));
        let text = |length: usize| -> Vec<Vec<u32>> {
            (0..ROWS as usize)
                .map(|row| (0..length - row % 3).map(|t| (3 + (row * 7 + t * 13) % 130) as u32).collect())
                .collect()
        };
        let prompts = Prompts {
            image: Tensor::arange(ROWS, (Kind::Int64, Device::Cpu)).divide_scalar_mode(ROWS / IMAGES, "floor"),
            qformer: TextBatch::pad(&text(11), 0, Device::Cpu),
            language: TextBatch::pad(&text(11), 0, Device::Cpu),
        };
        let answers: Vec<Vec<u32>> = (0..ROWS as u32).map(|row| vec![3 + row % 50]).collect();

        println!("{name}: {IMAGES} images, {ROWS} questions");
        let model = Model::from_tensors(&config, &trained)?;
        time("  image encoder, forward and backward", || model.encode_images(&pixels).sum(Kind::Float).backward());
        let features = tch::no_grad(|| model.encode_images(&pixels));
        time("  Q-Former and projection, forward and backward", || {
            model.visual_prefix(&features, &prompts).sum(Kind::Float).backward();
        });
        let prefix = tch::no_grad(|| model.visual_prefix(&features, &prompts));
        time("  language model, forward and backward", || {
            model.force(Some(&prefix), &prompts.language, &answers).loss().backward();
        });
        time("  a whole step without the optimizer", || {
            let features = model.encode_images(&pixels);
            let prefix = model.visual_prefix(&features, &prompts);
            model.force(Some(&prefix), &prompts.language, &answers).loss().backward();
        });
        let frozen = Model::from_tensors(&config, &tensors)?;
        let _no_grad = tch::no_grad_guard();
        for (what, search) in [
            ("  greedy, 2 tokens, from pixels", Search { max_new_tokens: 2, ..Search::default() }),
            ("  greedy, 24 tokens, from pixels", Search { max_new_tokens: 24, ..Search::default() }),
        ] {
            time(what, || {
                let prefix = frozen.visual_prefix(&frozen.encode_images(&pixels), &prompts);
                frozen.generate(&prefix, &prompts.language, &search).expect("nothing limits the prompt");
            });
        }
    }
    Ok(())
}

fn time(what: &str, mut work: impl FnMut()) {
    work();
    let start = cpu_seconds();
    (0..REPEATS).for_each(|_| work());
    println!("{what}: {:.1} ms", (cpu_seconds() - start) * 1e3 / REPEATS as f64);
}

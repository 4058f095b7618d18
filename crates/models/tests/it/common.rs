//! Small models and prompts that several tests use.

use ressa_models::{
    Blip2Config, Flow, InBlocks, Infer, Model, Prompts, TextBatch, Tower,
    presets::{random, tiny_blip2_flant5, tiny_blip2_opt, tiny_flant5, tiny_vicuna},
};
use tch::{Device, Kind, Tensor};

pub const VOCABULARY: i64 = 40;

fn made(configs: impl IntoIterator<Item = (&'static str, Blip2Config)>) -> Vec<(&'static str, Model)> {
    configs.into_iter().map(|(name, config)| (name, random(&config, 7).expect("presets are sound"))).collect()
}

/// InstructBLIP with both of its language models, by name.
pub fn instructed() -> Vec<(&'static str, Model)> {
    made([("flant5", tiny_flant5(VOCABULARY)), ("vicuna", tiny_vicuna(VOCABULARY))])
}

/// Every family that writes, by name.
pub fn models() -> Vec<(&'static str, Model)> {
    let mut models = instructed();
    models.extend(made([
        ("blip2-flant5", tiny_blip2_flant5(VOCABULARY)),
        ("blip2-opt", tiny_blip2_opt(VOCABULARY, true)),
        ("blip2-opt, norms after", tiny_blip2_opt(VOCABULARY, false)),
    ]));
    models
}

/// Pixels that differ by image, `[images, 3, 16, 16]`.
pub fn pixels(images: i64) -> Tensor {
    let count = images * 3 * 16 * 16;
    let wave = Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37;
    (wave.sin() * 1.5).view([images, 3, 16, 16])
}

/// Instructions of different lengths over two images.
pub fn instructions() -> (Vec<i64>, Vec<Vec<u32>>) {
    (
        vec![0, 0, 1, 1, 0],
        vec![vec![5, 6, 7, 8, 9, 10, 11], vec![12], vec![5, 30, 31, 8], vec![9, 9], vec![33, 34, 35, 36, 37]],
    )
}

/// Answers of different lengths, one empty.
pub fn answers() -> Vec<Vec<u32>> {
    vec![vec![20, 21, 22], vec![], vec![23], vec![24, 25, 26, 27, 28], vec![29, 30]]
}

/// Prompts for these rows, the same text for both readers.
pub fn prompts(images: &[i64], texts: &[Vec<u32>]) -> Prompts {
    Prompts {
        image: Tensor::from_slice(images),
        qformer: TextBatch::pad(texts, 0, Device::Cpu),
        language: TextBatch::pad(texts, 0, Device::Cpu),
    }
}

/// The language model's prefix for prompts over the images of [`pixels`].
pub fn prefix(model: &Model, prompts: &Prompts) -> Tensor {
    model.visual_prefix(&model.encode_images(&pixels(2)), prompts)
}

/// The parts of every block, in their order, make of what enters it what the block makes; each changes something.
pub fn parts_are_blocks(name: &str, model: &Model, tower: Tower, entry: &Flow) {
    let mut flow = entry.shallow_clone();
    for block in 0..model.blocks(tower) {
        let whole = model.run_block(tower, block, &flow);
        let mut part_by_part = flow.shallow_clone();
        for part in 0..model.parts(tower, block) {
            let next = model.run_part(tower, block, part, &part_by_part);
            let same = next.hidden.size() == part_by_part.hidden.size() && next.hidden.equal(&part_by_part.hidden);
            assert!(!same, "{name} {tower} {block}: part {part} does nothing");
            part_by_part = next;
        }
        let label = format!("{name} {tower} {block}");
        ressa_testkit::assert_close(&label, &part_by_part.hidden, &whole.hidden, 1e-6);
        assert_eq!(part_by_part.companions().len(), whole.companions().len(), "{label}");
        flow = whole;
    }
}

//! What only some families have: matching, image encoders exchanged between models, images of other sizes.

use ressa_models::{
    Blip2Config, InBlocks, Infer, Model, Retrieve, Search, Surgery, TextBatch, Tower,
    presets::{random, tiny_flant5, tiny_retrieval},
    vit::interpolate_positions,
};
use ressa_testkit::assert_close;
use tch::{Device, Kind, Tensor};

use crate::common::{VOCABULARY, instructions, models, pixels};

const TOLERANCE: f64 = 1e-5;

fn retrieval() -> Model {
    random(&tiny_retrieval(VOCABULARY), 5).expect("presets are sound")
}

#[test]
fn matching_looks_at_the_image_and_reads_the_caption_row_by_row() {
    let _no_grad = tch::no_grad_guard();
    let model = retrieval();
    let (images, texts) = instructions();
    let features = model.encode_images(&pixels(2));
    let captions = TextBatch::pad(&texts, 0, Device::Cpu);
    let together = model.matching_scores(&features, &Tensor::from_slice(&images), &captions).expect("it has the head");
    assert_eq!((together.size(), together.kind()), (vec![5], Kind::Float));
    for row in 0..texts.len() {
        let alone = TextBatch::pad(&texts[row..=row], 0, Device::Cpu);
        let score =
            |image: i64| model.matching_scores(&features, &Tensor::from_slice(&[image]), &alone).expect("as before");
        let difference = together.double_value(&[row as i64]) - score(images[row]).double_value(&[0]);
        assert!(difference.abs() < 1e-5, "row {row} differs by {difference}");
        assert!((score(0) - score(1)).abs().double_value(&[0]) > 1e-3, "the score does not see the image");
    }
    let spread = together.std(true).double_value(&[]);
    assert!(spread > 1e-3, "the score does not see the caption");
    assert!(model.linears().iter().all(|(id, _)| id.tower != Tower::Language));
    assert!(!model.writes() && model.blocks(Tower::Language) == 0);
    let refused = model.generate(&features, &captions, &Search::default()).expect_err("it has no words").to_string();
    assert!(refused.contains("no language model"), "{refused}");
    for (name, writer) in models() {
        assert!(writer.matching_scores(&features, &Tensor::from_slice(&images), &captions).is_none(), "{name}");
    }
}

#[test]
fn retrieval_embeddings_are_of_length_one_whatever_the_padding() {
    let _no_grad = tch::no_grad_guard();
    let model = retrieval();
    let (_, texts) = instructions();
    let found = model.retrieval_texts(&TextBatch::pad(&texts, 0, Device::Cpu)).expect("it has the head");
    for (row, text) in texts.iter().enumerate() {
        let alone = TextBatch::pad(std::slice::from_ref(text), 0, Device::Cpu);
        let alone = model.retrieval_texts(&alone).expect("as before");
        assert_close("text", &found.narrow(0, row as i64, 1), &alone, TOLERANCE);
        assert!((alone.norm().double_value(&[]) - 1.0).abs() < 1e-5);
    }
    let images = model.retrieval_images(&model.encode_images(&pixels(2))).expect("it has the head");
    assert_eq!(images.size(), [2, 3, 8]);
}

/// Weight of a pixel at a distance, as libtorch and Pillow have it for `a` = -0.75 and -0.5.
fn cubic(distance: f64, a: f64) -> f64 {
    let d = distance.abs();
    match d {
        _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
        _ if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * a,
        _ => 0.0,
    }
}

#[test]
fn positions_are_interpolated_by_the_cubic_formula() {
    const SIDE: i64 = 3;
    let (rows, columns) = (5, 4);
    let value = |row: i64, column: i64| (1.3 * row as f64 + 0.7).sin() * (0.9 * column as f64 + 0.2).cos() * 2.0;
    let grid: Vec<f64> = (0..SIDE * SIDE).map(|at| value(at / SIDE, at % SIDE)).collect();
    let class = Tensor::from_slice(&[9.0]);
    let table = Tensor::cat(&[class, Tensor::from_slice(&grid)], 0).view([1, -1, 1]).to_kind(Kind::Float);
    let found = interpolate_positions(&table, rows, columns);
    assert_eq!(found.size(), [1, 1 + rows * columns, 1]);
    assert_eq!(found.double_value(&[0, 0, 0]), 9.0, "the class token keeps its own");
    // Centres of pixels fall onto centres; beyond the edge the edge goes on.
    let taps = |at: i64, of: i64| {
        let source = (at as f64 + 0.5) * SIDE as f64 / of as f64 - 0.5;
        let first = source.floor() as i64 - 1;
        (first..first + 4).map(move |k| (k.clamp(0, SIDE - 1), cubic(source - k as f64, -0.75)))
    };
    for row in 0..rows {
        for column in 0..columns {
            let expected: f64 =
                taps(row, rows).flat_map(|(r, a)| taps(column, columns).map(move |(c, b)| a * b * value(r, c))).sum();
            let found = found.double_value(&[0, 1 + row * columns + column, 0]);
            assert!((found - expected).abs() < 1e-5, "{row} {column}: {found}, not {expected}");
        }
    }
    assert!(interpolate_positions(&table, SIDE, SIDE).equal(&table));
}

#[test]
fn an_image_encoder_moves_into_a_model_for_larger_images() {
    let _no_grad = tch::no_grad_guard();
    let mut host_config: Blip2Config = tiny_retrieval(VOCABULARY);
    host_config.vision_config.image_size = 32;
    let host = random(&host_config, 5).expect("presets are sound");
    let mut guest = random(&tiny_flant5(VOCABULARY), 6).expect("presets are sound");
    for (id, linear) in guest.linears_mut() {
        let keep = if id.role == "fc1" { Some(linear.weight().gt(0.0)) } else { None };
        linear.set_mask(keep).expect("same shape");
    }
    let large = (Tensor::arange(2 * 3 * 32 * 32, (Kind::Float, Device::Cpu)) * 0.11).sin().view([2, 3, 32, 32]);
    let moved = host.with_vision_of(&guest).expect("same shape");
    // The guest interpolates its positions whenever it sees an image of this size.
    assert!(moved.encode_images(&large).equal(&guest.encode_images(&large)));
    assert!(!moved.encode_images(&large).equal(&host.encode_images(&large)));
    let features = moved.encode_images(&large);
    let images = moved.retrieval_images(&features).expect("the heads are the host's");
    assert!(images.equal(&host.retrieval_images(&features).expect("as before")));

    let mut other = tiny_flant5(VOCABULARY);
    other.vision_config.num_hidden_layers = 3;
    let other = random(&other, 6).expect("presets are sound");
    let error = host.with_vision_of(&other).err().expect("another depth").to_string();
    assert!(error.contains("3 blocks"), "{error}");
}

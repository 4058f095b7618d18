//! Stage 1: the image encoder alone learns what lies in each patch, and which patch that is.

use rand::RngExt;
use ressa_models::Infer;
use tch::{Kind, Tensor};

use crate::{
    auxiliary::{Auxiliary, CONTENT_LOGITS, PATCH_SIDE, content_loss},
    compose::patch_labels,
    corpus::Corpus,
    parameters::stream,
    recipe::Recipe,
    shards::{Measured, SHARDS, Shard},
};

/// Weight of the row and column of a patch beside its content.
const PLACE_WEIGHT: f64 = 0.5;

/// One shard's part of a step.
pub fn objective(
    shard: &Shard,
    number: usize,
    step: u32,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    seed: u64,
) -> (Tensor, Measured) {
    let mut rng = stream(seed, "vision", u64::from(step) * SHARDS as u64 + number as u64);
    let picks: Vec<usize> = (0..recipe.vision_images / SHARDS).map(|_| rng.random_range(0..corpus.images())).collect();
    let features = shard.model.encode_images(&corpus.pixels(&picks));
    (patch_loss(&shard.auxiliary, &features, corpus, &picks), Measured::default())
}

/// Content, row and column of every patch, from image features `[images, 1 + 36, width]`.
pub fn patch_loss(heads: &Auxiliary, features: &Tensor, corpus: &Corpus<'_>, picks: &[usize]) -> Tensor {
    let patches = PATCH_SIDE * PATCH_SIDE;
    let logits = heads.patch.forward(&features.narrow(1, 1, patches));
    let content = content_loss(&logits.narrow(2, 0, CONTENT_LOGITS), &patch_labels(&corpus.scenes(picks)));
    let index = Tensor::arange(patches, (Kind::Int64, tch::Device::Cpu)).repeat([picks.len() as i64]);
    let place = |from: i64, labels: Tensor| {
        logits.narrow(2, from, PATCH_SIDE).reshape([-1, PATCH_SIDE]).cross_entropy_for_logits(&labels)
    };
    let row = place(CONTENT_LOGITS, index.divide_scalar_mode(PATCH_SIDE, "floor").to_kind(Kind::Int64));
    let column = place(CONTENT_LOGITS + PATCH_SIDE, index.remainder(PATCH_SIDE));
    content + (row + column) * PLACE_WEIGHT
}

//! Stage 3: the interface alone learns to hand the content of grid cell i over in query i, and to match images with captions.

use rand::RngExt;
use ressa_data::shapes::{Scene, caption};
use ressa_models::{Infer, Prompts, Retrieve};
use tch::{Kind, Tensor};

use crate::{
    TrainError,
    auxiliary::content_loss,
    compose::cell_labels,
    corpus::Corpus,
    parameters::stream,
    recipe::Recipe,
    shards::{Measured, SHARDS, Shard},
};

/// Weight of the contrastive loss.
pub const CONTRASTIVE: f64 = 0.5;
/// Shares of captioning and positional captioning among the instructions; the rest are questions.
const CAPTION_SHARE: f64 = 0.10;
const POSITIONAL_SHARE: f64 = 0.05;

/// One shard's part of a step.
pub fn objective(
    shard: &Shard,
    number: usize,
    step: u32,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    seed: u64,
) -> Result<(Tensor, Measured), TrainError> {
    let mut rng = stream(seed, "interface", u64::from(step) * SHARDS as u64 + number as u64);
    let picks: Vec<usize> =
        (0..recipe.interface_images / SHARDS).map(|_| rng.random_range(0..corpus.images())).collect();
    let features = {
        let _no_grad = tch::no_grad_guard();
        shard.model.encode_images(&corpus.pixels(&picks))
    };
    let texts: Vec<String> = picks
        .iter()
        .map(|&pick| {
            let u: f64 = rng.random();
            if u < CAPTION_SHARE {
                caption::DESCRIBE.to_owned()
            } else if u < CAPTION_SHARE + POSITIONAL_SHARE {
                caption::DESCRIBE_WHERE.to_owned()
            } else {
                corpus.composer.ask(Some(corpus.scene(pick)), &recipe.interface_mix, &mut rng).question.text
            }
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let images: Vec<i64> = (0..picks.len() as i64).collect();
    let prompts = corpus.composer.prompts(&texts, &images)?;
    let scenes = corpus.scenes(&picks);
    let (slots, _) = slot_losses(shard, corpus, &features, &prompts, &scenes);
    let contrastive = contrastive_loss(shard, corpus, &features, &scenes, &mut rng)?;
    Ok((slots + contrastive * CONTRASTIVE, Measured::default()))
}

/// Content labels on the query outputs and distance of the projection to the oracle slots; also the projection itself.
pub fn slot_losses(
    shard: &Shard,
    corpus: &Corpus<'_>,
    features: &Tensor,
    prompts: &Prompts,
    scenes: &[&Scene],
) -> (Tensor, Tensor) {
    let queries = shard.model.query_output(features, prompts);
    let prefix = shard.model.project(&queries);
    let content = content_loss(&shard.auxiliary.slot.forward(&queries.narrow(1, 0, 9)), &cell_labels(scenes));
    let Some(target) = &shard.target else { return (content, prefix) };
    let oracle = target.cells(&corpus.composer, scenes);
    let distance = prefix.narrow(1, 0, 9).mse_loss(&oracle, tch::Reduction::Mean);
    (content + distance, prefix)
}

/// Symmetric in-batch contrastive loss; similarity is the best query's cosine over a learned temperature.
pub fn contrastive_loss(
    shard: &Shard,
    corpus: &Corpus<'_>,
    features: &Tensor,
    scenes: &[&Scene],
    rng: &mut rand_chacha::ChaCha8Rng,
) -> Result<Tensor, TrainError> {
    let captions: Vec<String> = scenes.iter().map(|scene| caption::draw(scene, rng)).collect();
    let texts = corpus.composer.qformer(&captions.iter().map(String::as_str).collect::<Vec<_>>())?;
    let images = shard.model.retrieval_images(features).ok_or(TrainError::NoRetrievalHead)?;
    let texts = shard.model.retrieval_texts(&texts).ok_or(TrainError::NoRetrievalHead)?;
    let similarity = images.matmul(&texts.transpose(0, 1)).amax([1i64].as_slice(), false);
    let logits = similarity * shard.auxiliary.temperature.exp();
    let diagonal = Tensor::arange(scenes.len() as i64, (Kind::Int64, tch::Device::Cpu));
    let forward = logits.cross_entropy_for_logits(&diagonal);
    Ok((forward + logits.transpose(0, 1).cross_entropy_for_logits(&diagonal)) * 0.5)
}

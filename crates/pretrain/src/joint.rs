//! Stage 4: all towers together, on images, with every loss of the stages before.

use rand::RngExt;
use ressa_data::shapes::{Scene, caption};
use ressa_models::Infer;
use tch::Tensor;

use crate::{
    TrainError,
    compose::Asked,
    corpus::Corpus,
    interface::{CONTRASTIVE, contrastive_loss, slot_losses},
    language::{ANSWERS, CAPTIONS, FACTS, ask, describe, facts, measure, pointing},
    parameters::stream,
    recipe::Recipe,
    shards::{Measured, SHARDS, Shard},
    vision::patch_loss,
};

/// Weight of the patch labels and the pointer losses once everything trains together.
const PATCHES: f64 = 0.5;
const POINTERS: f64 = 0.5;

/// One shard's part of a step.
pub fn objective(
    shard: &Shard,
    number: usize,
    step: u32,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    seed: u64,
) -> Result<(Tensor, Measured), TrainError> {
    let mut rng = stream(seed, "joint", u64::from(step) * SHARDS as u64 + number as u64);
    let picks: Vec<usize> = (0..recipe.joint_images / SHARDS).map(|_| rng.random_range(0..corpus.images())).collect();
    let features = shard.model.encode_images(&corpus.pixels(&picks));
    let mut loss = patch_loss(&shard.auxiliary, &features, corpus, &picks) * PATCHES;

    let rows: Vec<i64> = (0..picks.len() as i64).flat_map(|row| vec![row; recipe.joint_questions]).collect();
    let asked: Vec<Asked<'_>> = rows
        .iter()
        .map(|&row| corpus.composer.ask(Some(corpus.scene(picks[row as usize])), &recipe.joint_mix, &mut rng))
        .collect();
    let texts: Vec<&str> = asked.iter().map(|a| a.question.text.as_str()).collect();
    let prompts = corpus.composer.prompts(&texts, &rows)?;
    let scenes: Vec<&Scene> = asked.iter().map(|a| a.scene.as_ref()).collect();
    let (slots, prefix) = slot_losses(shard, corpus, &features, &prompts, &scenes);
    let (forced, states) = ask(shard, corpus, &prefix, &asked)?;
    loss += slots + forced.loss() * ANSWERS;
    if let Some(pointing) = pointing(shard, corpus, recipe, &prefix, &states, &asked, &forced.targets.select(1, 0)) {
        loss += pointing * POINTERS;
    }

    let half = recipe.captions / 2 / SHARDS;
    for (positional, from) in [(false, 0), (true, half)] {
        let images: Vec<i64> = (from as i64..(from + half) as i64).collect();
        let scenes = corpus.scenes(&picks[from..from + half]);
        let instruction = if positional { caption::DESCRIBE_WHERE } else { caption::DESCRIBE };
        let prompts = corpus.composer.prompts(&vec![instruction; half], &images)?;
        let prefix = shard.model.visual_prefix(&features, &prompts);
        loss += describe(shard, corpus, &prefix, &scenes, positional, &mut rng)?.loss() * CAPTIONS;
    }
    loss += contrastive_loss(shard, corpus, &features, &corpus.scenes(&picks), &mut rng)? * CONTRASTIVE;
    loss += facts(shard, corpus, recipe, &mut rng)?.loss() * FACTS;
    Ok((loss, measure(&forced, &asked)))
}

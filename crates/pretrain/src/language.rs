//! Stage 2: the language model alone learns to answer from oracle slots, to caption, and the facts of the world.

use rand_distr::{Distribution, StandardNormal};
use ressa_data::shapes::{Scene, caption};
use ressa_models::{Forced, Infer};
use tch::Tensor;

use crate::{
    TrainError,
    compose::{Asked, groundings, in_one_direction},
    corpus::Corpus,
    parameters::stream,
    pointer::{self, States},
    recipe::Recipe,
    shards::{Measured, SHARDS, Shard},
    slots::SlotParts,
};

/// Weight of answers, captions and facts in the loss.
pub const ANSWERS: f64 = 2.0;
pub const CAPTIONS: f64 = 0.5;
pub const FACTS: f64 = 0.5;

/// One shard's part of a step.
pub fn objective(
    shard: &Shard,
    number: usize,
    step: u32,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    seed: u64,
) -> Result<(Tensor, Measured), TrainError> {
    let composer = &corpus.composer;
    let mut rng = stream(seed, "language", u64::from(step) * SHARDS as u64 + number as u64);
    let parts = slot_parts(shard);
    let noisy = |scenes: &[&Scene], rng: &mut rand_chacha::ChaCha8Rng| {
        let prefix = parts.prefix(composer, scenes);
        let noise: Vec<f32> = (0..prefix.numel()).map(|_| StandardNormal.sample(rng)).collect();
        &prefix + Tensor::from_slice(&noise).view_as(&prefix) * recipe.slot_noise
    };

    let mut asked: Vec<Asked<'_>> =
        (0..recipe.language_questions / SHARDS).map(|_| composer.ask(None, &recipe.language_mix, &mut rng)).collect();
    if f64::from(step) < recipe.one_direction * f64::from(recipe.language.steps) {
        asked.iter_mut().for_each(in_one_direction);
    }
    let scenes: Vec<&Scene> = asked.iter().map(|a| a.scene.as_ref()).collect();
    let prefix = noisy(&scenes, &mut rng);
    let (forced, states) = ask(shard, corpus, &prefix, &asked)?;
    let mut loss = forced.loss() * ANSWERS;
    if let Some(pointing) = pointing(shard, corpus, recipe, &prefix, &states, &asked, &forced.targets.select(1, 0)) {
        loss += pointing * recipe.pointer;
    }

    for positional in [false, true] {
        let scenes: Vec<Scene> =
            (0..recipe.captions / 2 / SHARDS).map(|_| composer.world.training_scene(&mut rng, 1)).collect();
        let scenes: Vec<&Scene> = scenes.iter().collect();
        let prefix = noisy(&scenes, &mut rng);
        loss += describe(shard, corpus, &prefix, &scenes, positional, &mut rng)?.loss() * CAPTIONS;
    }
    loss += facts(shard, corpus, recipe, &mut rng)?.loss() * FACTS;
    Ok((loss, measure(&forced, &asked)))
}

/// The parts of the oracle slots over a shard's leaves.
pub fn slot_parts(shard: &Shard) -> SlotParts {
    SlotParts {
        words: shard.word_embeddings().shallow_clone(),
        place: shard.auxiliary.place.shallow_clone(),
        empty: shard.auxiliary.empty.shallow_clone(),
    }
}

/// Teacher-forced answers, with the states of the blocks that read the question.
pub fn ask(
    shard: &Shard,
    corpus: &Corpus<'_>,
    prefix: &Tensor,
    asked: &[Asked<'_>],
) -> Result<(Forced, Vec<Tensor>), TrainError> {
    let texts: Vec<&str> = asked.iter().map(|a| a.question.text.as_str()).collect();
    let prompt = corpus.composer.language(&texts)?;
    let answers = corpus.composer.answers(asked.iter().map(|a| a.question.answer.as_str()))?;
    Ok(shard.model.force_traced(Some(prefix), &prompt, &answers))
}

/// The pointer losses of a batch of questions; `answers` are the first tokens of the answers, i64 `[rows]`.
pub fn pointing(
    shard: &Shard,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    prefix: &Tensor,
    states: &[Tensor],
    asked: &[Asked<'_>],
    answers: &Tensor,
) -> Option<Tensor> {
    let after = |block: usize| states.get(block.checked_sub(1)?);
    let states = States {
        pointed: after(recipe.pointer_block)?,
        compared: after(recipe.comparison_block)?,
        decided: after(recipe.truth_block)?,
        last: states.last()?,
        offset: prefix.size()[1] as usize + corpus.composer.leading,
        trailing: corpus.composer.trailing,
    };
    pointer::loss(&shard.auxiliary, &states, asked, &groundings(asked), answers)
}

/// Teacher-forced captions of scenes, free or positional.
pub fn describe(
    shard: &Shard,
    corpus: &Corpus<'_>,
    prefix: &Tensor,
    scenes: &[&Scene],
    positional: bool,
    rng: &mut rand_chacha::ChaCha8Rng,
) -> Result<Forced, TrainError> {
    let instruction = if positional { caption::DESCRIBE_WHERE } else { caption::DESCRIBE };
    let prompt = corpus.composer.language(&vec![instruction; scenes.len()])?;
    let captions: Vec<String> = scenes
        .iter()
        .map(|scene| if positional { caption::positional(scene) } else { caption::draw(scene, rng) })
        .collect();
    let answers = corpus.composer.answers(captions.iter().map(String::as_str))?;
    Ok(shard.model.force(Some(prefix), &prompt, &answers))
}

/// Teacher-forced facts, without an image.
pub fn facts(
    shard: &Shard,
    corpus: &Corpus<'_>,
    recipe: &Recipe,
    rng: &mut rand_chacha::ChaCha8Rng,
) -> Result<Forced, TrainError> {
    let facts: Vec<_> = (0..recipe.facts / SHARDS).map(|_| corpus.composer.world.fact(rng)).collect();
    let prompt = corpus.composer.language(&facts.iter().map(|f| f.text.as_str()).collect::<Vec<_>>())?;
    let answers = corpus.composer.answers(facts.iter().map(|f| f.answer.as_str()))?;
    Ok(shard.model.force(None, &prompt, &answers))
}

/// How many questions of each kind have their first token right.
pub fn measure(forced: &Forced, asked: &[Asked<'_>]) -> Measured {
    let _no_grad = tch::no_grad_guard();
    let right = forced.logits.select(1, 0).argmax(-1, false).eq_tensor(&forced.targets.select(1, 0));
    let right: Vec<bool> = Vec::try_from(&right).unwrap_or_default();
    let mut measured = Measured::default();
    for (asked, right) in asked.iter().zip(right) {
        measured.asked[asked.kind] += 1.0;
        measured.right[asked.kind] += f64::from(u8::from(right));
    }
    measured
}

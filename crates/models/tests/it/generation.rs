//! Cached search against the same search by forced decoding, and beam search against trying everything.

use ressa_models::{Answer, Infer, Model, Search, TextBatch, config::TextConfig, presets};
use tch::{Device, Kind, Tensor};

use crate::common::{VOCABULARY, instructions, models, prefix, prompts};

/// The token that ends an answer.
fn end(model: &Model) -> u32 {
    model.special_tokens().eos[0] as u32
}

/// Log-probabilities of each next token after an answer so far.
fn next(model: &Model, prefix: &Tensor, text: &[u32], so_far: &[u32]) -> Vec<f64> {
    let batch = TextBatch::pad(&[text.to_vec()], 0, Device::Cpu);
    let logits = model.force(Some(prefix), &batch, &[so_far.to_vec()]).logits;
    let last = logits.get(0).get(so_far.len() as i64).log_softmax(-1, Kind::Double);
    Vec::try_from(last).expect("a vector of doubles")
}

/// How far a choice may be from the best one: hundreds of times what f32 rounds away, far below how the choices of these models differ.
const ROUNDING: f64 = 1e-4;

#[test]
fn greedy_with_memory_equals_greedy_without() {
    let _no_grad = tch::no_grad_guard();
    let (images, texts) = instructions();
    for (name, model) in models() {
        let batch = prompts(&images, &texts);
        let prefix = prefix(&model, &batch);
        let search = Search { max_new_tokens: 8, beams: 1, ..Search::default() };
        let found = model.generate(&prefix, &batch.language, &search).unwrap();
        for (row, text) in texts.iter().enumerate() {
            let own = prefix.narrow(0, row as i64, 1);
            let tokens = &found[row].tokens;
            for (at, &token) in tokens.iter().enumerate() {
                let scores = next(&model, &own, text, &tokens[..at]);
                let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                assert!(scores[token as usize] >= best - ROUNDING, "{name} row {row}, token {at} of {tokens:?}");
            }
            let last = tokens.last().copied();
            assert!(tokens.len() == 8 || last == Some(end(&model)), "{name} row {row}: {tokens:?}");
            assert!(!found[row].content().contains(&end(&model)), "{name} row {row}: {tokens:?}");
        }
    }
}

/// With as many beams as tokens, two steps see every answer of at most two tokens (the end token counts as one).
#[test]
fn wide_beams_find_the_best_of_all_short_answers() {
    let _no_grad = tch::no_grad_guard();
    let (images, texts) = instructions();
    for (name, model) in models() {
        let end = end(&model);
        for length_penalty in [-1.0, 0.0, 1.0, 3.0] {
            let row = 2;
            let one = prompts(&images[row..=row], &texts[row..=row]);
            let prefix = prefix(&model, &one);
            let first = next(&model, &prefix, &texts[row], &[]);
            let mut scores = vec![(vec![], first[end as usize])];
            for a in (0..VOCABULARY as u32).filter(|&a| a != end) {
                let second = next(&model, &prefix, &texts[row], &[a]);
                for b in 0..VOCABULARY as u32 {
                    let score = (first[a as usize] + second[b as usize]) / 2f64.powf(length_penalty);
                    scores.push((if b == end { vec![a] } else { vec![a, b] }, score));
                }
            }
            let best = scores.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
            let search = Search { max_new_tokens: 2, beams: VOCABULARY as usize, length_penalty, ..Search::default() };
            let found = model.generate(&prefix, &one.language, &search).unwrap().remove(0);
            let (_, score) = scores.iter().find(|(content, _)| *content == found.content()).expect("a short answer");
            assert!(
                *score >= best - ROUNDING,
                "{name}, penalty {length_penalty}: {found:?} has {score}, the best {best}"
            );
        }
    }
}

#[test]
fn nothing_asked_for_is_nothing_written() {
    let (images, texts) = instructions();
    for (_, model) in models() {
        let batch = prompts(&images, &texts);
        let search = Search { max_new_tokens: 0, beams: 4, ..Search::default() };
        let found = model.generate(&prefix(&model, &batch), &batch.language, &search).unwrap();
        assert_eq!(found, vec![Answer::default(); 5]);
    }
}

/// The Q-Former's and OPT's positions are learned; behind the last one nothing can be read.
#[test]
fn prompts_beyond_the_positions_are_refused_and_answers_end_at_them() {
    let _no_grad = tch::no_grad_guard();
    let long = |tokens: usize| prompts(&[0], &[vec![7; tokens]]);
    for config in [presets::tiny_flant5(VOCABULARY), presets::tiny_vicuna(VOCABULARY)] {
        let positions = config.qformer_config.max_position_embeddings as usize;
        let model = presets::random(&config, 1).unwrap();
        assert!(model.check_prompts(&long(positions)).is_ok());
        let refused = model.check_prompts(&long(positions + 1)).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("{} tokens are more than the {positions} positions", positions + 1)),
            "{refused}"
        );
    }
    let config = presets::tiny_blip2_opt(VOCABULARY, true);
    let model = presets::random(&config, 1).unwrap();
    let TextConfig::Opt(text) = &config.text_config else { panic!("an OPT preset") };
    let room = (text.max_position_embeddings - config.num_query_tokens) as usize;
    assert!(model.check_prompts(&long(room)).is_err());
    let prompt = long(room - 2);
    model.check_prompts(&prompt).unwrap();
    let prefix = Tensor::zeros([1, config.num_query_tokens, text.hidden_size], (Kind::Float, Device::Cpu));
    let answers =
        model.generate(&prefix, &prompt.language, &Search { max_new_tokens: 9, ..Search::default() }).unwrap();
    assert!(answers[0].tokens.len() <= 2, "{:?}", answers[0].tokens);
}

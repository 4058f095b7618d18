//! Teachers of the same tokenizer whose vocabulary is padded to another width.

use ressa_experiment::{
    config::{DistillConfig, Recompute},
    stage::AdaptTraining,
};
use ressa_models::{Model, Prompts, VisionLanguage, presets};
use ressa_restore::{
    BatchSource, Budgets, Restoration, RestoreError, Teacher, TrainingBatch, TrainingOptions, train_with,
};
use tch::Kind;

use crate::world::{Batches, settings, student_of};

/// Tokens of the tokenizer that both models share: the batches' largest id is 37.
const TOKENS: u64 = 38;

fn model(words: i64, seed: u64) -> Model {
    presets::random(&presets::tiny_flant5(words), seed).expect("a model")
}

fn train(
    student: &Model,
    teacher: &Model,
    tokens: Option<u64>,
    settings: &AdaptTraining,
) -> Result<Restoration, RestoreError> {
    let teacher = Teacher::new(teacher);
    let teacher = match tokens {
        Some(tokens) => teacher.of_tokens(tokens),
        None => teacher,
    };
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let mut student = student_of(student);
    train_with(student.as_mut(), Some(teacher), settings, options, &mut Batches::default(), &mut |_| {})
}

/// Probabilities over the first so many words, `[positions, words]` in f64, where a target counts.
fn probabilities(
    model: &dyn VisionLanguage,
    batch: &TrainingBatch,
    (prompts, answers): (&Prompts, &[Vec<u32>]),
    words: i64,
) -> Vec<Vec<f64>> {
    let forced = model.force(
        Some(&model.visual_prefix(&model.encode_images(&batch.pixels), prompts)),
        &prompts.language,
        answers,
    );
    let logits = forced.logits.narrow(-1, 0, words).to_kind(Kind::Double);
    let counted = forced.mask.view([-1]).nonzero().squeeze_dim(1);
    let rows = logits.softmax(-1, Kind::Double).reshape([-1, words]).index_select(0, &counted);
    Vec::<Vec<f64>>::try_from(rows).expect("rows of numbers")
}

/// `KL(p || q)` of one position, over the `k` most probable words of `p` and all others as one.
fn divergence(p: &[f64], q: &[f64], k: usize) -> f64 {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let term = |p: f64, q: f64| p * (p / q).ln();
    let (top, rest) = order.split_at(k);
    let sum = |of: &[f64], at: &[usize]| at.iter().map(|&at| of[at]).sum::<f64>();
    let of_rest = if rest.is_empty() { 0.0 } else { term(sum(p, rest), sum(q, rest)) };
    top.iter().map(|&at| term(p[at], q[at])).sum::<f64>() + of_rest
}

/// Whichever is wider, in both layouts: distributions over the columns that both have.
#[test]
fn the_loss_is_that_of_the_common_columns() {
    for (of_student, of_teacher) in [(40, 48), (48, 40)] {
        let (student, teacher) = (model(of_student, 11), model(of_teacher, 3));
        let batch = Batches::default().batch(0).expect("a batch");
        let masked = student_of(&student);
        for (top_k, recompute) in [(None, Recompute::None), (Some(4), Recompute::None), (Some(4), Recompute::Blocks)] {
            let distill = DistillConfig { weight: 0.5, top_k, ..DistillConfig::default() };
            let settings = AdaptTraining { recompute, ..settings(1, Some(distill)) };
            let wanted: f64 = [(&batch.questions, &batch.answers), (&batch.captions, &batch.caption_answers)]
                .into_iter()
                .map(|(prompts, answers)| {
                    let of = |model: &dyn VisionLanguage| probabilities(model, &batch, (prompts, answers), 40);
                    let (p, q) = (of(&teacher), of(masked.as_ref()));
                    let k = top_k.map_or(40, |k| k as usize);
                    p.iter().zip(&q).map(|(p, q)| divergence(p, q, k)).sum::<f64>() / p.len() as f64
                })
                .sum();
            let found = train(&student, &teacher, Some(TOKENS), &settings).expect("trains").losses[0].distillation;
            assert!(
                wanted > 1e-3 && (found - wanted).abs() < 1e-4 * wanted,
                "{top_k:?} {recompute:?}: {found} {wanted}"
            );
        }
    }
}

/// What only one of the two has makes no difference: teachers that differ in padding alone teach the same.
#[test]
fn padding_teaches_nothing() {
    let student = model(40, 11);
    let config = presets::tiny_flant5(48);
    let teacher = |noise: f64| {
        let mut tensors = presets::random_tensors(&config, 3).expect("tensors");
        let head = tensors.get_mut("language_model.lm_head.weight").expect("a head");
        let _ = head.narrow(0, 40, 8).fill_(noise);
        Model::from_tensors(&config, &tensors).expect("a model")
    };
    let settings = settings(2, Some(DistillConfig { weight: 0.5, ..DistillConfig::default() }));
    let losses = |noise| train(&student, &teacher(noise), Some(TOKENS), &settings).expect("trains").losses;
    assert_eq!(losses(0.0), losses(3.0));
}

#[test]
fn vocabularies_below_the_tokenizer_are_refused() {
    let settings = settings(1, Some(DistillConfig { weight: 0.5, ..DistillConfig::default() }));
    let message = |tokens| train(&model(48, 11), &model(40, 3), tokens, &settings).expect_err("refused").to_string();
    assert_eq!(
        message(Some(41)),
        "the teacher knows 40 words, the student 48 and their tokenizer 41 tokens; both need at least as many words as tokens: choose a teacher with \
         the same tokenizer and vocabulary"
    );
    assert!(message(None).starts_with("the teacher knows 40 words and the student 48;"));
}

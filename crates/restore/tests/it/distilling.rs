//! Divergences, hidden states and hard negatives by hand, and teachers of another size.

use ressa_experiment::{
    config::{AttentionBlocks, AttentionConfig, DistillConfig, Divergence, HiddenConfig, Reduction},
    stage::AdaptTraining,
};
use ressa_models::{Forced, Model, Surgery, Tower, VisionLanguage, config::TextConfig, presets};
use ressa_restore::{
    Budgets, Checkpoints, Interval, Output, Restoration, TrainingOptions,
    loss::{contrastive, distillation, hidden},
    train_adapters,
};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::world::{Batches, dense, dense_vicuna, settings, student_of};

const ALL: [Divergence; 4] =
    [Divergence::Forward, Divergence::Reverse, Divergence::Symmetric, Divergence::JensenShannon];

/// A divergence of lists of probabilities, in f64.
fn by_hand(divergence: Divergence, p: &[f64], q: &[f64]) -> f64 {
    let kl = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    match divergence {
        Divergence::Forward => kl(p, q),
        Divergence::Reverse => kl(q, p),
        Divergence::Symmetric => 0.5 * (kl(p, q) + kl(q, p)),
        Divergence::JensenShannon => {
            let middle: Vec<f64> = p.iter().zip(q).map(|(p, q)| 0.5 * (p + q)).collect();
            0.5 * (kl(p, &middle) + kl(q, &middle))
        }
    }
}

fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let powers: Vec<f64> = logits.iter().map(|logit| (logit / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Logits of three rows of two positions over five words.
fn logits(step: f64) -> Vec<f64> {
    (0..30).map(|at| 2.0 * (f64::from(at) * step).sin()).collect()
}

fn tensor(values: &[f64], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).view(shape)
}

fn said(logits: &[f64]) -> Forced {
    let mask = Tensor::from_slice(&[true, true, true, false, true, false]).view([3, 2]);
    let targets = Tensor::zeros([3, 2], (Kind::Int64, Device::Cpu));
    Forced { logits: tensor(logits, &[3, 2, 5]), targets, mask }
}

#[test]
fn divergences_are_what_their_formulas_say() {
    let (teacher, student) = (logits(0.7), logits(1.3));
    for divergence in ALL {
        for (temperature, square) in [(1.0, false), (2.5, false), (2.5, true)] {
            let config = |reduction| DistillConfig {
                weight: 1.0,
                temperature,
                square,
                divergence,
                reduction,
                ..DistillConfig::default()
            };
            let of = |at: usize| {
                let [p, q] = [&teacher, &student].map(|logits| softmax(&logits[at * 5..][..5], temperature));
                by_hand(divergence, &p, &q) * if square { temperature * temperature } else { 1.0 }
            };
            let output = Output::Logits(tensor(&teacher, &[3, 2, 5]));
            let found = |reduction| distillation(&output, &said(&student), &config(reduction)).double_value(&[]);
            let mean = [0, 1, 2, 4].map(of).iter().sum::<f64>() / 4.0;
            let sum = (0..6).map(of).sum::<f64>() / 3.0;
            let near = |found: f64, wanted: f64| (found - wanted).abs() < 2e-6 * wanted.max(1.0);
            assert!(near(found(Reduction::Mean), mean), "{divergence:?} {temperature}: {mean}");
            assert!(near(found(Reduction::Sum), sum), "{divergence:?} {temperature}: {sum}");
        }
    }
}

/// Of distributions that share nothing, Jensen and Shannon's is ln 2, and its gradient stays finite where KL's terms grow without bound.
#[test]
fn the_bounded_divergence_is_bounded() {
    let far = |sign: f64| (0..30).map(|at| if at % 5 == 0 { sign * 60.0 } else { -sign * 60.0 }).collect::<Vec<f64>>();
    let config = DistillConfig { weight: 1.0, divergence: Divergence::JensenShannon, ..DistillConfig::default() };
    let mut student = said(&far(-1.0));
    student.logits = student.logits.set_requires_grad(true);
    let value = distillation(&Output::Logits(tensor(&far(1.0), &[3, 2, 5])), &student, &config);
    assert!((value.double_value(&[]) - std::f64::consts::LN_2).abs() < 1e-5);
    value.backward();
    assert_eq!(student.logits.grad().isfinite().all().int64_value(&[]), 1);
}

/// Two rows of two tokens: what a token adds is its weight, and a row without any adds nothing.
#[test]
fn hidden_states_by_hand() {
    let student = tensor(&[1.0, 1.0, 5.0, 5.0, 3.0, 0.0, 0.0, 0.0], &[2, 2, 2]);
    let teacher = tensor(&[1.0, 0.0, 2.0, 1.0, 1.0, 0.0, 9.0, 9.0], &[2, 2, 2]);
    let value = |weights: [f64; 4]| hidden(&student, &teacher, &tensor(&weights, &[2, 2])).double_value(&[]);
    // (1) / (1) and (4) / (1); the second token of the first row is 9 + 16 from a state of length 4 + 1.
    assert!((value([1.0, 0.0, 1.0, 0.0]) - (1.0 + 4.0) / 2.0).abs() < 1e-6);
    assert!((value([1.0, 2.0, 1.0, 0.0]) - ((1.0 + 2.0 * 25.0) / (1.0 + 2.0 * 5.0) + 4.0) / 2.0).abs() < 1e-6);
    assert!((value([0.0, 0.0, 1.0, 0.0]) - 2.0).abs() < 1e-6);
}

/// A wrong text counts `exp(hardness * nearness)` times, and that factor has no gradient.
#[test]
fn hard_negatives_by_hand() {
    let texts = tensor(&[1.0, 0.0, 0.6, 0.8], &[2, 2]);
    let images = texts.view([2, 1, 2]).copy().set_requires_grad(true);
    let loss = contrastive(&images, &texts, 9.0);
    let wanted = (1.0 + (9.0f64 * 0.6).exp() * ((0.6f64 - 1.0) / 0.1).exp()).ln();
    assert!((loss.double_value(&[]) - wanted).abs() < 1e-5, "{wanted}");
    loss.backward();
    // The odds of the wrong text, as they are: each image is drawn from it to its own text, in both directions of the search.
    let share = 1.0 - (-wanted).exp();
    let pull = (texts.get(1) - texts.get(0)) * (share / 0.1);
    let found = images.grad().get(0).view([2]);
    // One of two images, in the mean over both, for both directions.
    assert!((found - pull / 2.0).abs().max().double_value(&[]) < 1e-4);
    let plain = contrastive(&images, &texts, 0.0).double_value(&[]);
    assert!((plain - (1.0 + (-4.0f64).exp()).ln()).abs() < 1e-6);
}

/// A model of the same words with wider and more blocks.
pub fn wider() -> Model {
    let mut config = presets::tiny_flant5(40);
    let TextConfig::T5(text) = &mut config.text_config else { panic!("T5") };
    (text.d_model, text.num_layers, text.num_decoder_layers) = (48, 3, Some(3));
    presets::random(&config, 17).expect("a model")
}

fn states(layers: &[u32]) -> DistillConfig {
    let hidden = HiddenConfig { weight: 1.0, layers: layers.to_vec(), ..HiddenConfig::default() };
    DistillConfig { weight: 0.5, hidden, ..DistillConfig::default() }
}

fn train(
    model: &dyn VisionLanguage,
    teacher: &dyn VisionLanguage,
    settings: &AdaptTraining,
    checkpoints: Option<&Checkpoints>,
    batches: &mut Batches,
) -> Result<Restoration, ressa_restore::RestoreError> {
    let options = TrainingOptions { masked: true, seed: 5, checkpoints, budgets: Budgets::default() };
    train_adapters(student_of(model).as_mut(), Some(teacher), settings, options, batches, &mut |_| {})
}

/// A model that is its own teacher, unpruned, is nowhere from it: updates begin at no change.
#[test]
fn a_model_is_not_away_from_itself() {
    for model in [dense(), dense_vicuna()] {
        let mut student = model.shallow_clone();
        let options = TrainingOptions { masked: false, seed: 5, checkpoints: None, budgets: Budgets::default() };
        for distill in [states(&[0, 1]), looks(AttentionBlocks::All, &Tower::ALL)] {
            let settings = settings(1, Some(distill));
            let mut batches = Batches::default();
            let found = train_adapters(student.as_mut(), Some(&model), &settings, options, &mut batches, &mut |_| {});
            let loss = found.expect("trains").losses[0];
            assert!(loss.distillation.abs() < 1e-6, "{loss:?}");
        }
    }
}

/// Attention of some towers beside the logits.
fn looks(blocks: AttentionBlocks, towers: &[Tower]) -> DistillConfig {
    let attention = AttentionConfig { weight: 1.0, blocks, towers: towers.to_vec() };
    DistillConfig { weight: 0.5, attention, ..DistillConfig::default() }
}

/// A pruned student learns to look where the dense model looks, in every tower. Every fourth step sees the same images and prompts.
#[test]
fn attention_comes_nearer_to_the_teacher_s() {
    let model = dense();
    let losses = |steps: u32, weight: f64, towers: &[Tower]| {
        let attention = AttentionConfig { weight, blocks: AttentionBlocks::All, towers: towers.to_vec() };
        let config = DistillConfig { weight: 0.9, logits: 0.0, attention, ..DistillConfig::default() };
        let settings = AdaptTraining { learning_rate: 5e-3, warmup: 0, ..settings(steps, Some(config)) };
        train(&model, &model, &settings, None, &mut Batches::default()).expect("trains").losses
    };
    let mut first = Vec::new();
    for tower in Tower::ALL {
        let losses = losses(5, 1.0, &[tower]);
        let [before, after] = [0, 4].map(|step: usize| losses[step].distillation);
        assert!(before > 0.0 && after < before, "{tower}: {before} {after}");
        first.push(before);
    }
    let all = losses(1, 2.0, &Tower::ALL)[0].distillation;
    let sum = 2.0 * first.iter().sum::<f64>();
    assert!((all - sum).abs() < 1e-5 * sum, "towers are summed: {first:?} {all}");
}

/// Attention of weight 0 is as if nobody had asked for it.
#[test]
fn attention_without_a_weight_is_not_seen() {
    let model = dense();
    let of = |attention| {
        let config = DistillConfig { weight: 0.5, attention, ..DistillConfig::default() };
        train(&model, &model, &settings(2, Some(config)), None, &mut Batches::default()).expect("trains").losses
    };
    let towers = Tower::ALL.to_vec();
    let off = AttentionConfig { blocks: AttentionBlocks::All, towers, ..AttentionConfig::default() };
    assert_eq!(of(off), of(AttentionConfig::default()));
}

/// Only the tokens that weigh something are looked at: an encoder has none of the answer, a decoder none of the image.
#[test]
fn tokens_count_by_what_they_are() {
    let model = dense();
    let distance = |layer: u32, [image, text, answer]: [f64; 3]| {
        let hidden = HiddenConfig { weight: 1.0, layers: vec![layer], image, text, answer };
        let config = DistillConfig { weight: 0.5, logits: 0.0, hidden, ..DistillConfig::default() };
        let found = train(&model, &model, &settings(1, Some(config)), None, &mut Batches::default());
        found.map(|found| found.losses[0].distillation).map_err(|error| error.to_string())
    };
    let is_refused = |layer, weights| distance(layer, weights).is_err_and(|error| error.contains("weigh 0"));
    let distance = |layer, weights| distance(layer, weights).expect("trains");
    for layer in [0, 1] {
        assert!(is_refused(layer, [0.0, 0.0, 1.0]));
        assert!(distance(layer, [1.0, 0.0, 0.0]) > 0.0 && distance(layer, [0.0, 1.0, 0.0]) > 0.0);
    }
    for layer in [2, 3] {
        assert!(is_refused(layer, [1.0, 1.0, 0.0]));
        assert!(distance(layer, [0.0, 0.0, 1.0]) > 0.0);
    }
}

#[test]
fn a_wider_teacher_is_compared_through_a_map_that_trains() {
    let (model, teacher) = (dense(), wider());
    let config = DistillConfig { logits: 0.0, ..states(&[0, 3]) };
    let settings = AdaptTraining { learning_rate: 5e-3, ..settings(12, Some(config)) };
    let whole = train(&model, &teacher, &settings, None, &mut Batches::default()).expect("trains");
    // Maps are no weights of the model: nothing of them is in the adapters.
    let plain = train(&model, &model, &settings, None, &mut Batches::default()).expect("trains");
    assert_eq!(whole.adapters.len(), plain.adapters.len());
    let [first, last] = [0, 11].map(|step: usize| whole.losses[step].distillation);
    assert!(last < 0.9 * first, "{first} {last}");

    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(2) };
    let mut interrupted = Batches { sick_at: Some(5), ..Batches::default() };
    train(&model, &teacher, &settings, Some(&checkpoints), &mut interrupted).expect_err("interrupted");
    let resumed = train(&model, &teacher, &settings, Some(&checkpoints), &mut Batches::default()).expect("trains");
    assert_eq!(whole.losses, resumed.losses);
}

#[test]
fn teachers_that_cannot_teach_are_refused_by_what_they_are() {
    let model = dense();
    let message = |teacher: &Model, config: DistillConfig| {
        train(&model, teacher, &settings(1, Some(config)), None, &mut Batches::default())
            .expect_err("refused")
            .to_string()
    };
    let words = presets::random(&presets::tiny_flant5(48), 3).expect("a model");
    assert!(
        message(&dense_vicuna(), states(&[])).starts_with("the teacher reads an image or a prompt as other tokens")
    );
    assert_eq!(
        message(&words, DistillConfig { weight: 0.5, ..DistillConfig::default() }),
        "the teacher knows 48 words and the student 40; choose one with the same tokenizer and vocabulary"
    );
    assert_eq!(
        message(&model, states(&[1, 4])),
        "`restore.distill.hidden.layers` names block 4, and the language model has 4, counted from 0"
    );
    let mut heads = presets::tiny_flant5(40);
    let TextConfig::T5(text) = &mut heads.text_config else { panic!("T5") };
    text.num_heads = 2;
    let heads = presets::random(&heads, 3).expect("a model");
    let towers = [Tower::Language];
    assert_eq!(
        message(&heads, looks(AttentionBlocks::Last, &towers)),
        "attention of tower `language` is compared head by head: the teacher's blocks have [2] heads and the student's [4]; leave it out of \
         `restore.distill.attention.towers`"
    );
    assert!(
        message(&dense_vicuna(), looks(AttentionBlocks::Last, &towers))
            .starts_with("the teacher reads an image or a prompt as other tokens")
    );
    let mut vision = settings(1, Some(looks(AttentionBlocks::Last, &[Tower::Vision])));
    vision.vision = None;
    let unchanged = train(&model, &model, &vision, None, &mut Batches::default()).expect_err("refused").to_string();
    assert!(unchanged.starts_with("nothing trains that the attention of tower `vision` depends on"), "{unchanged}");
    // Distributions over the same words can come from any network.
    let logits = DistillConfig { weight: 0.5, ..DistillConfig::default() };
    let found = train(&model, &dense_vicuna(), &settings(1, Some(logits)), None, &mut Batches::default());
    assert!(found.expect("trains").losses[0].distillation > 0.0);
}

//! Parts of a batch and recomputed blocks add up to the same step.

use std::collections::BTreeMap;

use ressa_experiment::{
    config::{
        AttentionBlocks, AttentionConfig, DistillConfig, Divergence, HiddenConfig, MatrixUpdate, Recompute, Reduction,
        RestoreMethod, TowerAdapter, TrainedBiases,
    },
    stage::AdaptTraining,
};
use ressa_models::{Cuts, Surgery, Tower, Update, VisionLanguage, config::TextConfig, presets};
use ressa_restore::{
    BatchSource, Budgets, Layout, MergeRequest, Restoration, TrainingBatch, TrainingOptions, merge, train_adapters,
};
use tch::Kind;

use crate::world::{Batches, dense, dense_vicuna, masks, probe, settings, student_of};

/// Rounding of f32 sums in another order, relative to a loss.
const LOSSES: f64 = 2e-5;
/// AdamW makes a whole step of the smallest gradient, so single parameters may part by that; on average they do not. As a share of the way
/// that a parameter can have gone.
const PARAMETERS: f64 = 2e-3;
const LEARNING_RATE: f64 = 1e-3;
const STEPS: u32 = 3;

fn train(model: &dyn VisionLanguage, settings: &AdaptTraining, images: i64) -> Restoration {
    let mut student = student_of(model);
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let mut batches = Batches { images, ..Batches::default() };
    train_adapters(student.as_mut(), Some(model), settings, options, &mut batches, &mut |_| {}).expect("trains")
}

/// Largest difference of a loss relative to it, and mean difference of the parameters of a tensor relative to the way they can have gone.
fn differences(one: &Restoration, other: &Restoration) -> (f64, f64) {
    let mut losses = 0f64;
    for (one, other) in one.losses.iter().zip(&other.losses) {
        let values = |l: &ressa_restore::StepLoss| {
            [l.total, l.questions, l.captions, l.contrastive, l.distillation, l.gradient_norm]
        };
        for (x, y) in values(one).into_iter().zip(values(other)) {
            losses = losses.max((x - y).abs() / x.abs().max(1e-3));
        }
    }
    let mut parameters = 0f64;
    for ((m, x), (n, y)) in
        one.adapters.iter().zip(other.adapters.iter()).filter(|((name, _), _)| !has_no_gradient(name))
    {
        assert_eq!(m, n);
        for ((_, x), (_, y)) in x.parameters().into_iter().zip(y.parameters()) {
            let way = LEARNING_RATE * f64::from(STEPS);
            parameters = parameters.max((x - y).abs().mean(Kind::Double).double_value(&[]) / way);
        }
    }
    (losses, parameters)
}

/// A softmax does not see what is added to all of its logits, so what is added to all keys has no gradient but rounding, of which AdamW makes whole
/// steps.
fn has_no_gradient(weight: &str) -> bool {
    weight.ends_with(".key.bias") || weight.ends_with(".qkv.bias")
}

fn cases() -> impl Iterator<Item = (&'static str, AdaptTraining)> {
    let distilled = |reduction| Some(DistillConfig { weight: 0.3, reduction, ..DistillConfig::default() });
    let small = |distill| AdaptTraining { learning_rate: LEARNING_RATE, batch: 4, ..settings(STEPS, distill) };
    [
        ("plain", small(None)),
        ("mean", small(distilled(Reduction::Mean))),
        ("sum", small(distilled(Reduction::Sum))),
        (
            "reverse",
            small(Some(DistillConfig {
                weight: 0.3,
                divergence: Divergence::Reverse,
                temperature: 2.0,
                square: true,
                ..DistillConfig::default()
            })),
        ),
        ("hidden", small(hidden(&[]))),
        ("hidden below", small(hidden(&[0, 1]))),
        ("attention", small(attention(AttentionBlocks::Last, &[Tower::Language], 0.0))),
        ("attention and states everywhere", small(attention(AttentionBlocks::All, &Tower::ALL, 0.7))),
        ("hard negatives", AdaptTraining { hardness: 9.0, ..small(None) }),
        ("without contrast", AdaptTraining { contrastive: 0.0, ..small(distilled(Reduction::Sum)) }),
        ("scaled", AdaptTraining { update: MatrixUpdate::Scale, vision: None, connector: None, ..small(None) }),
        ("spp", AdaptTraining { update: MatrixUpdate::Spp, vision: None, connector: None, ..small(None) }),
        ("language alone", AdaptTraining { vision: None, connector: None, ..small(None) }),
        ("vision alone", AdaptTraining { language: None, connector: None, ..small(None) }),
        ("connector", AdaptTraining { vision: None, language: None, connector: Some(connector()), ..small(None) }),
        // Two steps without the language model, then one through it.
        (
            "aligned",
            AdaptTraining { align: 2, vision: None, language: None, connector: Some(connector()), ..small(None) },
        ),
    ]
    .into_iter()
}

/// States of some blocks beside the logits, each kind of token with a weight of its own.
fn hidden(layers: &[u32]) -> Option<DistillConfig> {
    let hidden = HiddenConfig { weight: 0.7, layers: layers.to_vec(), image: 0.5, text: 2.0, answer: 1.0 };
    Some(DistillConfig { weight: 0.4, hidden, ..DistillConfig::default() })
}

/// Attention of some towers beside the logits, and states of both kinds of blocks where they have a weight.
fn attention(blocks: AttentionBlocks, towers: &[Tower], states: f64) -> Option<DistillConfig> {
    let hidden = HiddenConfig { weight: states, layers: vec![0, 1], ..HiddenConfig::default() };
    let attention = AttentionConfig { weight: 2.0, blocks, towers: towers.to_vec() };
    Some(DistillConfig { weight: 0.4, hidden, attention, ..DistillConfig::default() })
}

/// What a connector trains that starts from nothing: cross-attention and the projection whole, biases, norms, the queries.
fn connector() -> TowerAdapter {
    TowerAdapter {
        full: true,
        queries: true,
        targets: vec!["crossattention".to_owned(), "language_projection".to_owned()],
        bias: TrainedBiases::All,
        norms: true,
        ..TowerAdapter::default()
    }
}

/// Matrices named by a module on their path change element by element, and nothing else changes; merged, the model answers as it did.
#[test]
fn a_connector_trains_whole_and_merges_exactly() {
    let model = dense();
    let settings = AdaptTraining {
        align: 1,
        vision: None,
        language: None,
        connector: Some(connector()),
        contrastive: 0.0,
        batch: 4,
        ..settings(STEPS, None)
    };
    let trained = train(&model, &settings, 4);
    assert!(trained.adapters.iter().all(|(name, update)| update.kind() == "full" && !name.starts_with("vision_model")));
    let cross = |name: &str| name.contains(".crossattention.") || name == "language_projection";
    let matrices = model.linears().into_iter().map(|(id, _)| id.name.clone()).chain(["language_projection".to_owned()]);
    for name in matrices {
        assert_eq!(trained.adapters.get(&name).is_some(), cross(&name), "{name}");
    }
    let still: Vec<&str> =
        trained.adapters.iter().filter(|(_, update)| is_still(*update)).map(|(name, _)| name).collect();
    // What becomes of the instruction in the last layer, nobody reads.
    let unread = |name: &str| {
        name.starts_with("qformer.encoder.layer.1.") && !name.contains("_query.") && !name.contains("attention.")
    };
    assert_eq!(still.iter().filter(|name| !has_no_gradient(name) && !unread(name)).count(), 0, "{still:?}");
    assert!(trained.adapters.get("query_tokens").is_some());
    let (masks, patterns) = (masks(&model), BTreeMap::new());
    let request = MergeRequest {
        method: RestoreMethod::SparseLora,
        masks: &masks,
        adapters: &trained.adapters,
        patterns: &patterns,
        cuts: &Cuts::default(),
        before: None,
    };
    let merged = merge(&model, request, &probe()).expect("merges");
    assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
    assert!(merged.tensors.contains_key("query_tokens"));
}

/// Image features in the place of pixels are the same training, where the image encoder stays as it is.
#[test]
fn features_stand_for_pixels() {
    let model = dense();
    let settings = AdaptTraining { vision: None, contrastive: 0.5, batch: 4, ..settings(STEPS, None) };
    let seen = train(&model, &settings, 4);
    for recompute in [Recompute::None, Recompute::Blocks] {
        let mut student = student_of(&model);
        let encoder = student.shallow_clone();
        let mut batches = Encoded { of: Batches { images: 4, ..Batches::default() }, encoder: encoder.as_ref() };
        let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
        let settings = AdaptTraining { recompute, micro_batch: Some(3), ..settings.clone() };
        let encoded =
            train_adapters(student.as_mut(), None, &settings, options, &mut batches, &mut |_| {}).expect("trains");
        let (losses, parameters) = differences(&seen, &encoded);
        assert!(losses < LOSSES && parameters < PARAMETERS, "{recompute:?}: {losses:.1e} {parameters:.1e}");
    }
}

/// Batches whose images are encoded already.
struct Encoded<'a> {
    of: Batches,
    encoder: &'a dyn VisionLanguage,
}

impl BatchSource for Encoded<'_> {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn std::error::Error + Send + Sync>> {
        let batch = self.of.batch(step)?;
        let pixels = tch::no_grad(|| self.encoder.encode_images(&batch.pixels));
        Ok(TrainingBatch { pixels, ..batch })
    }
}

#[test]
fn every_layout_takes_the_same_steps() {
    for (family, model) in [("t5", dense()), ("vicuna", dense_vicuna())] {
        for (name, settings) in cases() {
            let whole = train(&model, &AdaptTraining { recompute: Recompute::None, ..settings.clone() }, 4);
            assert_eq!(whole.layout, Layout { micro_batch: 4, recompute: false });
            for (micro_batch, recompute) in
                [(4, Recompute::Blocks), (1, Recompute::None), (3, Recompute::None), (1, Recompute::Blocks)]
            {
                let layout = AdaptTraining { micro_batch: Some(micro_batch), recompute, ..settings.clone() };
                let other = train(&model, &layout, 4);
                assert_eq!(other.layout, Layout { micro_batch, recompute: recompute == Recompute::Blocks });
                let (losses, parameters) = differences(&whole, &other);
                assert!(
                    losses < LOSSES && parameters < PARAMETERS,
                    "{family} {name} {micro_batch} {recompute:?}: losses differ by {losses:.1e}, parameters by {parameters:.1e}"
                );
            }
        }
    }
}

/// Query heads that share keys and values, with biases: Qwen2's.
#[test]
fn attention_of_grouped_heads_is_the_same_in_every_layout() {
    let mut config = presets::tiny_vicuna(40);
    let TextConfig::Llama(mut text) = config.text_config else { panic!("LLaMA") };
    text.num_key_value_heads = Some(2);
    config.text_config = TextConfig::Qwen2(text);
    let model = presets::random(&config, 7).expect("a model");
    let distill = attention(AttentionBlocks::All, &[Tower::Language], 0.0);
    let settings = AdaptTraining { learning_rate: LEARNING_RATE, batch: 4, ..settings(STEPS, distill) };
    let whole = train(&model, &AdaptTraining { recompute: Recompute::None, ..settings.clone() }, 4);
    let layout = AdaptTraining { micro_batch: Some(3), recompute: Recompute::Blocks, ..settings };
    let (losses, parameters) = differences(&whole, &train(&model, &layout, 4));
    assert!(losses < LOSSES && parameters < PARAMETERS, "{losses:.1e} {parameters:.1e}");
}

/// A teacher of other sizes, whose states are compared through maps that train too.
#[test]
fn maps_to_a_wider_teacher_train_in_every_layout() {
    let model = dense();
    let teacher = crate::distilling::wider();
    let settings = AdaptTraining { learning_rate: LEARNING_RATE, batch: 4, ..settings(STEPS, hidden(&[0, 1, 2, 3])) };
    let train = |micro_batch, recompute| {
        let settings = AdaptTraining { micro_batch, recompute, ..settings.clone() };
        let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
        let mut batches = Batches { images: 4, ..Batches::default() };
        let mut student = student_of(&model);
        train_adapters(student.as_mut(), Some(&teacher), &settings, options, &mut batches, &mut |_| {}).expect("trains")
    };
    let whole = train(None, Recompute::None);
    for (micro_batch, recompute) in [(4, Recompute::Blocks), (3, Recompute::None), (1, Recompute::Blocks)] {
        let (losses, parameters) = differences(&whole, &train(Some(micro_batch), recompute));
        assert!(
            losses < LOSSES && parameters < PARAMETERS,
            "{micro_batch} {recompute:?}: {losses:.1e} {parameters:.1e}"
        );
    }
}

/// What connects the towers belongs to no block.
#[test]
fn the_projection_trains_where_a_target_names_it_in_every_layout() {
    let model = dense();
    let mut settings =
        AdaptTraining { learning_rate: LEARNING_RATE, batch: 4, vision: None, language: None, ..settings(STEPS, None) };
    settings.connector.as_mut().expect("tuned").targets = vec!["language_projection".to_owned(), "query".to_owned()];
    let whole = train(&model, &settings, 4);
    let projection = whole.adapters.get("language_projection").expect("an update");
    let (_, b) = projection.parameters()[1];
    assert!(b.abs().sum(Kind::Float).double_value(&[]) > 0.0);
    // It is merged with the rest.
    let (masks, patterns) = (masks(&model), BTreeMap::new());
    let request = MergeRequest {
        method: RestoreMethod::SparseLora,
        masks: &masks,
        adapters: &whole.adapters,
        patterns: &patterns,
        cuts: &Cuts::default(),
        before: None,
    };
    let merged = merge(&model, request, &probe()).expect("merges");
    assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
    assert!(merged.tensors.contains_key("language_projection"));
    let layout = AdaptTraining { micro_batch: Some(2), recompute: Recompute::Blocks, ..settings };
    let (losses, parameters) = differences(&whole, &train(&model, &layout, 4));
    assert!(losses < LOSSES && parameters < PARAMETERS, "{losses:.1e} {parameters:.1e}");
}

/// Norms and biases train in every layout: those of blocks, T5's norm between encoder and decoder, and those outside of blocks.
#[test]
fn norms_and_biases_train_in_every_layout() {
    for (family, model) in [("t5", dense()), ("vicuna", dense_vicuna())] {
        let mut settings = AdaptTraining { learning_rate: LEARNING_RATE, batch: 4, ..settings(STEPS, None) };
        for tower in [&mut settings.vision, &mut settings.connector, &mut settings.language].into_iter().flatten() {
            tower.norms = true;
        }
        for tower in [&mut settings.vision, &mut settings.connector].into_iter().flatten() {
            tower.bias = TrainedBiases::All;
        }
        let whole = train(&model, &AdaptTraining { recompute: Recompute::None, ..settings.clone() }, 4);
        let of_linears = model.linears().len();
        let small = Tower::ALL.iter().flat_map(|&tower| model.norms(tower));
        let biases = model.linears().into_iter().filter(|(_, linear)| linear.bias().is_some()).count();
        assert_eq!(whole.adapters.len(), of_linears + small.count() + biases, "{family}");
        let still: Vec<&str> =
            whole.adapters.iter().filter(|(_, update)| is_still(*update)).map(|(name, _)| name).collect();
        assert_eq!(still.iter().filter(|name| !has_no_gradient(name)).count(), 0, "{family}: {still:?}");
        let layout = AdaptTraining { micro_batch: Some(2), recompute: Recompute::Blocks, ..settings };
        let other = train(&model, &layout, 4);
        let (losses, parameters) = differences(&whole, &other);
        assert!(losses < LOSSES && parameters < PARAMETERS, "{family}: {losses:.1e} {parameters:.1e}");
    }
}

/// Whether what begins at zero is there still: the change of a whole tensor, the second factor of a low-rank one.
fn is_still(update: &dyn Update) -> bool {
    let (_, last) = *update.parameters().last().expect("an update trains something");
    last.abs().sum(Kind::Float).double_value(&[]) == 0.0
}

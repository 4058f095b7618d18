//! Whole towers of a small model with random weights.

use std::sync::{Arc, Mutex};

use ressa_experiment::{
    Pattern, Tower,
    config::{Group, MethodConfig, Metric, Propagate, TokenConfig},
};
use ressa_models::{Infer, MaskSet, Model, Observer, Prompts, Sample, Surgery, TextBatch, VisionLanguage, presets};
use ressa_prune::{
    PruneError, PruneRequest, certify_tower, join_projection,
    metric::{PruningMetric, Wanda},
    prune_tower,
    select::Selection,
    statistics::{ColumnStatistics, Needs},
};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

const VOCABULARY: i64 = 40;

pub fn t5() -> Model {
    presets::random(&presets::tiny_flant5(VOCABULARY), 7).expect("a model")
}

pub fn vicuna() -> Model {
    presets::random(&presets::tiny_vicuna(VOCABULARY), 7).expect("a model")
}

/// A sample whose image follows from `image`, its texts from `text`.
fn sample(image: i64, text: u32) -> Sample {
    let pixels =
        (Tensor::arange(3 * 16 * 16, (Kind::Float, Device::Cpu)) * (0.37 + image as f64)).sin().view([1, 3, 16, 16]);
    let words = vec![5 + text % 7, 6 + text % 11, 9];
    let batch = |rows: &[Vec<u32>]| TextBatch::pad(rows, 0, Device::Cpu);
    let prompt = Prompts {
        image: Tensor::zeros([1], (Kind::Int64, Device::Cpu)),
        qformer: batch(std::slice::from_ref(&words)),
        language: batch(&[[words.clone(), vec![12; (text % 3) as usize]].concat()]),
    };
    Sample { pixels, prompt, answer: vec![10 + text % 5, 11] }
}

pub fn samples() -> Vec<Sample> {
    (0..6).map(|i| sample(i / 2, i as u32)).collect()
}

pub fn request(tower: Tower, pattern: Pattern, sparsity: f64) -> PruneRequest {
    PruneRequest {
        tower,
        metric: Metric::Wanda,
        pattern,
        sparsity: (pattern == Pattern::Unstructured).then_some(sparsity),
        group: None,
        method: MethodConfig::default(),
        tokens: TokenConfig::default(),
        propagate: Propagate::Pruned,
        seed: 3,
    }
}

/// Prunes a tower that has lost nothing yet.
pub fn prune(model: &mut dyn VisionLanguage, request: &PruneRequest) -> MaskSet {
    MaskSet::new().apply(model).expect("drops masks");
    prune_on(model, request)
}

/// Prunes a tower further.
fn prune_on(model: &mut dyn VisionLanguage, request: &PruneRequest) -> MaskSet {
    let pruned = prune_tower(model, request, &samples(), &mut |_| {}).expect("prunes");
    assert!(pruned.certificate.holds(), "{:?}", pruned.certificate.violations);
    pruned.masks
}

fn same(left: &MaskSet, right: &MaskSet) -> bool {
    left.len() == right.len() && left.iter().zip(right.iter()).all(|((a, x), (b, y))| a == b && x.equal(y))
}

#[test]
fn every_tower_metric_and_pattern_is_certified() {
    for mut model in [t5(), vicuna()] {
        for tower in Tower::ALL {
            for metric in [Metric::Random, Metric::Magnitude, Metric::Wanda] {
                for group in [Group::Row, Group::Matrix, Group::Tower] {
                    let asked =
                        PruneRequest { metric, group: Some(group), ..request(tower, Pattern::Unstructured, 0.55) };
                    let count = prune(&mut model, &asked).count();
                    let slack = match group {
                        Group::Tower => 0.5 / count.total as f64,
                        Group::Matrix => 0.002,
                        Group::Row => 0.05,
                    };
                    assert!(
                        (count.sparsity() - 0.55).abs() <= slack,
                        "{tower} {metric:?} {group:?}: {}",
                        count.sparsity()
                    );
                }
                let two_of_four = request(tower, Pattern::NOfM { keep: 2, of: 4 }, 0.0);
                let count = prune(&mut model, &PruneRequest { metric, ..two_of_four }).count();
                assert_eq!(2 * count.kept, count.total);
            }
        }
    }
}

/// A projection that joined is pruned and counted with the connector; one that did not is in no certificate.
#[test]
fn a_projection_is_pruned_with_its_connector() {
    let two_of_four = Pattern::NOfM { keep: 2, of: 4 };
    let asked = Metric::METHODS.map(|metric| PruneRequest { metric, ..request(Tower::Connector, two_of_four, 0.0) });
    let by_row = PruneRequest { group: Some(Group::Row), ..request(Tower::Connector, Pattern::Unstructured, 0.5) };
    for asked in asked.into_iter().chain([by_row]) {
        let pruned = |join: bool| {
            let mut model = t5();
            if join {
                join_projection(&mut model).expect("there is one");
            }
            prune_tower(&mut model, &asked, &samples(), &mut |_| {}).expect("prunes")
        };
        let (alone, joined) = (pruned(false), pruned(true));
        assert!(joined.certificate.holds(), "{:?}", joined.certificate.violations);
        // 32 rows of 16 weights lose 8 each.
        let found = &joined.certificate.tensors["language_projection"];
        assert_eq!((found.zeros, found.total), (256, 512), "{:?}", asked.metric);
        let (of_alone, of_joined) =
            (alone.certificate.tower(Tower::Connector), joined.certificate.tower(Tower::Connector));
        assert_eq!((of_joined.0 - of_alone.0, of_joined.1 - of_alone.1), (256, 512), "{:?}", asked.metric);
        // What comes before the projection is pruned as without it.
        assert!(alone.masks.iter().all(|(name, keep)| joined.masks.get(name).is_some_and(|other| other.equal(keep))));
    }
    let mut without = presets::random(&presets::tiny_retrieval(VOCABULARY), 7).expect("a model");
    let refused = join_projection(&mut without).expect_err("a retrieval model has none").to_string();
    assert!(refused.contains("prune.connector.projection"), "{refused}");
}

/// Weights compare kinds of token: where a layer sees one kind only, or none that counts, they decide nothing.
#[test]
fn a_kind_alone_counts_fully() {
    let mut model = t5();
    let mut masks = |tower, (text, visual): (f64, f64)| {
        let tokens = TokenConfig { text, visual, ..TokenConfig::default() };
        prune(
            &mut model,
            &PruneRequest { tokens, propagate: Propagate::Dense, ..request(tower, Pattern::Unstructured, 0.5) },
        )
    };
    assert!(same(&masks(Tower::Vision, (1.0, 0.0)), &masks(Tower::Vision, (1.0, 1.0))));
    let (all, image, none) =
        (masks(Tower::Language, (1.0, 1.0)), masks(Tower::Language, (0.0, 1.0)), masks(Tower::Language, (0.0, 0.0)));
    assert!(same(&all, &none));
    for ((name, all), (_, image)) in all.iter().zip(image.iter()) {
        let reads_text_alone =
            name.contains(".decoder.") && !name.contains("EncDecAttention.k") && !name.contains("EncDecAttention.v");
        assert!(all.equal(image) == reads_text_alone, "{name}");
    }
}

/// Dense propagation is a plain forward pass under observation.
#[test]
fn dense_calibration_sees_what_a_forward_pass_shows() {
    struct Seen(ColumnStatistics);
    impl Observer for Seen {
        fn observe(&mut self, input: &Tensor) {
            self.0.add_sample(input);
        }
    }
    let mut model = t5();
    let samples = samples();
    let mut expected = MaskSet::new();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == Tower::Language) {
        let seen = Arc::new(Mutex::new(Seen(ColumnStatistics::new(linear.shape().1, Needs::NORMS, Device::Cpu))));
        let guard = linear.tap(Arc::clone(&seen) as _);
        for sample in &samples {
            let features = model.encode_images(&sample.pixels);
            let prefix = model.visual_prefix(&features, &sample.prompt);
            model.force(Some(&prefix), &sample.prompt.language, std::slice::from_ref(&sample.answer));
        }
        drop(guard);
        let statistics = &seen.lock().expect("not poisoned").0;
        let row = Selection::Unstructured { sparsity: 0.5, group: Group::Row };
        expected.insert(&id.name, row.keep(&Wanda.importance(&id.name, linear.weight(), Some(statistics))));
    }
    let dense = PruneRequest { propagate: Propagate::Dense, ..request(Tower::Language, Pattern::Unstructured, 0.5) };
    let found = prune(&mut model, &dense);
    assert!(same(&expected, &found));
    let propagated = prune(&mut model, &PruneRequest { propagate: Propagate::Pruned, ..dense });
    assert!(!same(&found, &propagated), "pruned predecessors must show in the masks");
}

#[test]
fn the_image_encoder_counts_an_image_once() {
    let asked = request(Tower::Vision, Pattern::Unstructured, 0.5);
    let run = |samples: &[Sample]| prune_tower(&mut t5(), &asked, samples, &mut |_| {}).expect("prunes").masks;
    let once: Vec<Sample> = [0, 1, 2].map(|image| sample(image, 0)).into();
    let uneven: Vec<Sample> =
        [(0, 0), (0, 1), (0, 2), (0, 5), (1, 1), (2, 0), (2, 3)].map(|(i, t)| sample(i, t)).into();
    assert!(same(&run(&once), &run(&uneven)));
}

#[test]
fn pruning_again_gives_the_same_masks() {
    let mut model = vicuna();
    let asked = request(Tower::Language, Pattern::Unstructured, 0.7);
    let first = prune(&mut model, &asked);
    let second = prune_on(&mut model, &asked);
    assert!(same(&first, &second) && same(&second, &MaskSet::of(&model)));
    assert!(same(&first, &prune(&mut model, &asked)));
}

/// What is gone stays gone and counts, whatever ranks the weights and whatever pattern comes next.
#[test]
fn a_later_step_removes_what_an_earlier_one_did_and_more() {
    let half = Pattern::NOfM { keep: 2, of: 4 };
    for metric in Metric::METHODS {
        for (pattern, share) in [(Pattern::Unstructured, 0.6), (half, 0.5)] {
            let mut model = t5();
            let first = PruneRequest { metric, ..request(Tower::Language, Pattern::Unstructured, 0.3) };
            let first = prune_on(&mut model, &first);
            let second = PruneRequest { metric, seed: 5, ..request(Tower::Language, pattern, share) };
            let second = prune_on(&mut model, &second);
            for (name, before) in first.iter() {
                let after = second.get(name).expect("every layer").keep();
                let back = after.logical_and(&before.remove()).any().int64_value(&[]);
                assert_eq!(back, 0, "{} {pattern}: `{name}`", metric.name());
            }
            let sparsity = second.count().sparsity();
            // Groups of four that had lost three stay so.
            assert!((share - 0.01..share + 0.1).contains(&sparsity), "{} {pattern}: {sparsity}", metric.name());
        }
    }
}

/// Values that ranks compare equal, or above, are not what is gone: signed magnitudes and dead inputs.
#[test]
fn a_later_step_that_keeps_something_back_is_caught() {
    let mut model = t5();
    let first = prune(&mut model, &request(Tower::Vision, Pattern::Unstructured, 0.3));
    let asked = request(Tower::Vision, Pattern::Unstructured, 0.5);
    let second = prune(&mut model, &PruneRequest { metric: Metric::Random, ..asked });
    let found = certify_tower(&model, &asked, &second, &first).expect("counts");
    assert!(found.violations.iter().any(|v| v.contains("that an earlier step had pruned")), "{:?}", found.violations);
}

#[test]
fn certificates_catch_tampering() {
    let mut model = t5();
    let asked = request(Tower::Vision, Pattern::NOfM { keep: 2, of: 4 }, 0.0);
    let mut masks = prune(&mut model, &asked);
    let (name, keep) = masks.iter().next().map(|(n, m)| (n.to_owned(), m.keep().copy())).expect("a mask");
    let _ = keep.get(0).fill_(1);
    masks.insert(name.clone(), keep.shallow_clone());
    let found = certify_tower(&model, &asked, &masks, &MaskSet::new()).expect("counts");
    let (rows, columns) = (keep.size()[0], keep.size()[1]);
    assert_eq!(
        found.violations,
        [
            format!(
                "`{name}`: the mask prunes {} weights, {} were asked for",
                (rows - 1) * columns / 2,
                rows * columns / 2
            ),
            format!("`{name}`: {} groups keep more than `2:4` allows", columns / 4),
        ]
    );
}

#[test]
fn what_cannot_be_done_is_said() {
    let message = |request: PruneRequest, samples: &[Sample]| {
        prune_tower(&mut t5(), &request, samples, &mut |_| {}).expect_err("refused").to_string()
    };
    let wanda = request(Tower::Vision, Pattern::Unstructured, 0.5);
    assert_eq!(
        message(wanda, &[]),
        "metric `wanda` needs calibration samples and there are none: raise `prune.calibration.images`, and `questions` or `captions` \
         beside it"
    );
    assert_eq!(
        message(PruneRequest { sparsity: Some(1.0), ..wanda }, &samples()),
        "sparsity `1` of tower `vision` is not usable: give a fraction from 0 to below 1"
    );
    assert_eq!(
        message(request(Tower::Vision, Pattern::NOfM { keep: 3, of: 16 }, 0.0), &samples()),
        "`vision_model.encoder.layers.0.self_attn.qkv` reads 24 inputs, which groups of 16 do not divide: use another \
         pattern for this tower"
    );
}

#[test]
fn activations_that_are_not_finite_name_their_layer() {
    let mut sick = samples();
    sick[3].pixels = Tensor::full([1, 3, 16, 16], f64::NAN, (Kind::Float, Device::Cpu));
    let asked = request(Tower::Vision, Pattern::Unstructured, 0.5);
    let error = prune_tower(&mut t5(), &asked, &sick, &mut |_| {}).expect_err("refused");
    assert!(
        matches!(&error, PruneError::NotFiniteInput { layer } if layer.starts_with("vision_model.encoder.layers.0.")),
        "{error}"
    );
    // Where the weights are to blame, the layer that has them, not the one that reads what they made.
    let mut model = t5();
    let (id, linear) = model.linears_mut().into_iter().find(|(id, _)| id.tower == Tower::Vision).unwrap();
    let (name, weight) = (id.name.clone(), linear.weight().copy());
    let _ = weight.get(0).get(0).fill_(f64::NAN);
    linear.set_weight(weight).unwrap();
    let error = prune_tower(&mut model, &asked, &samples(), &mut |_| {}).expect_err("refused");
    assert!(matches!(&error, PruneError::NotFiniteWeight { layer } if *layer == name), "{error}");
}

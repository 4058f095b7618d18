//! Noise on weights while training: what is trained and merged has none, and groups that shrink.

use std::collections::BTreeMap;

use ressa_experiment::{
    config::{Recompute, RestoreMethod, TowerAdapter},
    penalty::{PenalisedGroups, PenaltyConfig},
    perturb::NoiseConfig,
    stage::AdaptTraining,
};
use ressa_models::{Cuts, Side, Surgery, Tower};
use ressa_restore::{
    Budgets, Checkpoints, Interval, MergeRequest, Restoration, TrainingOptions, merge, train_adapters,
};
use tch::Kind;

use crate::world::{Batches, dense, masks, probe, settings, student, student_of};

fn options(masked: bool) -> TrainingOptions<'static> {
    TrainingOptions { masked, seed: 5, checkpoints: None, budgets: Budgets::default() }
}

fn train(settings: &AdaptTraining, options: TrainingOptions<'_>) -> Restoration {
    train_adapters(student().as_mut(), None, settings, options, &mut Batches::default(), &mut |_| {}).expect("trains")
}

fn noisy(sigma: f64) -> AdaptTraining {
    AdaptTraining { perturb: NoiseConfig { sigma, beta: 0.5 }, ..settings(5, None) }
}

/// Noise moves the losses from the first step on, by little where it is little; what is merged is what was trained, without it.
#[test]
fn noise_moves_a_training_and_not_what_it_merges() {
    for (method, masked) in [(RestoreMethod::SparseLora, true), (RestoreMethod::Lora, false)] {
        let still = train(&noisy(0.0), options(masked));
        let [little, much] = [1e-4, 0.1].map(|sigma| train(&noisy(sigma), options(masked)));
        let off = |other: &Restoration| (other.losses[0].total - still.losses[0].total).abs();
        assert!(off(&little) > 0.0 && off(&little) < 1e-2 && off(&much) > 10.0 * off(&little), "{}", method.name());
        let (masks, patterns) = (masks(&dense()), BTreeMap::new());
        let request = MergeRequest {
            method,
            masks: &masks,
            adapters: &much.adapters,
            patterns: &patterns,
            cuts: &Cuts::default(),
            before: None,
        };
        let merged = merge(&dense(), request, &probe()).expect("merges");
        assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
    }
}

/// The noise of a step is the same in every part of its batch and whenever a block is computed again.
#[test]
fn every_way_to_compute_a_step_has_the_same_noise() {
    let settings = AdaptTraining { learning_rate: 1e-4, recompute: Recompute::None, ..noisy(0.05) };
    let whole = train(&settings, options(true));
    for (micro_batch, recompute) in [(Some(1), Recompute::None), (Some(2), Recompute::Blocks)] {
        let parts = train(&AdaptTraining { micro_batch, recompute, ..settings.clone() }, options(true));
        for (one, other) in whole.losses.iter().zip(&parts.losses) {
            assert!((one.total - other.total).abs() < 1e-4 * one.total, "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_resumed_training_has_the_same_noise() {
    let settings = noisy(0.05);
    let whole = train(&settings, options(true));
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(3) };
    let options = TrainingOptions { checkpoints: Some(&checkpoints), ..options(true) };
    let mut sick = Batches { sick_at: Some(3), ..Batches::default() };
    train_adapters(student().as_mut(), None, &settings, options, &mut sick, &mut |_| {}).expect_err("interrupted");
    let mut rest = Batches::default();
    let resumed = train_adapters(student().as_mut(), None, &settings, options, &mut rest, &mut |_| {});
    assert_eq!(rest.asked, [3, 4]);
    assert_eq!(whole.losses, resumed.expect("trains").losses);
}

fn penalised(weight: f64, groups: PenalisedGroups) -> AdaptTraining {
    let tower = TowerAdapter { full: true, ..TowerAdapter::default() };
    AdaptTraining {
        vision: Some(tower.clone()),
        connector: None,
        language: Some(tower),
        penalty: PenaltyConfig { weight, groups },
        learning_rate: 1e-4,
        warmup: 0,
        ..settings(1, None)
    }
}

/// One step whose optimiser moves nothing shrinks every row by the same length, weights that a mask prunes left out, or to zero.
#[test]
fn a_row_shrinks_by_the_learning_rate_times_the_root_of_its_size() {
    for weight in [0.5, 20.0, 1e9] {
        let mut model = student();
        let before: Vec<_> = model.linears().iter().map(|(_, linear)| linear.effective_weight()).collect();
        // AdamW makes a step of the learning rate whatever the gradient; it is the smaller part.
        let settings = penalised(weight, PenalisedGroups::Rows);
        let trained =
            train_adapters(model.as_mut(), None, &settings, options(true), &mut Batches::default(), &mut |_| {})
                .expect("trains");
        let mut zeros = 0;
        for ((id, linear), before) in model.linears().into_iter().zip(before) {
            if id.tower == Tower::Connector {
                continue;
            }
            let length = |matrix: &tch::Tensor| matrix.norm_scalaropt_dim(2.0, [-1], false);
            let kept = linear.mask().expect("a mask").sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
            let wanted = (length(&before) - kept.sqrt() * (1e-4 * weight)).clamp_min(0.0);
            let found = length(&linear.effective_weight());
            // The optimiser's step is at most as long as the learning rate for each weight.
            let off = ((found.shallow_clone() - wanted).abs() / kept.sqrt()).max().double_value(&[]);
            assert!(off < 1.1e-4, "{}: {off}", id.name);
            zeros += found.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        }
        let counted: u64 = trained.groups.values().map(|kinds| kinds["rows"].zero).sum();
        assert_eq!(counted as i64, zeros);
        // A row of random weights is not as short as 5e-5 for each of them, nor as long as 1e5.
        assert!(weight >= 1.0 || zeros == 0);
        assert!(weight < 1e9 || zeros > 0);
    }
}

/// A head or channel becomes zero as a whole: the rows that make it and the columns that read it.
#[test]
fn heads_and_channels_become_zero_together() {
    let dense = dense();
    let mut model = student_of(&dense);
    let layer_of = |model: &dyn ressa_models::VisionLanguage, name: &str| {
        let found = model.linears().into_iter().find(|(id, _)| id.name == name).map(|(_, linear)| linear);
        found.expect("a layer").effective_weight()
    };
    let positions = |set: &ressa_models::GroupSet, slice: &ressa_models::Slice, group: i64| {
        let at = tch::Tensor::from_slice(&slice.positions(set.count, &[group]));
        (if slice.side == Side::Rows { 0 } else { 1 }, at)
    };
    // Root of the mean square of the kept weights of each group of the image encoder.
    let mut lengths = Vec::new();
    for block in 0..model.blocks(Tower::Vision) {
        for set in Surgery::groups(model.as_ref(), Tower::Vision, block).sets {
            for group in 0..set.count {
                let (mut squares, mut size) = (0.0, 0.0);
                for slice in &set.slices {
                    let (axis, at) = positions(&set, slice, group);
                    let own = layer_of(model.as_ref(), &slice.layer).index_select(axis, &at);
                    squares += own.square().sum(Kind::Double).double_value(&[]);
                    size += own.numel() as f64 / 2.0;
                }
                lengths.push(f64::sqrt(squares / size));
            }
        }
    }
    lengths.sort_unstable_by(f64::total_cmp);
    // Four steps that shrink every group by the median of them together: some become zero, some do not.
    let weight = lengths[lengths.len() / 2] / (4.0 * 1e-4);
    let settings = AdaptTraining { steps: 4, final_rate: 1.0, ..penalised(weight, PenalisedGroups::Structure) };
    let trained = train_adapters(model.as_mut(), None, &settings, options(true), &mut Batches::default(), &mut |_| {})
        .expect("trains");
    let counts: Vec<_> = trained.groups.values().flat_map(|kinds| kinds.values().copied()).collect();
    let (zero, of) = counts.iter().fold((0, 0), |sum, counts| (sum.0 + counts.zero, sum.1 + counts.of));
    assert!(0 < zero && zero < of, "{:?}", trained.groups);
    let mut channels = 0;
    for block in 0..model.blocks(Tower::Vision) {
        for set in Surgery::groups(model.as_ref(), Tower::Vision, block).sets {
            for group in 0..set.count {
                let is_zero = |slice: &ressa_models::Slice| {
                    let (axis, at) = positions(&set, slice, group);
                    layer_of(model.as_ref(), &slice.layer).index_select(axis, &at).ne(0.0).any().int64_value(&[]) == 0
                };
                let zeros = set.slices.iter().filter(|slice| is_zero(slice)).count();
                assert!(zeros == 0 || zeros == set.slices.len(), "group {group} of block {block}");
                channels += u64::from(zeros > 0);
            }
        }
    }
    let of_vision: u64 = trained.groups[&Tower::Vision].values().map(|counts| counts.zero).sum();
    assert_eq!(channels, of_vision);
}

//! Training: masked updates, distillation, resuming, divergence.

use ressa_experiment::{
    config::{DistillConfig, Reduction},
    stage::AdaptTraining,
};
use ressa_models::{Tower, UpdateSet, VisionLanguage};
use ressa_restore::{
    Budgets, Checkpoints, Interval, Restoration, RestoreError, StepLoss, TrainingOptions, adapters, train_adapters,
};
use tch::Kind;

use crate::world::{Batches, dense, settings, student};

fn options(masked: bool) -> TrainingOptions<'static> {
    TrainingOptions { masked, seed: 5, checkpoints: None, budgets: Budgets::default() }
}

fn train(settings: &AdaptTraining, options: TrainingOptions<'_>) -> Restoration {
    let teacher = dense();
    train_adapters(student().as_mut(), Some(&teacher), settings, options, &mut Batches::default(), &mut |_| {})
        .expect("trains")
}

fn equal(left: &UpdateSet, right: &UpdateSet) -> bool {
    left.len() == right.len()
        && left.iter().zip(right.iter()).all(|((m, x), (n, y))| {
            m == n && x.parameters().iter().zip(y.parameters()).all(|((_, x), (_, y))| x.equal(y))
        })
}

#[test]
fn training_lowers_the_loss_and_never_touches_pruned_positions() {
    let mut model = student();
    let before: Vec<_> = model.linears().iter().map(|(_, l)| l.weight().copy()).collect();
    let settings = settings(12, Some(DistillConfig { weight: 0.3, ..DistillConfig::default() }));
    let teacher = dense();
    let trained =
        train_adapters(model.as_mut(), Some(&teacher), &settings, options(true), &mut Batches::default(), &mut |_| {})
            .expect("trains");
    let total = |losses: &[StepLoss]| losses.iter().map(|l| l.total).sum::<f64>();
    assert!(total(&trained.losses[8..]) < 0.9 * total(&trained.losses[..4]), "{:?}", trained.losses);
    for ((id, linear), before) in model.linears().into_iter().zip(before) {
        assert!(linear.weight().equal(&before), "{} changed", id.name);
        let update = linear.matrix().update().expect("every layer is updated");
        let [_, (_, b)] = update.parameters()[..] else { panic!("two factors") };
        assert!(b.abs().max().double_value(&[]) > 0.0, "{} did not train", id.name);
        assert_eq!(update.respects_mask(), id.tower != Tower::Connector);
        if let Some(keep) = linear.mask() {
            let pruned = linear.effective_weight().masked_select(&keep.logical_not());
            assert_eq!(pruned.count_nonzero(None).int64_value(&[]), 0, "{} is revived", id.name);
        }
    }
}

/// The gradient of a masked adapter is that of the kept positions alone.
#[test]
fn pruned_positions_have_no_gradient() {
    let mut model = student();
    let fresh = adapters::initialise(model.as_ref(), &settings(1, None), true, 1).expect("adapters");
    fresh.apply(model.as_mut()).expect("fits");
    let (_, linear) = model.linears().into_iter().find(|(id, _)| id.tower == Tower::Language).expect("a layer");
    let update = linear.matrix().update().expect("an update");
    let [(_, a), (_, b)] = update.parameters()[..] else { panic!("two factors") };
    let (a, b) = (a.set_requires_grad(true), b.set_requires_grad(true));
    let scale = update.settings()["scale"].as_f64().expect("a scale");
    let upstream = linear.weight().sin();
    (linear.effective_weight() * &upstream).sum(Kind::Float).backward();
    let keep = linear.mask().expect("a mask").to_kind(Kind::Float);
    let expected = (upstream * keep).matmul(&a.detach().transpose(0, 1)) * scale;
    assert!((b.grad() - expected).abs().max().double_value(&[]) < 1e-5);
    assert_eq!(a.grad().abs().max().double_value(&[]), 0.0, "b is zero at the start");
}

#[test]
fn distillation_of_weight_zero_is_none() {
    let off = DistillConfig { weight: 0.0, temperature: 3.0, reduction: Reduction::Sum, ..DistillConfig::default() };
    let (without, with) =
        (train(&settings(4, None), options(true)), train(&settings(4, Some(off.clone())), options(true)));
    assert!(equal(&without.adapters, &with.adapters));
    assert_eq!(without.losses, with.losses);
    let on = train(&settings(4, Some(DistillConfig { weight: 0.5, ..off })), options(true));
    assert!(!equal(&without.adapters, &on.adapters) && on.losses[0].distillation > 0.0);
}

#[test]
fn a_resumed_training_ends_with_the_same_bits() {
    let settings = settings(7, Some(DistillConfig { weight: 0.2, ..DistillConfig::default() }));
    let whole = train(&settings, options(true));
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(2) };
    let options = TrainingOptions { checkpoints: Some(&checkpoints), ..options(true) };
    let teacher = dense();
    let mut interrupted = Batches { sick_at: Some(5), ..Batches::default() };
    let error = train_adapters(student().as_mut(), Some(&teacher), &settings, options, &mut interrupted, &mut |_| {});
    assert!(error.expect_err("interrupted").is_divergence());
    let mut rest = Batches::default();
    let resumed =
        train_adapters(student().as_mut(), Some(&teacher), &settings, options, &mut rest, &mut |_| {}).expect("trains");
    assert_eq!(rest.asked, [4, 5, 6]);
    assert!(equal(&whole.adapters, &resumed.adapters));
    assert_eq!(whole.losses, resumed.losses);

    let other = TrainingOptions { seed: 6, ..options };
    let error = train_adapters(student().as_mut(), Some(&teacher), &settings, other, &mut rest, &mut |_| {});
    let message = error.expect_err("another training's checkpoint").to_string();
    assert!(message.ends_with("it belongs to another training; delete it to start again"), "{message}");
}

#[test]
fn what_cannot_be_trained_is_said() {
    let message = |settings: &AdaptTraining, batches: &mut Batches, teacher: bool| {
        let teacher = teacher.then(dense);
        let teacher = teacher.as_ref().map(|t| t as &dyn VisionLanguage);
        train_adapters(student().as_mut(), teacher, settings, options(true), batches, &mut |_| {})
            .expect_err("refused")
            .to_string()
    };
    let mut wrong = settings(2, None);
    if let Some(vision) = &mut wrong.vision {
        vision.targets = vec!["fc3".to_owned()];
    }
    assert_eq!(
        message(&wrong, &mut Batches::default(), false),
        "target `fc3` of tower `vision` names no layer; its layers are `fc1`, `fc2`, `projection`, `qkv`"
    );
    let distilled = settings(2, Some(DistillConfig { weight: 0.1, ..DistillConfig::default() }));
    assert_eq!(
        message(&distilled, &mut Batches::default(), false),
        "distillation of weight `0.1` needs the dense model as teacher"
    );
    assert_eq!(
        message(&settings(3, None), &mut Batches { sick_at: Some(1), ..Batches::default() }, false),
        "training diverged at step 1: loss is `NaN`; lower `restore.learning-rate` or raise `restore.warmup`"
    );
    let nothing = AdaptTraining { vision: None, connector: None, language: None, ..settings(2, None) };
    let error = train_adapters(student().as_mut(), None, &nothing, options(true), &mut Batches::default(), &mut |_| {});
    assert!(matches!(error, Err(RestoreError::NothingToTrain { .. })));
}

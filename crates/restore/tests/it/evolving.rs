//! Masks that change while training: budgets, resuming, ways of computing, merging.

use std::collections::BTreeMap;

use ressa_experiment::{
    Pattern,
    config::{Recompute, RestoreMethod, TowerAdapter},
    evolve::{Drop, EvolveConfig, Growth},
    stage::AdaptTraining,
};
use ressa_models::{Cuts, LayerCut, MaskSet, Model, Surgery, Tower, TowerCut};
use ressa_restore::{
    Budgets, Checkpoints, Evolution, Interval, MergeRequest, Restoration, TrainingOptions, departures, merge,
    train_adapters,
};
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::world::{Batches, dense, masks, probe, settings, student};

const TWO_OF_FOUR: Pattern = Pattern::NOfM { keep: 2, of: 4 };

/// Of every layer of the pruned towers.
fn patterns(pattern: Pattern) -> BTreeMap<String, Pattern> {
    let model = dense();
    let pruned = model.linears().into_iter().filter(|(id, _)| id.tower != Tower::Connector);
    pruned.map(|(id, _)| (id.name.clone(), pattern)).collect()
}

/// Exchanges before steps 2, 4 and 6 of 10.
fn evolving(full: bool) -> AdaptTraining {
    let tower = TowerAdapter { rank: 4, full, ..TowerAdapter::default() };
    AdaptTraining {
        evolve: EvolveConfig { every: 2, share: 0.5, ..EvolveConfig::default() },
        vision: Some(tower.clone()),
        connector: None,
        language: Some(tower),
        learning_rate: if full { 1e-3 } else { 1e-2 },
        ..settings(10, None)
    }
}

fn train(settings: &AdaptTraining, pattern: Pattern, checkpoints: Option<&Checkpoints>) -> (Restoration, MaskSet) {
    let mut model = student();
    let patterns = patterns(pattern);
    let budgets = Budgets { patterns: Some(&patterns), cuts: None };
    let options = TrainingOptions { masked: true, seed: 5, checkpoints, budgets };
    let trained = train_adapters(model.as_mut(), None, settings, options, &mut Batches::default(), &mut |_| {});
    (trained.expect("trains"), MaskSet::of(model.as_ref()))
}

fn evolution(trained: &Restoration) -> &Evolution {
    trained.evolution.as_ref().expect("masks change")
}

fn same(left: &Restoration, right: &Restoration) -> bool {
    let (one, other) = (evolution(left), evolution(right));
    let masks = one.masks.iter().zip(other.masks.iter()).all(|((m, x), (n, y))| m == n && x.equal(y));
    let weights = one.weights.iter().zip(other.weights.iter()).all(|((m, x), (n, y))| m == n && x.equal(y));
    let adapters =
        left.adapters.iter().zip(right.adapters.iter()).all(|((m, x), (n, y))| {
            m == n && x.parameters().iter().zip(y.parameters()).all(|((_, x), (_, y))| x.equal(y))
        });
    masks && weights && adapters && left.losses == right.losses && one.exchanged == other.exchanged
}

/// Every row keeps its number, every group of four two, and what came out merges exactly.
#[test]
fn budgets_hold_and_what_comes_out_merges_exactly() {
    for (full, pattern) in
        [(false, Pattern::Unstructured), (false, TWO_OF_FOUR), (true, Pattern::Unstructured), (true, TWO_OF_FOUR)]
    {
        for (drop, grow) in [(Drop::Magnitude, Growth::Gradient), (Drop::Sensitivity, Growth::Random)] {
            let mut settings = evolving(full);
            (settings.evolve.drop, settings.evolve.grow) = (drop, grow);
            let (trained, worn) = train(&settings, pattern, None);
            let evolution = evolution(&trained);
            let before = masks(&dense());
            assert_eq!((evolution.exchanges, evolution.masks.len()), (3, before.len()));
            assert!(evolution.exchanged > 0 && evolution.grown > 0.05 && evolution.grown < 1.0);
            assert_eq!(departures(&before, &evolution.masks, &Cuts::default()), Vec::<String>::new());
            let mut base = dense().shallow_clone();
            evolution.weights.apply(base.as_mut()).expect("fits");
            let patterns = patterns(pattern);
            let request = MergeRequest {
                method: RestoreMethod::SparseLora,
                masks: &evolution.masks,
                adapters: &trained.adapters,
                patterns: &patterns,
                cuts: &Cuts::default(),
                before: Some(&before),
            };
            let merged = merge(base.as_ref(), request, &probe()).expect("merges");
            assert!(merged.certificate.holds(), "{:?}", merged.certificate.violations);
            assert!(worn.iter().all(|(name, mask)| mask.equal(evolution.masks.get(name).expect("a mask"))));
        }
    }
}

/// The budget of a matrix holds where rows keep different numbers.
#[test]
fn a_matrix_without_equal_rows_keeps_its_number() {
    let mut model = dense().shallow_clone();
    let mut uneven = MaskSet::new();
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower == Tower::Language) {
        uneven.insert(
            &id.name,
            linear.weight().abs().gt(0.02 + linear.weight().abs().mean(Kind::Float).double_value(&[]) / 2.0),
        );
    }
    uneven.apply(model.as_mut()).expect("fits");
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let settings = AdaptTraining { vision: None, ..evolving(true) };
    let trained = train_adapters(model.as_mut(), None, &settings, options, &mut Batches::default(), &mut |_| {});
    let evolution = trained.expect("trains").evolution.expect("masks change");
    let by_row = |masks: &MaskSet, name: &str| {
        masks.get(name).expect("a mask").keep().sum_dim_intlist([-1i64].as_slice(), false, Kind::Int64)
    };
    let mut moved = 0;
    for (name, mask) in uneven.iter() {
        assert_eq!(evolution.masks.get(name).expect("a mask").kept(), mask.kept(), "{name}");
        moved += i64::from(!by_row(&uneven, name).equal(&by_row(&evolution.masks, name)));
    }
    assert!(moved > 0, "rows compete");
}

/// What has grown starts at zero, and until then a layer is what it was but for what was dropped.
#[test]
fn what_grows_starts_at_zero() {
    for full in [false, true] {
        // One exchange, before the last step, with a learning rate that moves nothing.
        let mut settings = AdaptTraining { steps: 3, ..evolving(full) };
        settings.evolve = EvolveConfig { every: 2, until: 1.0, share: 0.9, ..EvolveConfig::default() };
        let still = AdaptTraining { evolve: EvolveConfig::default(), ..settings.clone() };
        let effective = |settings: &AdaptTraining| {
            let mut model = student();
            let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
            let mut states = Vec::new();
            let trained = train_adapters(model.as_mut(), None, settings, options, &mut Batches::default(), &mut |_| {});
            let trained = trained.expect("trains");
            for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower != Tower::Connector) {
                states.push((id.name.clone(), linear.effective_weight(), linear.mask().expect("a mask")));
            }
            (states, trained.losses)
        };
        let frozen = |settings: AdaptTraining| AdaptTraining { final_rate: 0.0, learning_rate: 1e-30, ..settings };
        let ((changed, _), (plain, _)) = (effective(&frozen(settings)), effective(&frozen(still)));
        let mut grown_in_all = 0;
        for ((name, changed, now), (_, plain, before)) in changed.into_iter().zip(plain) {
            let grown = now.logical_and(&before.logical_not());
            let stayed = now.logical_and(&before);
            grown_in_all += grown.sum(Kind::Int64).int64_value(&[]);
            // The step behind the exchange moves by 1e-30.
            assert!(changed.masked_select(&grown).abs().max_other_or_zero() < 1e-20, "{name}");
            assert!(changed.masked_select(&stayed).equal(&plain.masked_select(&stayed)), "{name}");
            // What went was smaller than what stayed, row by row.
            let gone = before.logical_and(&now.logical_not());
            let largest = plain.abs().masked_fill(&gone.logical_not(), 0.0).amax([-1i64].as_slice(), false);
            let least = plain.abs().masked_fill(&stayed.logical_not(), f64::INFINITY).amin([-1i64].as_slice(), false);
            assert_eq!(largest.gt_tensor(&least).any().int64_value(&[]), 0, "{name}");
        }
        assert!(grown_in_all > 0);
    }
}

/// What a low-rank product has where a weight grows is taken from the stored weight: one short step later, the weight is still nearer to zero than that.
#[test]
fn what_grows_under_a_product_starts_at_zero() {
    let mut model = student();
    let mut settings = AdaptTraining { steps: 3, final_rate: 0.0, ..evolving(false) };
    settings.evolve = EvolveConfig { every: 2, until: 1.0, share: 0.9, ..EvolveConfig::default() };
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let trained = train_adapters(model.as_mut(), None, &settings, options, &mut Batches::default(), &mut |_| {});
    let evolution = trained.expect("trains").evolution.expect("masks change");
    let before = masks(&dense());
    let (mut taken, mut left) = (0.0, 0.0);
    for (id, linear) in model.linears().into_iter().filter(|(id, _)| id.tower != Tower::Connector) {
        let [was, is] = [&before, &evolution.masks].map(|masks| masks.get(&id.name).expect("a mask").keep());
        let grown = is.logical_and(&was.logical_not());
        let sum = |values: &Tensor| values.masked_select(&grown).abs().sum(Kind::Double).double_value(&[]);
        taken += sum(evolution.weights.get(&id.name).expect("a weight"));
        left += sum(&linear.effective_weight());
    }
    assert!(0.0 < left && left < 0.5 * taken, "{left} of {taken}");
}

trait MaxOrZero {
    fn max_other_or_zero(&self) -> f64;
}

impl MaxOrZero for Tensor {
    fn max_other_or_zero(&self) -> f64 {
        if self.numel() == 0 { 0.0 } else { self.max().double_value(&[]) }
    }
}

#[test]
fn a_resumed_training_ends_with_the_same_masks_and_bits() {
    for full in [false, true] {
        let mut settings = evolving(full);
        settings.perturb.sigma = 0.05;
        let (whole, _) = train(&settings, TWO_OF_FOUR, None);
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(5) };
        let patterns = patterns(TWO_OF_FOUR);
        let budgets = Budgets { patterns: Some(&patterns), cuts: None };
        let options = TrainingOptions { masked: true, seed: 5, checkpoints: Some(&checkpoints), budgets };
        let mut sick = Batches { sick_at: Some(7), ..Batches::default() };
        let stopped = train_adapters(student().as_mut(), None, &settings, options, &mut sick, &mut |_| {});
        assert!(stopped.expect_err("interrupted").is_divergence());
        let mut rest = Batches::default();
        let resumed = train_adapters(student().as_mut(), None, &settings, options, &mut rest, &mut |_| {});
        assert_eq!(rest.asked, [5, 6, 7, 8, 9]);
        assert!(same(&whole, &resumed.expect("trains")), "full: {full}");
    }
}

/// Parts of a batch and recomputed blocks give the gradients by which weights grow, up to rounding: nearly all masks are the same.
#[test]
fn every_way_to_compute_a_step_grows_the_same() {
    let settings = AdaptTraining { recompute: Recompute::None, ..evolving(false) };
    let (whole, _) = train(&settings, TWO_OF_FOUR, None);
    for (micro_batch, recompute) in
        [(Some(2), Recompute::None), (None, Recompute::Blocks), (Some(1), Recompute::Blocks)]
    {
        let (parts, _) = train(&AdaptTraining { micro_batch, recompute, ..settings.clone() }, TWO_OF_FOUR, None);
        let (mut other, mut kept) = (0, 0);
        for ((_, one), (_, two)) in evolution(&whole).masks.iter().zip(evolution(&parts).masks.iter()) {
            other += one.keep().logical_xor(&two.keep()).sum(Kind::Int64).int64_value(&[]);
            kept += one.kept() as i64;
        }
        assert!(other * 50 < kept, "{other} of {kept}");
    }
}

/// Nothing grows where rows were removed as a whole, and what does is told.
#[test]
fn what_was_removed_as_a_whole_stays_removed() {
    let dense: Model = dense();
    let name = dense.linears().into_iter().find(|(id, _)| id.tower == Tower::Language).expect("a layer").0.name.clone();
    let (rows, columns) = dense.linears().iter().find(|(id, _)| id.name == name).expect("a layer").1.shape();
    let mut all = masks(&dense);
    let left = Tensor::arange(rows - 3, (Kind::Int64, Device::Cpu));
    let cut = LayerCut { rows: Some(left), columns: None };
    let inside = cut.keep((rows, columns), Device::Cpu);
    let own = all.get(&name).expect("a mask").keep().logical_and(&inside);
    all.insert(&name, own.shallow_clone());
    let mut of_tower = TowerCut::default();
    of_tower.layers.insert(name.clone(), cut);
    // Of another layer nothing is left, as in a block that was removed.
    let nothing = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
    let other =
        dense.linears().into_iter().rfind(|(id, _)| id.tower == Tower::Language).expect("a layer").0.name.clone();
    assert_ne!(other, name);
    all.insert(&other, all.get(&other).expect("a mask").keep().zeros_like());
    of_tower.layers.insert(other.clone(), LayerCut { rows: Some(nothing), columns: None });
    let mut cuts = Cuts::default();
    cuts.insert(Tower::Language, of_tower);
    let mut model = dense.shallow_clone();
    all.apply(model.as_mut()).expect("fits");
    let budgets = Budgets { patterns: None, cuts: Some(&cuts) };
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets };
    let settings = evolving(true);
    let trained = train_adapters(model.as_mut(), None, &settings, options, &mut Batches::default(), &mut |_| {});
    let evolution = trained.expect("trains").evolution.expect("masks change");
    let now = evolution.masks.get(&name).expect("a mask").keep();
    assert!(!now.equal(&own));
    assert!(evolution.masks.get(&other).is_none_or(|mask| mask.kept() == 0));
    assert_eq!(now.logical_and(&inside.logical_not()).any().int64_value(&[]), 0);
    assert_eq!(departures(&all, &evolution.masks, &cuts), Vec::<String>::new());

    // What a certificate says of masks that are not what they should be.
    let moved = |change: &dyn Fn(&Tensor)| {
        let mut wrong = all.shallow_clone();
        let keep = own.copy();
        change(&keep);
        wrong.insert(&name, keep);
        departures(&all, &wrong, &cuts)
    };
    let set = |keep: &Tensor, at: [i64; 2], value: bool| {
        let _ = keep.get(at[0]).get(at[1]).fill_(i64::from(value));
    };
    let [one, two] = [own.size()[0] - 1, 0];
    assert_eq!(own.int64_value(&[two, 0]), 1);
    let fewer = moved(&|keep| set(keep, [two, 0], false));
    assert!(fewer[0].ends_with(" before") && fewer[0].contains("the mask keeps"), "{fewer:?}");
    let outside = moved(&|keep| {
        set(keep, [two, 0], false);
        set(keep, [one, 1], true);
    });
    assert!(outside[0].ends_with("weights have grown in what was removed as a whole"), "{outside:?}");
    let rows = moved(&|keep| {
        set(keep, [two, 0], false);
        set(keep, [1, 0], true);
    });
    assert_eq!(rows, [format!("`{name}`: rows keep other numbers of weights than before")]);
}

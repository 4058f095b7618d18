//! Measuring and dividing on small models with random weights.

use std::collections::BTreeMap;

use ressa_experiment::{
    Pattern, Tower,
    allocation::{
        Aggregate, AllocationConfig, AllocationGroup, AllocationMethod, BudgetConfig, Measurement, ScoreOrder,
        ScoreRule, SearchConfig, Sensitivities,
    },
    config::{Group, MethodConfig, Metric, Propagate, PruneConfig, TokenConfig},
};
use ressa_models::{InBlocks, MaskSet, Model, Sample, Surgery, VisionLanguage};
use ressa_prune::{
    PruneRequest,
    allocation::{Counts, MeasureRequest, WINDOW, allocate, measure, places},
    certify_tower_divided, collect,
    metric::{PruningMetric, Wanda},
    prune_tower_divided,
    select::pruned_count,
    statistics::Needs,
    walk::Look,
};
use tch::{Kind, Tensor, with_grad};

use crate::tower::{samples, t5, vicuna};

fn measured(model: &dyn VisionLanguage, tower: Tower, measurement: Measurement, samples: &[Sample]) -> Sensitivities {
    let request = MeasureRequest { tower, measurement, window: WINDOW, seed: 3 };
    measure(model, &request, samples, &mut |_| {}).expect("measures")
}

/// Weights and gradients of a tower's layers for the summed loss of one sample, all at once.
fn gradients(model: &Model, tower: Tower, sample: &Sample) -> BTreeMap<String, (Tensor, Tensor)> {
    let mut model = model.shallow_clone();
    let mut leaves = BTreeMap::new();
    for (id, linear) in model.linears_mut().into_iter().filter(|(id, _)| id.tower == tower) {
        let leaf = linear.weight().detach().copy().set_requires_grad(true);
        linear.set_weight(leaf.shallow_clone()).expect("fits");
        leaves.insert(id.name.clone(), leaf);
    }
    with_grad(|| {
        let prefix = model.visual_prefix(&model.encode_images(&sample.pixels), &sample.prompt);
        model.force(Some(&prefix), &sample.prompt.language, std::slice::from_ref(&sample.answer)).loss().backward();
    });
    // The last block of the interface has a text branch that no answer depends on.
    let gradient = |leaf: &Tensor| if leaf.grad().defined() { leaf.grad() } else { leaf.detach().zeros_like() };
    leaves.into_iter().map(|(name, leaf)| (name, (leaf.detach(), gradient(&leaf)))).collect()
}

fn total(tensor: &Tensor) -> f64 {
    tensor.sum(Kind::Double).double_value(&[])
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

#[test]
fn first_order_scores_are_means_over_samples_of_weights_times_gradients() {
    for model in [t5(), vicuna()] {
        for tower in Tower::ALL {
            let samples = &samples()[..3];
            let mut expected: BTreeMap<String, [f64; 2]> = BTreeMap::new();
            for sample in samples {
                for (name, (weight, gradient)) in gradients(&model, tower, sample) {
                    let sums = expected.entry(name).or_default();
                    sums[0] += total(&(&weight * &gradient).abs()) / 3.0;
                    sums[1] += total(&(weight.square() * gradient.abs())) / 3.0;
                }
            }
            for (at, score) in [ScoreRule::Aobd, ScoreRule::ObdAbsolute].into_iter().enumerate() {
                let found = measured(&model, tower, Measurement::Gradient { score }, samples);
                assert_eq!(found.len(), expected.len());
                for (name, value) in &found {
                    assert!(near(*value, expected[name][at], 1e-4), "{name}: {value} {:?}", expected[name]);
                }
                let silent = found.values().filter(|value| **value == 0.0).count();
                assert!(silent == 0 || tower == Tower::Connector, "{found:?}");
            }
        }
    }
}

/// One layer's gradient at a time gives the very bits of all at once, and the model is as it was, masks included.
#[test]
fn the_window_moves_memory_only() {
    let mut model = vicuna();
    let keep = model.linears()[1].1.weight().gt(0.0);
    model.linears_mut()[1].1.set_mask(Some(keep)).expect("fits");
    let before: Vec<*mut std::ffi::c_void> = model.linears().iter().map(|(_, l)| l.weight().data_ptr()).collect();
    for tower in Tower::ALL {
        let found = |window| {
            let measurement = Measurement::Gradient { score: ScoreRule::Obd };
            let request = MeasureRequest { tower, measurement, window, seed: 0 };
            measure(&model, &request, &samples()[..2], &mut |_| {}).expect("measures")
        };
        assert_eq!(found(0), found(u64::MAX));
    }
    assert!(model.linears()[1].1.mask().is_some());
    assert_eq!(before, model.linears().iter().map(|(_, l)| l.weight().data_ptr()).collect::<Vec<_>>());
    assert!(model.linears().iter().all(|(_, l)| !l.weight().requires_grad() && !l.weight().grad().defined()));
}

/// A slope along standard normal noise is normal with the gradient's norm as its deviation: its mean size is that norm times `sqrt(2 / pi)`.
#[test]
fn zeroth_order_slopes_estimate_the_gradient_norm() {
    let model = t5();
    let samples = &samples()[..1];
    let before: Vec<Tensor> = model.linears().iter().map(|(_, l)| l.weight().copy()).collect();
    let measurement = Measurement::Perturbation { score: ScoreRule::Gradient, epsilon: 1e-2, noise: 12 };
    let found = measured(&model, Tower::Language, measurement, samples);
    assert!(model.linears().iter().zip(&before).all(|((_, l), before)| l.weight().equal(before)));
    let gradients = gradients(&model, Tower::Language, &samples[0]);
    let mut ratios: Vec<f64> = found
        .iter()
        .map(|(name, slope)| slope / (total(&gradients[name].1.square()) * std::f64::consts::FRAC_2_PI).sqrt())
        .collect();
    ratios.sort_by(f64::total_cmp);
    // A mean of 12 sizes of a normal number deviates by 22 %, the median of all layers by much less.
    let median = ratios[ratios.len() / 2];
    assert!((0.85..1.15).contains(&median), "{ratios:?}");
    assert!(ratios.iter().all(|ratio| (0.2..2.2).contains(ratio)), "{ratios:?}");
}

/// Weights far above the others' mean are counted, in the group whose mean they are compared with.
#[test]
fn planted_outliers_are_found_and_their_block_keeps_more() {
    let mut model = vicuna();
    let blocks = model.blocks(Tower::Language);
    for (id, linear) in model.linears_mut().into_iter().filter(|(id, _)| id.tower == Tower::Language) {
        // Weights of one size: nothing stands out but what the inputs bring.
        let weight = linear.weight().sign() * 0.05;
        if id.block == 1 && id.role == "o_proj" {
            let _ = weight.narrow(0, 0, 2).fill_(20.0);
        }
        linear.set_weight(weight).expect("fits");
    }
    let samples = samples();
    let m = 5.0;
    let outliers = |group| measured(&model, Tower::Language, Measurement::Outliers { group, m }, &samples);
    // By hand for the matrix that holds them.
    let look = Look { needs: Needs::NORMS, tokens: TokenConfig::default() };
    let mut statistics = Vec::new();
    let mut each = |_, of_block| {
        statistics.push(of_block);
        Ok(())
    };
    collect(&model, Tower::Language, look, &samples, &mut each).expect("runs");
    let statistics = &statistics[1];
    let (id, linear) =
        model.linears().into_iter().find(|(id, _)| id.block == 1 && id.role == "o_proj").expect("a layer");
    let metric = Wanda.importance(&id.name, linear.weight(), statistics.get(&id.name)).to_kind(Kind::Double);
    let mean = total(&metric) / metric.numel() as f64;
    let by_hand = Vec::<f64>::try_from(metric.reshape([-1])).expect("f64").iter().filter(|x| **x > m * mean).count();
    assert!(by_hand >= 10 && outliers(AllocationGroup::Layer)[&id.name] == by_hand as f64);

    let found = outliers(AllocationGroup::Block);
    let rule = AllocationConfig { method: AllocationMethod::Owl, lambda: 0.1, ..AllocationConfig::default() };
    let budget = BudgetConfig { rule, towers: BTreeMap::from([(Tower::Language, 0.6)]), projection: false };
    let places = places(&model, [Tower::Language]);
    let counts = allocate(&places, &budget, &found).expect("divides");
    let sparsity = |block: usize| {
        let layers = || places.iter().filter(|p| p.id.block == block);
        layers().map(|p| counts[&p.id.name]).sum::<u64>() as f64 / layers().map(|p| p.elements).sum::<u64>() as f64
    };
    assert!((0..blocks).all(|block| block == 1 || sparsity(block) > sparsity(1) + 0.05));
    // All blocks are equal in size, so the extremes are two lambdas apart, as published.
    let most = (0..blocks).map(sparsity).fold(0.0, f64::max);
    assert!((most - sparsity(1) - 0.2).abs() < 1e-3, "{most} {}", sparsity(1));
}

fn removed(counts: &Counts, model: &dyn VisionLanguage, tower: Tower) -> i64 {
    let layers = model.linears().into_iter().filter(|(id, _)| id.tower == tower);
    layers.map(|(id, _)| counts.get(&id.name).copied().unwrap_or(0) as i64).sum()
}

fn weights(model: &dyn VisionLanguage, tower: Tower) -> i64 {
    model.linears().into_iter().filter(|(id, _)| id.tower == tower).map(|(_, l)| l.weight().numel() as i64).sum()
}

/// Whatever divides it, a budget is met to one weight, in each tower or in both together.
#[test]
fn every_division_meets_its_budget() {
    for model in [t5(), vicuna()] {
        let towers = [(Tower::Vision, 0.513), (Tower::Language, 0.647)];
        let places = places(&model, towers.map(|(tower, _)| tower));
        let mut prune = PruneConfig::default();
        (prune.vision.sparsity, prune.language.sparsity) = (0.513, 0.647);
        let measure_all = |rule: &AllocationConfig| -> Sensitivities {
            let of = |tower: Tower| {
                let measurement = rule.measurement(&prune, tower)?;
                Some(measured(&model, tower, measurement, &samples()[..2]))
            };
            towers.iter().filter_map(|(tower, _)| of(*tower)).flatten().collect()
        };
        for group in [AllocationGroup::Layer, AllocationGroup::Block, AllocationGroup::Tower] {
            for method in [
                AllocationMethod::Uniform,
                AllocationMethod::Owl,
                AllocationMethod::Ecoflap,
                AllocationMethod::Tamp,
                AllocationMethod::Losa,
                AllocationMethod::Evopress,
            ] {
                for aggregate in [Aggregate::Sum, Aggregate::Average] {
                    let search = SearchConfig { generations: 2, offspring: 3, levels: 2 };
                    let rule = AllocationConfig {
                        method,
                        group,
                        aggregate,
                        cap: 0.9,
                        m: 1.5,
                        search,
                        ..AllocationConfig::default()
                    };
                    let found = measure_all(&rule);
                    let joint = BudgetConfig { rule: rule.clone(), towers: BTreeMap::from(towers), projection: false };
                    let counts = allocate(&places, &joint, &found).expect("divides");
                    let asked = |(tower, sparsity)| pruned_count(weights(&model, tower), sparsity);
                    let goal: i64 = towers.into_iter().map(asked).sum();
                    assert_eq!(counts.values().sum::<u64>() as i64, goal, "{method:?} {group:?}");
                    for (tower, sparsity) in towers {
                        let own: Vec<_> = places.iter().filter(|place| place.id.tower == tower).cloned().collect();
                        let each = BudgetConfig {
                            rule: rule.clone(),
                            towers: BTreeMap::from([(tower, sparsity)]),
                            projection: false,
                        };
                        let counts = allocate(&own, &each, &found).expect("divides");
                        assert_eq!(removed(&counts, &model, tower), asked((tower, sparsity)));
                        assert!(own.iter().all(|p| counts[&p.id.name] as f64 <= 0.9 * p.elements as f64 + 1.0));
                    }
                }
            }
        }
    }
}

/// The shares of layers are what masks remove and certificates say, also where rows do not divide them.
#[test]
fn towers_are_pruned_to_their_shares() {
    for mut model in [t5(), vicuna()] {
        for group in [Group::Row, Group::Matrix] {
            let rule = AllocationConfig { method: AllocationMethod::Ecoflap, ..AllocationConfig::default() };
            let measurement = rule.measurement(&PruneConfig::default(), Tower::Vision).expect("measures");
            let found = measured(&model, Tower::Vision, measurement, &samples()[..2]);
            let budget = BudgetConfig { rule, towers: BTreeMap::from([(Tower::Vision, 0.537)]), projection: false };
            let counts = allocate(&places(&model, [Tower::Vision]), &budget, &found).expect("divides");
            let request = PruneRequest {
                method: MethodConfig::default(),
                tokens: TokenConfig::default(),
                tower: Tower::Vision,
                metric: Metric::Wanda,
                pattern: Pattern::Unstructured,
                sparsity: Some(0.537),
                group: Some(group),
                propagate: Propagate::Pruned,
                seed: 0,
            };
            let pruned = prune_tower_divided(&mut model, &request, &counts, &samples(), &mut |_| {}).expect("prunes");
            assert!(pruned.certificate.holds(), "{:?}", pruned.certificate.violations);
            for (name, count) in &counts {
                assert_eq!(pruned.certificate.tensors[name].zeros, *count);
            }
            let wanted = pruned_count(weights(&model, Tower::Vision), 0.537) as u64;
            assert_eq!(pruned.certificate.tower(Tower::Vision).0, wanted);

            let mut other = counts.clone();
            *other.values_mut().next().expect("a layer") += 1;
            let found =
                certify_tower_divided(&model, &request, &other, &pruned.masks, &MaskSet::new()).expect("counts");
            assert_eq!(found.violations.len(), 1);
            other.pop_first();
            let failed = certify_tower_divided(&model, &request, &other, &pruned.masks, &MaskSet::new())
                .unwrap_err()
                .to_string();
            assert!(failed.contains("divided without"), "{failed}");
            let two_of_four = PruneRequest { pattern: Pattern::NOfM { keep: 2, of: 4 }, sparsity: None, ..request };
            let failed = prune_tower_divided(&mut model, &two_of_four, &counts, &samples(), &mut |_| {}).unwrap_err();
            assert!(failed.to_string().contains("`2:4`"), "{failed}");
        }
    }
}

/// Blocks are compared as a whole, outputs of every layer by themselves, and a search keeps the budget.
#[test]
fn tamp_losa_and_evopress_say_what_they_promise() {
    let mut prune = PruneConfig { metric: Metric::SparseGpt, ..PruneConfig::default() };
    (prune.vision.sparsity, prune.language.sparsity) = (0.5, 0.6);
    for model in [t5(), vicuna()] {
        for tower in [Tower::Vision, Tower::Language] {
            let places = places(&model, [tower]);
            let of = |method| {
                let search = SearchConfig { generations: 4, offspring: 4, levels: 4 };
                let rule = AllocationConfig { method, search, cap: 0.8, ..AllocationConfig::default() };
                measured(&model, tower, rule.measurement(&prune, tower).expect("measures"), &samples()[..3])
            };
            let densities = of(AllocationMethod::Tamp);
            assert!(places.iter().all(|place| (0.0..6.0).contains(&densities[&place.id.name])), "{densities:?}");
            let similarities = of(AllocationMethod::Losa);
            for place in &places {
                let first = places.iter().find(|other| other.id.block == place.id.block).expect("itself");
                assert_eq!(similarities[&place.id.name], similarities[&first.id.name]);
                assert!((0.3..=1.0).contains(&similarities[&place.id.name]));
            }
            let before: Vec<Tensor> = model.linears().iter().map(|(_, linear)| linear.weight().copy()).collect();
            let shares = of(AllocationMethod::Evopress);
            assert!(model.linears().iter().zip(&before).all(|((_, linear), before)| linear.weight().equal(before)));
            let sum = |share: &dyn Fn(&str) -> f64| -> f64 {
                places.iter().map(|place| place.elements as f64 * share(&place.id.name)).sum()
            };
            let (kept, all) = (sum(&|name| shares[name]), sum(&|_| 1.0));
            assert!((kept / all - prune.tower(tower).sparsity).abs() < 1e-9, "{shares:?}");
            assert!(shares.values().all(|share| (0.0..=0.8 + 1e-9).contains(share)), "{shares:?}");
        }
    }
}

#[test]
fn what_was_not_measured_or_cannot_be_is_said() {
    let mut model = t5();
    let places = places(&model, [Tower::Vision]);
    let rule = AllocationConfig { method: AllocationMethod::Ecoflap, ..AllocationConfig::default() };
    let budget = BudgetConfig { rule, towers: BTreeMap::from([(Tower::Vision, 0.5)]), projection: false };
    let message = allocate(&places, &budget, &Sensitivities::new()).unwrap_err().to_string();
    assert!(message.contains(&places[0].id.name), "{message}");
    let gradient = Measurement::Gradient { score: ScoreRule::Aobd };
    let request = MeasureRequest { tower: Tower::Vision, measurement: gradient, window: WINDOW, seed: 0 };
    let message = measure(&model, &request, &[], &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("samples"), "{message}");
    let broken = model.linears()[0].1.weight() * f64::NAN;
    model.linears_mut()[0].1.set_weight(broken).expect("fits");
    for order in [ScoreOrder::First, ScoreOrder::Zeroth] {
        let rule = AllocationConfig { order, ..budget.rule.clone() };
        let measurement = rule.measurement(&PruneConfig::default(), Tower::Vision).expect("measures");
        let failed = measure(&model, &MeasureRequest { measurement, ..request }, &samples()[..1], &mut |_| {});
        assert!(failed.unwrap_err().to_string().contains("not finite"));
    }
}

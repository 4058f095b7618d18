//! Refinements of pruned layers: closed forms, all masks of small rows, and what must hold for every layer.

use proptest::prelude::*;
use ressa_experiment::{Pattern, config::Group};
use ressa_prune::{
    PruneError,
    metric::{Random, Wanda},
    refine::{LeastSquares, PrunedLayer, Refined, Refinement, SparseSwaps},
    select::Selection,
    solver::{LayerProblem, LayerSolution, LayerSolver, Ranked, SparseGpt},
    statistics::ColumnStatistics,
};
use tch::{Kind, Tensor};

use crate::solvers::{ALL, collect, finite, floats, inputs, noise};

const TWO_OF_FOUR: Pattern = Pattern::NOfM { keep: 2, of: 4 };

fn refinements() -> Vec<(&'static str, Box<dyn Refinement>)> {
    vec![
        ("swaps", Box::new(SparseSwaps::default())),
        ("few swaps", Box::new(SparseSwaps { max_swaps: 2, candidates: 3 })),
        ("least squares", Box::new(LeastSquares::default())),
    ]
}

/// What every refinement makes of a pruned layer.
pub fn refine_all(dense: &Tensor, found: &LayerSolution, pattern: Pattern, seen: &ColumnStatistics) -> Vec<Refined> {
    let layer =
        PrunedLayer { name: "layer", dense, weight: found.weight.as_ref(), keep: &found.keep, pattern, gone: None };
    refinements().iter().map(|(_, refinement)| refine(refinement.as_ref(), layer, seen)).collect()
}

fn refine(refinement: &dyn Refinement, layer: PrunedLayer<'_>, seen: &ColumnStatistics) -> Refined {
    refinement.refine(&[layer], Some(seen)).expect("refines").remove(0)
}

fn prune(solver: &dyn LayerSolver, weight: &Tensor, seen: &ColumnStatistics, selection: Selection) -> LayerSolution {
    let problem = LayerProblem { name: "layer", weight, selection, gone: None };
    solver.solve(&[problem], Some(seen)).expect("solves").remove(0)
}

fn selection(pattern: Pattern, group: Group) -> Selection {
    match pattern {
        Pattern::NOfM { keep, of } => Selection::NOfM { keep: i64::from(keep), of: i64::from(of) },
        Pattern::Unstructured => Selection::Unstructured { sparsity: 0.5, group },
    }
}

/// `|x (dense - pruned)|^2` of each row, in f64.
fn errors(x: &Tensor, dense: &Tensor, pruned: &Tensor) -> Vec<f64> {
    let rows = x.reshape([-1, dense.size()[1]]).to_kind(Kind::Double);
    let lost = rows.matmul(&(dense - pruned).to_kind(Kind::Double).transpose(0, 1));
    Vec::try_from(lost.square().sum_dim_intlist([0i64].as_slice(), false, Kind::Double)).expect("f64")
}

fn effective(dense: &Tensor, keep: &Tensor, weight: Option<&Tensor>) -> Tensor {
    weight.map_or_else(|| dense * keep, |weight| weight * keep)
}

fn counts(keep: &Tensor, of: i64) -> Vec<i64> {
    let kept = keep.reshape([-1, of]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
    Vec::try_from(kept).expect("counts")
}

/// `X^T X = [[13, 15], [15, 25]]`: without the first of two equal weights 13 of 68 are lost, without the second 25.
fn by_hand() -> (Tensor, ColumnStatistics) {
    let seen = collect(&Tensor::from_slice(&[2.0f32, 0.0, 3.0, 5.0]).view([2, 1, 2]), ALL);
    (Tensor::from_slice(&[1.0f32, 1.0]).view([1, 2]), seen)
}

#[test]
fn swaps_by_hand() {
    let (dense, seen) = by_hand();
    let keep = Tensor::from_slice(&[true, false]).view([1, 2]);
    for pattern in [Pattern::Unstructured, Pattern::NOfM { keep: 1, of: 2 }] {
        let layer = PrunedLayer { name: "layer", dense: &dense, weight: None, keep: &keep, pattern, gone: None };
        let found = refine(&SparseSwaps::default(), layer, &seen);
        assert_eq!(Vec::<bool>::try_from(found.keep.view([-1])).expect("bool"), [false, true]);
        assert!(found.weight.is_none());
        assert!((found.error.before - 25.0 / 68.0).abs() < 1e-6 && (found.error.after - 13.0 / 68.0).abs() < 1e-6);
        // With the kept weight at 1.6 only 4 are lost by keeping the first, so nothing is swapped.
        let weight = Tensor::from_slice(&[1.0f32 + 15.0 / 13.0, 7.0]).view([1, 2]);
        let found = refine(&SparseSwaps::default(), PrunedLayer { weight: Some(&weight), ..layer }, &seen);
        assert!(found.keep.equal(&keep) && found.error.before == found.error.after);
        assert_eq!(floats(&found.weight.expect("weights are not the dense ones"))[1], 0.0);
    }
}

/// Without the first weight the second makes up for it by 15 / 25.
#[test]
fn least_squares_by_hand() {
    let (dense, seen) = by_hand();
    let keep = Tensor::from_slice(&[false, true]).view([1, 2]);
    let layer = PrunedLayer {
        name: "layer",
        dense: &dense,
        weight: None,
        keep: &keep,
        pattern: Pattern::Unstructured,
        gone: None,
    };
    let found = refine(&LeastSquares { damping_ratio: 0.0, ..LeastSquares::default() }, layer, &seen);
    let weight = floats(&found.weight.expect("weights"));
    assert!(weight[0] == 0.0 && (weight[1] - 1.6).abs() < 1e-5, "{weight:?}");
    assert!((found.error.after - 4.0 / 68.0).abs() < 1e-6, "{:?}", found.error);
}

/// `v_S = (G_SS)^-1 (G w)_S` by elimination.
#[test]
fn enough_steps_solve_the_normal_equations() {
    let (dense, x) = (noise(&[6, 24], 1.713), inputs(3, 40, 24));
    let seen = collect(&x, ALL);
    let gram = seen.hessian().expect("gram").to_kind(Kind::Double);
    let found = prune(&Ranked(Box::new(Wanda)), &dense, &seen, selection(Pattern::Unstructured, Group::Row));
    let layer = PrunedLayer {
        name: "layer",
        dense: &dense,
        weight: None,
        keep: &found.keep,
        pattern: Pattern::Unstructured,
        gone: None,
    };
    let exact = LeastSquares { steps: 60, tolerance: 1e-9, damping_ratio: 0.0 };
    let weight = refine(&exact, layer, &seen).weight.expect("weights");
    for row in 0..6 {
        let kept = found.keep.get(row).nonzero().squeeze_dim(1);
        let rows = gram.index_select(0, &kept);
        let target = rows.matmul(&dense.get(row).to_kind(Kind::Double).unsqueeze(1));
        let solved = Tensor::linalg_solve(&rows.index_select(1, &kept), &target, true).squeeze_dim(1);
        let apart = (weight.get(row).index_select(0, &kept) - solved).abs().max().double_value(&[]);
        assert!(apart < 1e-4, "row {row}: {apart}");
    }
}

/// Every mask of a row of eight: no swap of two weights is better than what was found, and no mask is better than the best.
#[test]
fn swaps_end_where_no_swap_helps() {
    let (dense, x) = (noise(&[40, 8], 1.713), inputs(2, 30, 8));
    let seen = collect(&x, ALL);
    let mut optimal = 0;
    for pattern in [Pattern::Unstructured, TWO_OF_FOUR] {
        let of = if pattern == TWO_OF_FOUR { 4 } else { 8 };
        let start = prune(&Ranked(Box::new(Random { seed: 1 })), &dense, &seen, selection(pattern, Group::Row));
        let layer = PrunedLayer { name: "layer", dense: &dense, weight: None, keep: &start.keep, pattern, gone: None };
        let found = refine(&SparseSwaps::default(), layer, &seen);
        let reached = errors(&x, &dense, &(&dense * &found.keep));
        let kept: Vec<u32> = (0..40)
            .map(|row| {
                let bits = Vec::<bool>::try_from(found.keep.get(row)).expect("bool");
                bits.iter().enumerate().map(|(at, &kept)| u32::from(kept) << at).sum()
            })
            .collect();
        let mut best = vec![f64::INFINITY; 40];
        for mask in 0u32..256 {
            let within = |from: u32, size: u32| (mask >> from & ((1 << size) - 1)).count_ones() == size / 2;
            if !(0..8).step_by(of).all(|from| within(from, of as u32)) {
                continue;
            }
            let keep: Vec<f32> = (0..8).map(|at| (mask >> at & 1) as f32).collect();
            let here = errors(&x, &dense, &(&dense * Tensor::from_slice(&keep)));
            for row in 0..40 {
                best[row] = best[row].min(here[row]);
                let swap = (mask ^ kept[row]).count_ones() == 2;
                assert!(!swap || here[row] >= reached[row] * (1.0 - 1e-4), "{pattern}, row {row}: {mask:08b}");
            }
        }
        optimal += (0..40).filter(|&row| reached[row] <= best[row] * (1.0 + 1e-4)).count();
        assert!((0..40).all(|row| reached[row] >= best[row] * (1.0 - 1e-4)), "{pattern}");
    }
    assert!(optimal >= 50, "the best mask was found for {optimal} of 80 rows");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// From random masks and from SparseGPT's masks and weights.
    #[test]
    fn no_row_loses_more_than_before(
        salt in 0.0f64..100.0, rows in 1i64..9, groups in 1i64..9, tokens in 3i64..40, two_of_four: bool, matrix: bool, corrected: bool,
    ) {
        let (dense, x) = (noise(&[rows, groups * 8], salt), inputs(2, tokens, groups * 8));
        let seen = collect(&x, ALL);
        let pattern = if two_of_four { TWO_OF_FOUR } else { Pattern::Unstructured };
        let solver: Box<dyn LayerSolver> =
            if corrected { Box::new(SparseGpt::default()) } else { Box::new(Ranked(Box::new(Random { seed: 1 }))) };
        let asked = selection(pattern, if matrix { Group::Matrix } else { Group::Row });
        let start = prune(solver.as_ref(), &dense, &seen, asked);
        let before = errors(&x, &dense, &effective(&dense, &start.keep, start.weight.as_ref()));
        let of = if two_of_four { 4 } else { groups * 8 };
        for found in refine_all(&dense, &start, pattern, &seen) {
            prop_assert_eq!(counts(&found.keep, of), counts(&start.keep, of));
            let weight = effective(&dense, &found.keep, found.weight.as_ref());
            if let Some(weight) = &found.weight {
                prop_assert_eq!(weight.masked_select(&found.keep.logical_not()).abs().sum(Kind::Float).double_value(&[]), 0.0);
            }
            let after = errors(&x, &dense, &weight);
            let energy = errors(&x, &dense, &dense.zeros_like());
            for row in 0..rows as usize {
                prop_assert!(after[row] <= before[row] + 1e-6 * energy[row], "{} {}", before[row], after[row]);
            }
            let total = |errors: &[f64]| errors.iter().sum::<f64>() / energy.iter().sum::<f64>();
            for (said, is) in [(found.error.before, total(&before)), (found.error.after, total(&after))] {
                prop_assert!((said - is).abs() <= 1e-5 + 1e-4 * is, "{said} {is}");
            }
        }
    }
}

/// Each lowers what Wanda's masks lose, and least squares also what swaps left.
#[test]
fn refinements_lower_the_error_of_a_layer() {
    let (dense, x) = (noise(&[30, 152], 1.713), inputs(4, 110, 152));
    let seen = collect(&x, ALL);
    for pattern in [Pattern::Unstructured, TWO_OF_FOUR] {
        let start = prune(&Ranked(Box::new(Wanda)), &dense, &seen, selection(pattern, Group::Row));
        let layer = PrunedLayer { name: "layer", dense: &dense, weight: None, keep: &start.keep, pattern, gone: None };
        let swapped = refine(&SparseSwaps::default(), layer, &seen);
        let solved = refine(&LeastSquares::default(), layer, &seen);
        let both = refine(&LeastSquares::default(), PrunedLayer { keep: &swapped.keep, ..layer }, &seen);
        for Refined { error, .. } in [swapped, solved, both] {
            assert!(error.after < 0.8 * error.before, "{pattern}: {error:?}");
        }
    }
}

#[test]
fn a_dense_layer_stays_as_it_is() {
    let (dense, seen) = (noise(&[9, 40], 1.713), collect(&inputs(2, 30, 40), ALL));
    let keep = dense.ones_like().to_kind(Kind::Bool);
    for weight in [None, Some(&dense)] {
        let layer = PrunedLayer {
            name: "layer",
            dense: &dense,
            weight,
            keep: &keep,
            pattern: Pattern::Unstructured,
            gone: None,
        };
        for (name, refinement) in refinements() {
            let found = refine(refinement.as_ref(), layer, &seen);
            assert!(found.keep.equal(&keep) && found.weight.is_none_or(|weight| weight.equal(&dense)), "{name}");
            assert_eq!((found.error.before, found.error.after), (0.0, 0.0), "{name}");
        }
    }
}

/// A dead input, an input that never varies, a row of zeros, two equal inputs, fewer tokens than inputs; no input at all.
#[test]
fn degenerate_layers_are_refined_all_the_same() {
    let dense = noise(&[12, 48], 1.713);
    let x = inputs(2, 9, 48);
    let _ = x.select(2, 7).fill_(0.0);
    let _ = x.select(2, 8).fill_(1.5);
    x.select(2, 20).copy_(&x.select(2, 21));
    let _ = dense.get(5).fill_(0.0);
    for x in [x.shallow_clone(), x.zeros_like()] {
        let seen = collect(&x, ALL);
        for pattern in [Pattern::Unstructured, TWO_OF_FOUR] {
            let solver = Ranked(Box::new(Random { seed: 1 }));
            let start = prune(&solver, &dense, &seen, selection(pattern, Group::Row));
            for found in refine_all(&dense, &start, pattern, &seen) {
                let weight = effective(&dense, &found.keep, found.weight.as_ref());
                assert!(finite(&weight) && found.error.before.is_finite() && found.error.after <= found.error.before);
                assert_eq!(weight.get(5).abs().max().double_value(&[]), 0.0);
                assert!(found.error.before > 0.0 || found.keep.equal(&start.keep), "nothing to gain, nothing changed");
            }
        }
    }
}

/// The deltas of half-precision weights are formed in f32, results are in the weights' type.
#[test]
fn half_precision_stays_half_precision() {
    let (dense, seen) = (noise(&[8, 32], 1.713).to_kind(Kind::BFloat16), collect(&inputs(2, 40, 32), ALL));
    let start = prune(&Ranked(Box::new(Wanda)), &dense, &seen, selection(TWO_OF_FOUR, Group::Row));
    for (found, (name, _)) in refine_all(&dense, &start, TWO_OF_FOUR, &seen).iter().zip(refinements()) {
        assert!(found.weight.as_ref().is_none_or(|weight| weight.kind() == Kind::BFloat16), "{name}");
        assert!(found.error.after < found.error.before, "{name}");
    }
}

#[test]
fn what_cannot_be_refined_is_said() {
    let (dense, x) = (noise(&[4, 16], 1.713), inputs(2, 9, 16));
    let keep = dense.ones_like().to_kind(Kind::Bool);
    let seen = collect(&x, ALL);
    let sick = x.copy();
    let _ = sick.get(1).get(8).get(3).fill_(f64::NAN);
    let sick = collect(&sick, ALL);
    let broken = dense.copy();
    let _ = broken.get(2).get(1).fill_(f64::INFINITY);
    let layer = PrunedLayer {
        name: "fc1",
        dense: &dense,
        weight: None,
        keep: &keep,
        pattern: Pattern::Unstructured,
        gone: None,
    };
    for (name, refinement) in refinements() {
        let refuse = |layer: PrunedLayer<'_>, seen: Option<&ColumnStatistics>| {
            refinement.refine(&[layer], seen).expect_err("refused")
        };
        assert!(matches!(refuse(layer, None), PruneError::NoStatistics { .. }), "{name}");
        assert!(matches!(refuse(layer, Some(&sick)), PruneError::NotFiniteInput { .. }), "{name}");
        let other = noise(&[4, 8], 1.0);
        let error = refuse(PrunedLayer { dense: &other, ..layer }, Some(&seen));
        assert!(matches!(error, PruneError::StatisticsWidth { .. }), "{name}: {error}");
        for layer in [PrunedLayer { dense: &broken, ..layer }, PrunedLayer { weight: Some(&broken), ..layer }] {
            let error = refuse(layer, Some(&seen));
            assert!(matches!(error, PruneError::NotFiniteWeight { .. }), "{name}: {error}");
        }
        let error = refuse(PrunedLayer { pattern: Pattern::NOfM { keep: 2, of: 5 }, ..layer }, Some(&seen));
        assert!(matches!(error, PruneError::Width { width: 16, of: 5, .. }), "{name}: {error}");
        let error = refuse(PrunedLayer { weight: Some(&other), ..layer }, Some(&seen));
        let expected = "tensor `fc1 (weight)` has shape [4, 8], the configuration asks for [4, 16]";
        assert_eq!(error.to_string(), expected, "{name}");
        assert!(refinement.refine(&[], None).expect("nothing to do").is_empty(), "{name}");
    }
}

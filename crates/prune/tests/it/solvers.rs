//! Methods on one layer: closed forms, what must always hold, and the inputs that break other implementations.

use ressa_experiment::config::Group;
use ressa_prune::{
    PruneError,
    metric::{Magnitude, PruningMetric, Ria, Wanda},
    select::{Selection, pruned_count},
    solver::{
        Alps, Damping, Dsnot, Initial, LayerProblem, LayerSolution, LayerSolver, Order, Ranked, SignRule, SparseGpt,
        Threshold,
    },
    statistics::{ColumnStatistics, Needs},
};
use tch::{Device, Kind, Tensor};

use crate::refine::refine_all;

pub const ALL: Needs = Needs { norms: true, moments: true, gram: true };

/// Numbers between -1 and 1 without a pattern, other ones for another `salt`.
pub fn noise(size: &[i64], salt: f64) -> Tensor {
    let at = Tensor::arange(size.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    ((at * 12.9898 + salt).sin() * 43758.5453).frac().view(size).to_kind(Kind::Float)
}

/// Samples `[samples, tokens, in]` whose columns depend on each other, with unlike norms and means that are not zero.
pub fn inputs(samples: i64, tokens: i64, columns: i64) -> Tensor {
    let mix = noise(&[columns, columns], 0.7) * (3.0 / (columns as f64).sqrt());
    let mixed = noise(&[samples, tokens, columns], 0.1).matmul(&mix) + noise(&[columns], 0.5) * 0.4;
    mixed * (noise(&[columns], 0.9).abs() + 0.2)
}

pub fn collect(inputs: &Tensor, needs: Needs) -> ColumnStatistics {
    let mut statistics = ColumnStatistics::new(inputs.size()[2], needs, Device::Cpu);
    for sample in 0..inputs.size()[0] {
        statistics.add_sample(&inputs.get(sample));
    }
    statistics
}

fn solvers() -> Vec<(&'static str, Box<dyn LayerSolver>)> {
    vec![
        ("magnitude", Box::new(Ranked(Box::new(Magnitude)))),
        ("wanda", Box::new(Ranked(Box::new(Wanda)))),
        ("ria", Box::new(Ranked(Box::new(Ria::default())))),
        ("sparsegpt", Box::new(SparseGpt::default())),
        ("sparsegpt on failure", Box::new(SparseGpt { damping: Damping::OnFailure, ..SparseGpt::default() })),
        ("sparsegpt by loss", Box::new(SparseGpt { order: Order::Loss, block: 16, ..SparseGpt::default() })),
        // Enough iterations for what is asked here.
        ("alps", Box::new(Alps { iterations: 12, ..Alps::default() })),
        ("dsnot", Box::new(Dsnot::default())),
        (
            "dsnot from sparsegpt",
            Box::new(Dsnot { initial: Initial::Saliency(SparseGpt::default()), ..Dsnot::default() }),
        ),
        ("dsnot same sign", Box::new(Dsnot { sign: SignRule::Always, ..Dsnot::default() })),
    ]
}

fn solve(solver: &dyn LayerSolver, weight: &Tensor, seen: &ColumnStatistics, selection: Selection) -> LayerSolution {
    let problem = LayerProblem { name: "layer", weight, selection, gone: None };
    solver.solve(&[problem], Some(seen)).expect("solves").remove(0)
}

fn half(group: Group) -> Selection {
    Selection::Unstructured { sparsity: 0.5, group }
}

fn pruned(keep: &Tensor) -> i64 {
    keep.logical_not().sum(Kind::Int64).int64_value(&[])
}

fn bits(keep: &Tensor) -> Vec<u8> {
    Vec::try_from(keep.to_kind(Kind::Uint8).reshape([-1])).expect("bits")
}

pub fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.reshape([-1])).expect("f32")
}

pub fn finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) == 1
}

/// Columns with norms 16 and 1 over one sample.
#[test]
fn ria_by_hand() {
    let seen = collect(&Tensor::from_slice(&[16.0f32, 1.0]).view([1, 1, 2]), Needs::NORMS);
    let weight = Tensor::from_slice(&[1.0f32, -3.0, 2.0, 2.0]).view([2, 2]);
    let found = floats(&Ria::default().importance("layer", &weight, Some(&seen)));
    let expected = [(1.0 / 3.0 + 0.25) * 4.0, 0.6 + 0.75, (2.0 / 3.0 + 0.5) * 4.0, 0.4 + 0.5];
    found.iter().zip(expected).for_each(|(f, e)| assert!((f - e).abs() < 1e-5, "{f} {e}"));
}

/// `H = [[13, 15], [15, 25]]`, so `U = [[0.5, -0.3], [0, 0.2]]`: the first of two equal weights costs 4, the second 25, and the optimum without the first
/// moves the second by 15 / 25.
#[test]
fn sparsegpt_by_hand() {
    let seen = collect(&Tensor::from_slice(&[2.0f32, 0.0, 3.0, 5.0]).view([2, 1, 2]), Needs::GRAM);
    assert_eq!(floats(&seen.hessian().expect("collected")), [13.0, 15.0, 15.0, 25.0]);
    let weight = Tensor::from_slice(&[1.0f32, 1.0]).view([1, 2]);
    for damping in [Damping::OnFailure, Damping::Always] {
        let solver = SparseGpt { damping, damping_ratio: 0.0, ..SparseGpt::default() };
        for selection in [half(Group::Row), half(Group::Matrix), Selection::NOfM { keep: 1, of: 2 }] {
            let found = solve(&solver, &weight, &seen, selection);
            assert_eq!(bits(&found.keep), [0, 1]);
            floats(&found.importance.expect("ranked"))
                .iter()
                .zip([4.0, 25.0])
                .for_each(|(f, e)| assert!((f - e).abs() < 1e-4));
            let weights = floats(&found.weight.expect("weights"));
            assert!(weights[0] == 0.0 && (weights[1] - 1.6).abs() < 1e-5, "{weights:?}");
        }
    }
}

/// The matrix of [`sparsegpt_by_hand`]: weights 1 and 0.3 cost 4 and 2.25, so the second goes although its input has the larger norm.
#[test]
fn dsnot_starts_from_sparsegpts_saliency() {
    let seen = collect(&Tensor::from_slice(&[2.0f32, 0.0, 3.0, 5.0]).view([2, 1, 2]), ALL);
    let undamped = SparseGpt { damping: Damping::OnFailure, ..SparseGpt::default() };
    let start = Dsnot { initial: Initial::Saliency(undamped), max_cycles: 0, ..Dsnot::default() };
    let found = solve(&start, &Tensor::from_slice(&[1.0f32, 0.3]).view([1, 2]), &seen, half(Group::Row));
    let importance = floats(&found.importance.expect("ranked"));
    assert!((importance[0] - 4.0).abs() < 1e-4 && (importance[1] - 2.25).abs() < 1e-4, "{importance:?}");
    assert_eq!((bits(&found.keep), found.weight.is_none()), (vec![1, 0], true));
}

/// Every input has sum 1, variance 1/4 and norm 1, so contributions are the weights themselves.
#[test]
fn dsnot_by_hand() {
    let seen = collect(&Tensor::from_slice(&[0.0f32, 1.0]).view([1, 2, 1]).repeat([1, 1, 6]), ALL);
    let weight = Tensor::from_slice(&[0.5f32, -1.0, 2.0, -3.0, 0.6, 4.0]).view([1, 6]);
    let run = |solver: Dsnot, weight: &Tensor, selection| bits(&solve(&solver, weight, &seen, selection).keep);
    let dsnot = || Dsnot { threshold: 0.05, ..Dsnot::default() };
    // Pruned: 0.5, -1, 0.6, error 0.1. In comes 0.6, out goes -3: -3.5. In comes -1, out goes 2: -0.5. Nothing negative is left to come in.
    assert_eq!(run(dsnot(), &weight, half(Group::Row)), [0, 1, 0, 0, 1, 1]);
    assert_eq!(run(Dsnot { max_cycles: 1, ..dsnot() }, &weight, half(Group::Row)), [0, 0, 1, 0, 1, 1]);
    assert_eq!(run(Dsnot { threshold: 0.2, ..dsnot() }, &weight, half(Group::Row)), [0, 0, 1, 1, 0, 1]);
    assert_eq!(run(Dsnot { sign: SignRule::Always, ..dsnot() }, &weight, half(Group::Row)), [0, 0, 1, 1, 0, 1]);
    // In pairs 0.5, 2 and 0.6 are pruned; each comes back in turn and its neighbour goes.
    let weight = Tensor::from_slice(&[0.5f32, 1.0, 2.0, 3.0, 0.6, 4.0]).view([1, 6]);
    let pairs = Selection::NOfM { keep: 1, of: 2 };
    assert_eq!(run(Dsnot { max_cycles: 2, ..dsnot() }, &weight, pairs), [0, 1, 1, 0, 1, 0]);
    assert_eq!(run(dsnot(), &weight, pairs), [1, 0, 1, 0, 1, 0]);
}

/// Large layers are ranked some rows at a time; 1030 columns make parts that end within a layer and leave a short last one.
#[test]
fn ranking_in_parts_is_ranking_at_once() {
    let weight = noise(&[601, 1030], 2.5);
    let seen = collect(&inputs(2, 40, 1030), Needs::NORMS);
    for (name, solver) in &solvers()[..3] {
        for selection in [half(Group::Row), Selection::NOfM { keep: 2, of: 5 }, half(Group::Matrix)] {
            let problem = LayerProblem { name: "layer", weight: &weight, selection, gone: None };
            let importance = solver.importance(&problem, Some(&seen)).expect("finite").expect("ranks at once");
            let found = solve(solver.as_ref(), &weight, &seen, selection);
            assert!(found.keep.equal(&selection.keep(&importance)), "{name} {selection:?}");
        }
    }
    let _ = weight.get(600).get(1029).fill_(f64::INFINITY);
    for (name, solver) in &solvers()[..3] {
        let problem = LayerProblem { name: "layer", weight: &weight, selection: half(Group::Row), gone: None };
        let refused = solver.solve(&[problem], Some(&seen)).expect_err(name);
        assert!(matches!(refused, PruneError::NotFiniteWeight { .. }), "{name}: {refused}");
    }
}

#[test]
fn counts_and_groups_are_exact_and_pruned_weights_are_zero() {
    let weight = noise(&[23, 264], 1.713);
    let seen = collect(&inputs(4, 90, 264), ALL);
    for (name, solver) in solvers() {
        for sparsity in [0.0, 0.37, 0.7, 0.999] {
            for group in [Group::Row, Group::Matrix] {
                let selection = Selection::Unstructured { sparsity, group };
                let found = solve(solver.as_ref(), &weight, &seen, selection);
                assert_eq!(Some(pruned(&found.keep)), selection.pruned_in(23, 264), "{name} {sparsity} {group:?}");
                let rows = found.keep.logical_not().sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
                let even = rows.eq(pruned_count(264, sparsity)).all().int64_value(&[]) == 1;
                assert!(group != Group::Row || even, "{name} {sparsity}");
                let weights = found.weight.unwrap_or_else(|| &weight * &found.keep);
                assert!(finite(&weights) && found.importance.as_ref().is_none_or(finite), "{name} {sparsity}");
                assert_eq!(
                    weights.masked_select(&found.keep.logical_not()).abs().sum(Kind::Float).double_value(&[]),
                    0.0
                );
                assert!(sparsity > 0.0 || weights.equal(&weight), "{name}: sparsity 0 changes nothing");
            }
        }
        for (keep, of) in [(2, 4), (4, 8), (1, 6), (11, 12)] {
            let found = solve(solver.as_ref(), &weight, &seen, Selection::NOfM { keep, of });
            let kept = found.keep.reshape([-1, of]).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
            assert_eq!(kept.eq(keep).all().int64_value(&[]), 1, "{name} {keep}:{of}");
        }
    }
}

#[test]
fn the_published_threshold_takes_more_than_asked() {
    let weight = noise(&[16, 40], 1.713);
    let seen = collect(&inputs(4, 60, 40), Needs::GRAM);
    let published = SparseGpt { threshold: Threshold::Inclusive, ..SparseGpt::default() };
    assert_eq!(pruned(&solve(&published, &weight, &seen, half(Group::Matrix)).keep), 321);
    let none = Selection::Unstructured { sparsity: 0.0, group: Group::Matrix };
    assert_eq!(pruned(&solve(&published, &weight, &seen, none).keep), 1);
}

/// What SparseGPT is for: the same number of weights, a smaller change of the output.
#[test]
fn corrected_weights_stay_closer_to_the_dense_output() {
    let (weight, x) = (noise(&[30, 150], 1.713), inputs(4, 110, 150));
    let seen = collect(&x, ALL);
    let change = |solver: &dyn LayerSolver, selection| {
        let found = solve(solver, &weight, &seen, selection);
        let weights = found.weight.unwrap_or_else(|| &weight * &found.keep);
        x.matmul(&(weights - &weight).transpose(0, 1)).square().sum(Kind::Double).double_value(&[])
    };
    for selection in [half(Group::Row), Selection::NOfM { keep: 2, of: 5 }] {
        let wanda = change(&Ranked(Box::new(Wanda)), selection);
        let sparsegpt = change(&SparseGpt::default(), selection);
        assert!(sparsegpt < 0.8 * wanda, "{sparsegpt} against {wanda}");
        let alps = change(&Alps::default(), selection);
        assert!(alps < 0.8 * sparsegpt, "{alps} against {sparsegpt}");
    }
}

/// A dead input, an input that never varies, a row of zeros, two equal inputs, fewer tokens than inputs.
#[test]
fn degenerate_layers_are_pruned_all_the_same() {
    let weight = noise(&[12, 48], 1.713);
    let x = inputs(2, 9, 48);
    let _ = x.select(2, 7).fill_(0.0);
    let _ = x.select(2, 8).fill_(1.5);
    x.select(2, 20).copy_(&x.select(2, 21));
    let _ = weight.get(5).fill_(0.0);
    let seen = collect(&x, ALL);
    for (name, solver) in solvers() {
        for selection in [half(Group::Row), half(Group::Matrix), Selection::NOfM { keep: 2, of: 4 }] {
            let found = solve(solver.as_ref(), &weight, &seen, selection);
            assert_eq!(pruned(&found.keep), 12 * 48 / 2, "{name}");
            assert!(found.importance.as_ref().is_none_or(finite), "{name}");
            let weights = found.weight.unwrap_or_else(|| &weight * &found.keep);
            assert!(finite(&weights), "{name}");
            assert_eq!(weights.get(5).abs().max().double_value(&[]), 0.0, "{name}");
        }
    }
}

#[test]
fn no_input_at_all_is_no_division_by_zero() {
    let weight = noise(&[4, 16], 1.713);
    let seen = collect(&Tensor::zeros([2, 5, 16], (Kind::Float, Device::Cpu)), ALL);
    for (name, solver) in solvers() {
        let found = solve(solver.as_ref(), &weight, &seen, half(Group::Row));
        assert_eq!(pruned(&found.keep), 32, "{name}");
        assert!(finite(&found.weight.unwrap_or(weight.shallow_clone())), "{name}");
    }
}

#[test]
fn what_cannot_be_solved_is_said() {
    let weight = noise(&[4, 16], 1.713);
    let x = inputs(2, 9, 16);
    let refuse = |solver: &dyn LayerSolver, weight: &Tensor, seen: Option<&ColumnStatistics>, selection| {
        let problem = LayerProblem { name: "fc1", weight, selection, gone: None };
        solver.solve(&[problem], seen).expect_err("refused")
    };
    let seen = collect(&x, ALL);
    let sick = x.copy();
    let _ = sick.get(1).get(8).get(3).fill_(f64::NAN);
    let sick = collect(&sick, ALL);
    let broken = weight.copy();
    let _ = broken.get(2).get(1).fill_(f64::INFINITY);
    for (name, solver) in solvers() {
        let solver = solver.as_ref();
        if !solver.needs().is_empty() {
            let error = refuse(solver, &weight, Some(&sick), half(Group::Row));
            assert!(matches!(error, PruneError::NotFiniteInput { .. }), "{name}: {error}");
            let error = refuse(solver, &weight, None, half(Group::Row));
            assert!(matches!(error, PruneError::NoStatistics { .. }), "{name}: {error}");
            let error = refuse(solver, &noise(&[4, 8], 1.0), Some(&seen), half(Group::Row));
            assert_eq!(error.to_string(), "`fc1` reads 8 inputs, its statistics are of 16: collect them on this layer");
        }
        let error = refuse(solver, &broken, Some(&seen), half(Group::Row));
        assert!(matches!(error, PruneError::NotFiniteWeight { .. }), "{name}: {error}");
        let error = refuse(solver, &weight, Some(&seen), Selection::NOfM { keep: 2, of: 5 });
        assert!(matches!(error, PruneError::Width { width: 16, of: 5, .. }), "{name}: {error}");
    }
    let norms = collect(&x, Needs::NORMS);
    let error = refuse(&SparseGpt::default(), &weight, Some(&norms), half(Group::Row));
    assert!(matches!(error, PruneError::NoStatistics { .. }), "{error}");
}

/// Masks and weights bit for bit, on any number of threads and however the tokens of the samples arrive.
///
/// That is promised of workers, whose MKL is told not to divide products by the number of threads. MKL reads this once, when it starts, and
/// the caller of the tests may have told it something else: hence a process with a worker's environment.
#[test]
fn threads_and_batches_change_nothing() {
    const SETTING: (&str, &str) = ("MKL_CBWR", "AUTO,STRICT");
    if std::env::var(SETTING.0).as_deref() != Ok(SETTING.1) {
        let this = std::env::current_exe().expect("the test program has a path");
        let name = "solvers::threads_and_batches_change_nothing";
        let mut worker = std::process::Command::new(this);
        let ended = worker.args(["--exact", name]).env(SETTING.0, SETTING.1).output().expect("it starts");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
        return;
    }
    let (weight, x) = (noise(&[260, 640], 1.713), inputs(5, 300, 640));
    let before = tch::get_num_threads();
    let mut first: Option<Vec<Tensor>> = None;
    for threads in [1, 2, 3, 5] {
        tch::set_num_threads(threads);
        let whole = collect(&x, ALL);
        let mut pieces = ColumnStatistics::new(640, Needs::GRAM, Device::Cpu);
        for piece in x.view([-1, 640]).split(7 * i64::from(threads), 0) {
            ressa_models::Observer::observe(&mut pieces, &piece);
        }
        (0..5).for_each(|_| pieces.end_sample());
        let mut found = vec![whole.hessian().expect("gram"), pieces.hessian().expect("gram")];
        for (name, solver) in solvers() {
            for selection in [half(Group::Row), half(Group::Matrix), Selection::NOfM { keep: 2, of: 4 }] {
                let solution = solve(solver.as_ref(), &weight, &whole, selection);
                if ["wanda", "sparsegpt"].contains(&name) {
                    for refined in refine_all(&weight, &solution, selection.pattern(), &whole) {
                        found.push(refined.keep);
                        found.extend(refined.weight);
                    }
                }
                found.push(solution.keep);
                found.extend(solution.weight);
            }
        }
        assert!(found[0].equal(&found[1]));
        match &first {
            None => first = Some(found),
            Some(first) => {
                let differ = first.iter().zip(&found).position(|(a, b)| !a.equal(b));
                assert_eq!(differ, None, "{threads} threads");
            }
        }
    }
    tch::set_num_threads(before);
}

/// Layers that share an input, each with its own request, come out as each by itself.
#[test]
fn layers_solved_together_are_solved_alike() {
    let seen = collect(&inputs(4, 80, 136), ALL);
    let weights = [noise(&[40, 136], 1.713), noise(&[24, 136], 0.913)];
    let selections = [half(Group::Matrix), Selection::NOfM { keep: 1, of: 4 }];
    for (name, solver) in solvers() {
        let problem =
            |at: usize| LayerProblem { name: "layer", weight: &weights[at], selection: selections[at], gone: None };
        let together = solver.solve(&[problem(0), problem(1)], Some(&seen)).expect("solves");
        for (at, found) in together.iter().enumerate() {
            let alone = solver.solve(&[problem(at)], Some(&seen)).expect("solves").remove(0);
            assert!(alone.keep.equal(&found.keep), "{name}");
            if let (Some(alone), Some(found)) = (&alone.weight, &found.weight) {
                assert!((alone - found).abs().max().double_value(&[]) < 1e-5, "{name}");
            }
        }
    }
}

#[test]
fn statistics_survive_storage() {
    let x = inputs(3, 20, 12);
    let seen = collect(&x, ALL);
    let stored = ColumnStatistics::from_tensors(seen.to_tensors(), Device::Cpu).expect("reads");
    assert_eq!((stored.collects(), stored.samples(), stored.tokens()), (ALL, 3, 60));
    let all = |s: &ColumnStatistics| [s.norm(), s.sum(), s.variance(), s.hessian()].map(|t| t.expect("collected"));
    assert!(all(&seen).iter().zip(&all(&stored)).all(|(a, b)| a.equal(b)));
    let norms = || collect(&x, Needs::NORMS).to_tensors();
    assert_eq!(ColumnStatistics::from_tensors(norms(), Device::Cpu).expect("reads").collects(), Needs::NORMS);
    let mut part = norms();
    part.insert("sum".to_owned(), Tensor::zeros([12], (Kind::Double, Device::Cpu)));
    let error = ColumnStatistics::from_tensors(part, Device::Cpu).expect_err("half of the moments");
    assert_eq!(
        error.to_string(),
        "stored calibration statistics: one of `sum` and `scatter` is missing; delete them and calibrate again"
    );
}

/// A token that counts twice is one that is seen twice; one that counts nothing is not there.
#[test]
fn weighted_tokens_are_repeated_tokens() {
    let rows = inputs(1, 6, 12).view([6, 12]);
    let weights = [1.0f32, 2.0, 0.0, 3.0, 1.0, 0.0];
    let mut weighted = ColumnStatistics::new(12, ALL, Device::Cpu);
    weighted.observe_weighted(&rows, &Tensor::from_slice(&weights));
    weighted.end_sample();
    let seen: Vec<i64> = weights.iter().enumerate().flat_map(|(at, &w)| vec![at as i64; w as usize]).collect();
    let mut repeated = ColumnStatistics::new(12, ALL, Device::Cpu);
    repeated.add_sample(&rows.index_select(0, &Tensor::from_slice(&seen)));
    let all = |s: &ColumnStatistics| [s.norm(), s.sum(), s.variance(), s.hessian()].map(|t| t.expect("collected"));
    for (found, expected) in all(&weighted).iter().zip(&all(&repeated)) {
        assert!(found.allclose(expected, 1e-5, 1e-6, false), "{found:?}");
    }
    let stored = ColumnStatistics::from_tensors(weighted.to_tensors(), Device::Cpu).expect("reads");
    assert!(all(&weighted).iter().zip(&all(&stored)).all(|(a, b)| a.equal(b)));

    let mut chosen = ColumnStatistics::new(12, ALL, Device::Cpu);
    chosen.observe_weighted(&rows, &Tensor::from_slice(&weights.map(|w| w.min(1.0))));
    chosen.end_sample();
    let mut alone = ColumnStatistics::new(12, ALL, Device::Cpu);
    alone.add_sample(&rows.index_select(0, &Tensor::from_slice(&[0i64, 1, 3, 4])));
    assert!(all(&chosen).iter().zip(&all(&alone)).all(|(a, b)| a.equal(b)), "what is left out leaves no trace");
}

/// Samples that run together are summed as if each ran alone, in their order; a Gram matrix takes the tokens of neighbours.
#[test]
fn samples_together_are_samples_alone() {
    let cpu = (Kind::Float, Device::Cpu);
    let inputs = (Tensor::arange(5 * 9 * 16, cpu) * 0.731).sin().view([5, 9, 16]);
    let needs = Needs::NORMS | Needs::MOMENTS | Needs::GRAM;
    let mut alone = ColumnStatistics::new(16, needs, Device::Cpu);
    (0..5).for_each(|sample| alone.add_sample(&inputs.get(sample)));
    let mut together = ColumnStatistics::new(16, needs, Device::Cpu);
    for (from, count) in [(0, 2), (2, 3)] {
        let numbers: Vec<usize> = (from..from + count).map(|at| at as usize).collect();
        together.observe_rows(&inputs.narrow(0, from, count), &numbers);
        together.end_samples(count as u64);
    }
    together.settle();
    // Out of order: everything but the Gram matrix.
    let mut mixed = ColumnStatistics::new(16, Needs::NORMS | Needs::MOMENTS, Device::Cpu);
    for numbers in [[4usize, 1].as_slice(), &[0], &[3, 2]] {
        let rows = Tensor::from_slice(&numbers.iter().map(|&at| at as i64).collect::<Vec<_>>());
        mixed.observe_rows(&inputs.index_select(0, &rows), numbers);
        mixed.end_samples(numbers.len() as u64);
    }
    mixed.settle();
    let (alone, together, mixed) = (alone.to_tensors(), together.to_tensors(), mixed.to_tensors());
    assert!(alone.iter().all(|(name, tensor)| together[name].equal(tensor)));
    assert_eq!(mixed.len(), alone.len() - 1);
    assert!(mixed.iter().all(|(name, tensor)| alone[name].equal(tensor)));
}

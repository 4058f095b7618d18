//! Prunes the linears of one FlanT5-XL encoder block and prints seconds as JSON: `pruning_speed METHOD PATTERN THREADS [SAMPLES]`.
//!
//! Weights and inputs are random, the same that `scripts/bench_pruning.py` draws; statistics and pruning are timed, drawing is not. `swaps` and `squares` are
//! refinements of Wanda's masks.

#![allow(clippy::print_stdout)]

use std::{process::ExitCode, time::Instant};

use ressa_experiment::config::Group;
use ressa_prune::{
    metric::{Magnitude, Ria, Wanda},
    refine::{LeastSquares, PrunedLayer, Refinement, SparseSwaps},
    select::Selection,
    solver::{Dsnot, LayerProblem, LayerSolver, Ranked, SparseGpt, Threshold},
    statistics::{ColumnStatistics, Needs},
};
use ressa_runtime::{Device, DeviceChoice, RuntimeOptions, cpu_seconds};
use tch::{Kind, Tensor};

const TOKENS: i64 = 96;
/// Samples on which errors are measured.
const LOOKED_AT: i64 = 8;
/// Width of an input and the heights of the layers that read it: q, k, v; o; the two gates; the way down.
const BLOCK: [(i64, &[i64]); 4] =
    [(2048, &[2048, 2048, 2048]), (2048, &[2048]), (2048, &[5120, 5120]), (5120, &[2048])];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [method, pattern, threads, rest @ ..] = arguments else {
        return Err("usage: pruning_speed METHOD PATTERN THREADS [SAMPLES]".into());
    };
    let samples: i64 = rest.first().map_or(Ok(128), |text| text.parse())?;
    let device = ressa_runtime::init(&RuntimeOptions { device: DeviceChoice::Cpu, threads: threads.parse()? })?;
    let _no_grad = tch::no_grad_guard();
    let solver: Box<dyn LayerSolver> = match method.as_str() {
        "magnitude" => Box::new(Ranked(Box::new(Magnitude))),
        "wanda" => Box::new(Ranked(Box::new(Wanda))),
        "ria" => Box::new(Ranked(Box::new(Ria::default()))),
        "sparsegpt" => Box::new(SparseGpt { threshold: Threshold::Inclusive, ..SparseGpt::default() }),
        "dsnot" => Box::new(Dsnot::default()),
        "swaps" | "squares" => Box::new(Ranked(Box::new(Wanda))),
        other => return Err(format!("no method `{other}`").into()),
    };
    let refinement: Option<Box<dyn Refinement>> = match method.as_str() {
        "swaps" => Some(Box::new(SparseSwaps::default())),
        "squares" => Some(Box::new(LeastSquares::default())),
        _ => None,
    };
    let needs = refinement.as_ref().map_or(Needs::WEIGHT, |refinement| refinement.needs()) | solver.needs();
    let selection = match pattern.split_once(':') {
        Some((prune, of)) => {
            let of: i64 = of.parse()?;
            Selection::NOfM { keep: of - prune.parse::<i64>()?, of }
        }
        None => Selection::Unstructured { sparsity: pattern.parse::<f64>()? / 100.0, group: Group::Row },
    };
    tch::manual_seed(0);
    let (mut statistics_seconds, mut pruning_seconds, mut cpu) = (0.0, 0.0, 0.0);
    let (mut digests, mut errors) = (Vec::new(), Vec::new());
    for (width, heights) in BLOCK {
        let options = (Kind::Float, device);
        let inputs = Tensor::randn([samples, TOKENS, width], options) + Tensor::randn([width], options) * 0.5;
        let weights: Vec<Tensor> = heights.iter().map(|&h| Tensor::randn([h, width], options) * 0.02).collect();
        let (clock, cpu_clock) = (Instant::now(), cpu_seconds());
        let mut statistics = ColumnStatistics::new(width, needs, device);
        for sample in 0..samples {
            statistics.add_sample(&inputs.get(sample));
        }
        statistics_seconds += clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let problems: Vec<_> =
            weights.iter().map(|weight| LayerProblem { name: "layer", weight, selection, gone: None }).collect();
        let mut solutions = solver.solve(&problems, Some(&statistics))?;
        if let Some(refinement) = &refinement {
            let layers: Vec<_> = weights
                .iter()
                .zip(&solutions)
                .map(|(dense, found)| PrunedLayer {
                    name: "layer",
                    dense,
                    weight: found.weight.as_ref(),
                    keep: &found.keep,
                    pattern: selection.pattern(),
                    gone: None,
                })
                .collect();
            let refined = refinement.refine(&layers, Some(&statistics))?;
            for (solution, found) in solutions.iter_mut().zip(refined) {
                (solution.keep, solution.weight) = (found.keep, found.weight);
            }
        }
        pruning_seconds += clock.elapsed().as_secs_f64();
        cpu += cpu_seconds() - cpu_clock;
        let seen = inputs.narrow(0, 0, samples.min(LOOKED_AT)).reshape([-1, width]);
        for (weight, solution) in weights.iter().zip(&solutions) {
            digests.push(digest(&solution.keep));
            let sparse = match &solution.weight {
                Some(changed) => changed.shallow_clone(),
                None => weight * &solution.keep,
            };
            errors.push(output_error(&seen, weight, &sparse));
        }
    }
    println!(
        "{{\"statistics\": {statistics_seconds:.4}, \"pruning\": {pruning_seconds:.4}, \"cpu\": {cpu:.4}, \"digests\": {digests:?}, \"errors\": {errors:?}}}"
    );
    Ok(())
}

/// What pruning did to the layer's outputs, as a share of their energy.
fn output_error(inputs: &Tensor, dense: &Tensor, sparse: &Tensor) -> f64 {
    let energy = |weight: &Tensor| inputs.matmul(&weight.tr()).square().sum(Kind::Double).double_value(&[]);
    energy(&(dense - sparse)) / energy(dense)
}

/// Tells masks apart.
fn digest(keep: &Tensor) -> i64 {
    let place = Tensor::arange(keep.numel() as i64, (Kind::Int64, Device::Cpu)).remainder(1009).view_as(keep);
    (place * keep).sum(Kind::Int64).int64_value(&[])
}

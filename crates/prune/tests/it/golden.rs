//! Masks, importances and weights against what the published algorithms give in Python.
//!
//! The fixtures come from `scripts/export_prune_goldens.py`. `RESSA_GOLDEN=folder cargo test -p ressa-prune -- --ignored` compares with another folder
//! of the same form, for instance one that the authors' own code wrote.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::config::Group;
use ressa_prune::{
    metric::{Magnitude, PruningMetric, Ria, Wanda},
    select::{Rounding, Selection},
    solver::{
        Alps, Damping, Dsnot, LayerProblem, LayerSolution, LayerSolver, Order, Ranked, SignRule, SparseGpt, Threshold,
    },
    statistics::{ColumnStatistics, Needs},
};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

#[test]
fn masks_equal_the_published_algorithms() {
    let compared = compare_folder(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens")));
    assert!(compared >= 90, "only {compared} masks compared");
}

#[test]
#[ignore = "needs a folder in RESSA_GOLDEN"]
fn masks_equal_another_folders() {
    let folder = std::env::var("RESSA_GOLDEN").expect("RESSA_GOLDEN names a folder");
    let compared = compare_folder(Path::new(&folder));
    assert!(compared >= 90, "only {compared} masks compared");
}

fn compare_folder(folder: &Path) -> usize {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("golden folder").map(|e| e.expect("entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    let mut failures = Vec::new();
    let compared = paths.iter().map(|path| compare_case(path, &mut failures)).sum();
    assert!(failures.is_empty(), "{} of {compared} differ:\n{}", failures.len(), failures.join("\n"));
    compared
}

fn compare_case(path: &Path, failures: &mut Vec<String>) -> usize {
    let tensors: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).expect("tensors").into_iter().collect();
    let about = std::fs::read_to_string(path.with_extension("json")).expect("description");
    let about: Value = serde_json::from_str(&about).expect("JSON");
    let (weight, inputs) = (&tensors["W"], tensors["X"].to_kind(Kind::Float));
    let needs = Needs::NORMS | Needs::MOMENTS | Needs::GRAM;
    let mut statistics = ColumnStatistics::new(weight.size()[1], needs, Device::Cpu);
    for sample in 0..inputs.size()[0] {
        statistics.add_sample(&inputs.get(sample));
    }
    let mut fail = |what: &str, how: String| failures.push(format!("{} {what}: {how}", path.display()));
    for (what, found, expected, tolerance) in [
        ("norms", statistics.norm().expect("norms").square(), "stat.sqnorm", 1e-5),
        ("sums", statistics.sum().expect("sums"), "stat.sum", 1e-5),
        ("variances", statistics.variance().expect("variances"), "stat.var", 1e-5),
        ("importance", Wanda.importance("w", weight, Some(&statistics)), "wanda_score", 1e-5),
    ] {
        if let Some(how) = apart(&found, &tensors[expected], tolerance) {
            fail(what, how);
        }
    }

    let mut compared = 0;
    for (name, mask) in &tensors {
        let Some(method) = name.strip_prefix("mask.") else { continue };
        compared += 1;
        let options = &about["methods"][method];
        let found = solve(method, options, weight, &statistics);
        if options["compare"] == "loss" {
            let pruned = found.weight.unwrap_or_else(|| weight * &found.keep);
            let output = |w: &Tensor| inputs.matmul(&w.transpose(0, 1));
            let dense = output(weight);
            let share = |sum: &Tensor| sum.square().sum(Kind::Double).double_value(&[]);
            let error = (share(&(output(&pruned) - &dense)) / share(&dense)).sqrt();
            let expected = options["output_error"].as_f64().expect("output error");
            if (error / expected - 1.0).abs() > 0.02 {
                fail(method, format!("output error {error}, expected {expected}"));
            }
            continue;
        }
        let differs = found.keep.to_kind(Kind::Uint8).ne_tensor(mask).any_dim(1, false);
        let differs = match tensors.get(&format!("rows.{method}")) {
            Some(rows) => differs.logical_and(rows),
            None => differs,
        };
        let rows = differs.sum(Kind::Int64).int64_value(&[]);
        if rows > 0 {
            fail(method, format!("{rows} rows differ"));
        } else if let Some(expected) = tensors.get(&format!("weight.{method}"))
            && let Some(how) = apart(&found.weight.expect("weights"), expected, 3e-5)
        {
            fail(method, how);
        }
    }
    compared
}

/// How far two tensors are apart, if that is more than `tolerance` of the largest expected value.
fn apart(found: &Tensor, expected: &Tensor, tolerance: f64) -> Option<String> {
    let largest = expected.abs().max().double_value(&[]);
    let difference = (found - expected).abs().max().double_value(&[]);
    (difference.is_nan() || difference > tolerance * largest).then(|| format!("off by {difference:e} of {largest:e}"))
}

/// Runs a method with the published settings, as its name and description say.
fn solve(method: &str, options: &Value, weight: &Tensor, statistics: &ColumnStatistics) -> LayerSolution {
    let (family, rest) = method.split_once('_').expect("method_pattern");
    let (amount, variant) = rest.split_once('_').unwrap_or((rest, ""));
    let (rows, columns) = (weight.size()[0], weight.size()[1]);
    let selection = match amount.split_once(':') {
        Some((prune, of)) => {
            let (prune, of): (i64, i64) = (prune.parse().expect("n"), of.parse().expect("m"));
            Selection::NOfM { keep: of - prune, of }
        }
        None => {
            let sparsity = amount.parse::<f64>().expect("percent") / 100.0;
            match family {
                "sparsegpt" => Selection::Unstructured { sparsity, group: Group::Matrix },
                "magnitude" | "alps" => {
                    Selection::Exact { count: Rounding::Binary.count(rows * columns, sparsity), group: Group::Matrix }
                }
                _ => Selection::Exact { count: Rounding::Binary.count(columns, sparsity), group: Group::Row },
            }
        }
    };
    let solver: Box<dyn LayerSolver> = match family {
        "magnitude" => Box::new(Ranked(Box::new(Magnitude))),
        "wanda" => Box::new(Ranked(Box::new(Wanda))),
        "ria" => Box::new(Ranked(Box::new(Ria::default()))),
        "sparsegpt" if variant == "rose" => Box::new(SparseGpt {
            threshold: Threshold::Inclusive,
            order: Order::Loss,
            block: options["block"].as_i64().expect("block"),
            ..SparseGpt::default()
        }),
        "alps" => Box::new(Alps::default()),
        "sparsegpt" => {
            let damping = if variant == "damp-always" { Damping::Always } else { Damping::OnFailure };
            Box::new(SparseGpt { damping, threshold: Threshold::Inclusive, ..SparseGpt::default() })
        }
        "dsnot" => Box::new(Dsnot {
            max_cycles: options["max_cycle"].as_u64().expect("cycles") as usize,
            threshold: options["threshold"].as_f64().expect("threshold"),
            sign: if variant == "same-sign" { SignRule::Always } else { SignRule::Published },
            ..Dsnot::default()
        }),
        other => panic!("no method `{other}`"),
    };
    let problem = LayerProblem { name: "layer", weight, selection, gone: None };
    solver.solve(&[problem], Some(statistics)).expect("solves").remove(0)
}

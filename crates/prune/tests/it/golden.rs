//! Masks and importances against what the authors' Python code gives, and by hand.

use ressa_experiment::config::Group;
use ressa_prune::{
    metric::{Magnitude, PruningMetric, Wanda},
    select::Selection,
    statistics::ColumnStatistics,
};
use std::{collections::BTreeMap, path::Path};
use tch::{Device, Kind, Tensor};

/// A weight of two rows over two samples whose columns have norms 3, 1 and 0.
#[test]
fn wanda_by_hand() {
    let weight = Tensor::from_slice(&[1.0f32, -4.0, 9.0, -2.0, 5.0, 0.5]).view([2, 3]);
    let mut statistics = ColumnStatistics::new(3, Device::Cpu);
    statistics.add_sample(&Tensor::from_slice(&[1.0f32, 1.0, 0.0, 2.0, 0.0, 0.0]).view([1, 2, 3]));
    statistics.add_sample(&Tensor::from_slice(&[-3.0f32, 1.0, 0.0, -2.0, 0.0, 0.0]).view([1, 2, 3]));
    let importance = Wanda.importance("layer", &weight, Some(&statistics));
    assert_eq!(Vec::<f32>::try_from(importance.reshape([-1])).expect("f32"), [3.0, 4.0, 0.0, 6.0, 5.0, 0.0]);
    let row = Selection::Unstructured { sparsity: 0.5, group: Group::Row };
    let keep = Vec::<bool>::try_from(row.keep(&importance).reshape([-1])).expect("bool");
    assert_eq!(keep, [true, true, false, true, true, false]);
}

/// `RESSA_GOLDEN=folder cargo test -p ressa-prune -- --ignored`, with the folder that the golden exporter wrote.
#[test]
#[ignore = "needs the exporter's folder in RESSA_GOLDEN"]
fn masks_equal_the_references() {
    let folder = std::env::var("RESSA_GOLDEN").expect("RESSA_GOLDEN names the exporter's folder");
    let mut compared = 0;
    for entry in std::fs::read_dir(Path::new(&folder).join("prune")).expect("golden folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            compared += compare_case(&path);
        }
    }
    assert!(compared >= 70, "only {compared} masks compared");
}

fn compare_case(path: &Path) -> usize {
    let tensors: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).expect("tensors").into_iter().collect();
    let about = std::fs::read_to_string(path.with_extension("json")).expect("description");
    let about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
    let weight = &tensors["W"];
    let mut statistics = ColumnStatistics::new(weight.size()[1], Device::Cpu);
    for sample in 0..tensors["X"].size()[0] {
        statistics.add_sample(&tensors["X"].get(sample));
    }
    let wanda = Wanda.importance("layer", weight, Some(&statistics));
    let difference = (&wanda - &tensors["wanda_score"]).abs().max().double_value(&[]);
    let largest = tensors["wanda_score"].max().double_value(&[]);
    assert!(difference <= 3e-5 * largest, "{}: importance differs by {difference}", path.display());

    let mut compared = 0;
    for (name, mask) in &tensors {
        let Some(method) = name.strip_prefix("mask.") else { continue };
        let importance = if method.starts_with("wanda") {
            // The reference's own values, so that only the selection is compared where rounding could decide.
            tensors["wanda_score"].shallow_clone()
        } else if method.starts_with("magnitude") {
            Magnitude.importance("layer", weight, None)
        } else {
            continue;
        };
        let selection = selection(method, &about["methods"][method], weight);
        let different =
            selection.keep(&importance).to_kind(Kind::Uint8).ne_tensor(mask).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(different, 0, "{} {method}", path.display());
        compared += 1;
    }
    compared
}

/// The selection of a case, with the number of weights that the reference prunes (it truncates binary products).
fn selection(method: &str, about: &serde_json::Value, weight: &Tensor) -> Selection {
    let option = method.split_once('_').expect("method_option").1;
    if let Some((prune, of)) = option.split_once(':') {
        let (prune, of): (i64, i64) = (prune.parse().expect("n"), of.parse().expect("m"));
        return Selection::NOfM { keep: of - prune, of };
    }
    match about["drop_per_row"].as_f64() {
        Some(count) => Selection::Unstructured { sparsity: count / weight.size()[1] as f64, group: Group::Row },
        None => {
            let count = about["drop_count"].as_f64().expect("drop count");
            Selection::Unstructured { sparsity: count / weight.numel() as f64, group: Group::Matrix }
        }
    }
}

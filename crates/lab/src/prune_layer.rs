//! Prunes one layer given as tensors, with any method and the settings its authors published.

use ressa_experiment::{
    Pattern, Tower,
    config::{Propagate, TokenConfig},
    job::{LayerOptions, PruneLayer},
};
use ressa_prune::{
    PruneError, PruneRequest,
    method::solver,
    solver::{LayerProblem, LayerSolution},
    statistics::ColumnStatistics,
};
use ressa_runtime::{Device, count_nonzero};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{
    LabError,
    tensors::{Inputs, save},
};

/// The name under which errors speak of the layer.
const LAYER: &str = "weight";

/// A pruned layer.
#[derive(Debug)]
struct PrunedLayer {
    /// 1 where a weight stays, u8 `[out, in]`.
    keep_mask: Tensor,
    /// The weight to go on with, in its own type.
    weight: Tensor,
    /// What ranked the weights when they were chosen, f32 `[out, in]`.
    importance: Tensor,
}

/// What is asked of the layer, as an experiment would ask it of a tower.
fn request(options: &LayerOptions) -> Result<PruneRequest, String> {
    let pattern = match (options.sparsity, options.pattern.unwrap_or(Pattern::Unstructured)) {
        (Some(sparsity), Pattern::Unstructured) if !(0.0..1.0).contains(&sparsity) => {
            return Err(format!("sparsity `{sparsity}` is not usable: give a fraction from 0 to below 1"));
        }
        (Some(_), Pattern::NOfM { .. }) => {
            return Err("an N:M pattern has its own sparsity: give only one of them".to_owned());
        }
        (None, Pattern::Unstructured) => {
            return Err("neither a sparsity nor an N:M pattern is given: give one of them".to_owned());
        }
        (_, pattern) => pattern,
    };
    Ok(PruneRequest {
        tower: Tower::Language,
        metric: options.metric,
        method: options.method.canonical(options.metric, pattern, &[options.group]),
        pattern,
        sparsity: options.sparsity,
        group: options.group,
        propagate: Propagate::Dense,
        tokens: TokenConfig::default(),
        seed: 0,
    })
}

/// Prunes `weight` `[out, in]`; `inputs` `[samples, tokens, in]` may be missing for magnitude.
///
/// # Errors
/// Shapes that do not fit, values that are not finite, options that contradict each other, as a sentence.
fn prune_layer(weight: &Tensor, inputs: Option<&Tensor>, options: &LayerOptions) -> Result<PrunedLayer, String> {
    let &[rows, columns] = weight.size().as_slice() else {
        return Err(format!("`weight` has shape {:?}, expected `[out, in]`", weight.size()));
    };
    if !weight.is_floating_point() {
        return Err(format!("`weight` has type `{:?}`, expected floating point", weight.kind()));
    }
    let request = request(options)?;
    let said = |error: PruneError| error.to_string();
    let solver = solver(request.metric, &request.method, request.seed).ok_or(PruneError::NoMetric).map_err(said)?;
    let selection = request.of_layer(LAYER, (rows, columns), None).map_err(said)?;
    let statistics = if solver.needs().is_empty() {
        None
    } else {
        let inputs = inputs.ok_or("the method needs `inputs` `[samples, tokens, in]` and there are none")?;
        match *inputs.size().as_slice() {
            [samples, tokens, _] if samples == 0 || tokens == 0 => {
                return Err(format!("`inputs` has shape {:?}: there is no token in it", inputs.size()));
            }
            [samples, _, width] if width == columns && inputs.is_floating_point() => {
                let mut statistics = ColumnStatistics::new(columns, solver.needs(), weight.device());
                for sample in 0..samples {
                    statistics.add_sample(&inputs.get(sample).to_device(weight.device()));
                }
                Some(statistics)
            }
            _ => {
                return Err(format!(
                    "`inputs` has shape {:?} and type `{:?}`, expected `[samples, tokens, {columns}]`, floating point",
                    inputs.size(),
                    inputs.kind()
                ));
            }
        }
    };
    let problem = LayerProblem { name: LAYER, weight, selection, gone: None };
    let mut solutions = solver.solve(&[problem], statistics.as_ref()).map_err(said)?;
    let LayerSolution { keep, importance, weight: changed } = solutions.pop().ok_or("the method gave no mask")?;
    let ranked = || solver.importance(&problem, statistics.as_ref()).map_err(|error| error.to_string());
    let importance = importance.map_or_else(ranked, |known| Ok(Some(known)))?.ok_or("the method ranks nothing")?;
    let weight = changed.unwrap_or_else(|| weight.masked_fill(&keep.logical_not(), 0.0));
    Ok(PrunedLayer { keep_mask: keep.to_kind(Kind::Uint8), weight, importance })
}

/// [`prune_layer`] from and to safetensors files: `weight` and `inputs` in, `keep_mask`, `weight` and `importance` out.
pub(crate) fn run(job: &PruneLayer, device: Device) -> Result<Value, LabError> {
    let tensors = Inputs::open(&job.input, device)?;
    let (weight, inputs) = (tensors.get("weight")?, tensors.find("inputs")?);
    let pruned =
        prune_layer(&weight, inputs.as_ref(), &job.options).map_err(|reason| LabError::input(&job.input, reason))?;
    let pruned_count = weight.numel() as i64 - count_nonzero(&pruned.keep_mask) as i64;
    let named = [("keep_mask", pruned.keep_mask), ("weight", pruned.weight), ("importance", pruned.importance)];
    save(&job.output, &named.map(|(name, tensor)| (name.to_owned(), tensor)).into())?;
    Ok(json!({ "output": job.output, "pruned": pruned_count, "weights": weight.numel() }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ressa_experiment::config::{Group, Metric};

    use super::*;

    fn bits(pruned: &PrunedLayer) -> Vec<u8> {
        Vec::<u8>::try_from(pruned.keep_mask.reshape([-1])).expect("u8")
    }

    /// Columns of norm 1, 3, 0 and 2.
    fn layer() -> (Tensor, Tensor) {
        let weight = Tensor::from_slice(&[4.0f32, 1.0, 9.0, 1.0, -1.0, -1.0, 5.0, 2.0]).view([2, 4]);
        let inputs = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0, 0.0]).view([1, 2, 4]);
        (weight, inputs)
    }

    #[test]
    fn published_settings_by_hand() {
        let (weight, inputs) = layer();
        let half = |method| LayerOptions { sparsity: Some(0.5), ..LayerOptions::published(method) };
        let run = |options: &LayerOptions| bits(&prune_layer(&weight, Some(&inputs), options).expect("prunes"));
        assert_eq!(run(&half(Metric::Magnitude)), [1, 0, 1, 0, 0, 0, 1, 1]);
        assert_eq!(run(&half(Metric::Wanda)), [1, 1, 0, 0, 0, 1, 0, 1]);
        let row = LayerOptions { group: Some(Group::Row), ..half(Metric::Magnitude) };
        assert_eq!(run(&row), [1, 0, 1, 0, 0, 0, 1, 1]);
        let pattern = Some(Pattern::NOfM { keep: 1, of: 2 });
        let paired = LayerOptions { pattern, ..LayerOptions::published(Metric::Wanda) };
        assert_eq!(run(&paired), [1, 0, 0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let (weight, inputs) = layer();
        let refuse = |inputs: Option<&Tensor>, options: LayerOptions| {
            prune_layer(&weight, inputs, &options).expect_err("refused")
        };
        let wanda = LayerOptions { sparsity: Some(0.5), ..LayerOptions::published(Metric::Wanda) };
        assert_eq!(refuse(None, wanda.clone()), "the method needs `inputs` `[samples, tokens, in]` and there are none");
        assert_eq!(
            refuse(Some(&inputs.narrow(1, 0, 0)), wanda.clone()),
            "`inputs` has shape [1, 0, 4]: there is no token in it"
        );
        let sick = inputs.copy();
        let _ = sick.get(0).get(0).get(1).fill_(f64::NAN);
        assert_eq!(
            refuse(Some(&sick), wanda.clone()),
            "`weight` sees inputs that are not finite: check the checkpoint and the calibration images"
        );
        assert_eq!(
            refuse(Some(&inputs), LayerOptions { sparsity: Some(1.0), ..wanda.clone() }),
            "sparsity `1` is not usable: give a fraction from 0 to below 1"
        );
        let pattern = Some(Pattern::NOfM { keep: 1, of: 3 });
        assert_eq!(
            refuse(Some(&inputs), LayerOptions { sparsity: None, pattern, ..wanda }),
            "`weight` reads 4 inputs, which groups of 3 do not divide: use another pattern for this tower"
        );
    }

    #[test]
    fn files_in_and_out() {
        let folder = tempfile::tempdir().expect("folder");
        let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
        let (weight, inputs) = layer();
        let tensors = [("weight", weight.to_kind(Kind::BFloat16)), ("inputs", inputs)];
        save(&input, &tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into()).expect("written");
        let options = LayerOptions { sparsity: Some(0.5), ..LayerOptions::published(Metric::SparseGpt) };
        run(&PruneLayer { input, options, output: output.clone() }, Device::Cpu).expect("prunes");
        let found: BTreeMap<_, _> = Tensor::read_safetensors(&output).expect("tensors").into_iter().collect();
        assert_eq!(found["weight"].kind(), Kind::BFloat16);
        let zeros = found["weight"].eq(0.0).logical_not();
        assert!(zeros.logical_and(&found["keep_mask"].eq(0)).any().int64_value(&[]) == 0);
        // The published threshold takes one more than half, and the dead column costs nothing.
        assert_eq!(found["keep_mask"].sum(Kind::Int64).int64_value(&[]), 3);
    }
}

//! Zeroth-order scores: how much the loss changes when noise is added to a layer, forward passes only.
//!
//! - Formula: mean over samples and noises of `|L(w + eps z) - L(w - eps z)| / (2 eps)`, `z` standard normal on one matrix, times what
//!   [`ScoreRule`] says of the weights: `sum |w|`, `sum w^2` (with the squared slope for `obd`), or nothing
//! - Needs: two forward passes for each matrix, sample and noise
//! - Paper: Sung et al., "ECoFLaP", arXiv 2310.02998, section 3.3
//! - Reference: `lavis/compression/pruners/layer_single_base_pruner.py`, `olmezo-gradient`
//! - Differs: noise comes from a stream of its own per layer, sample and draw, so it knows neither an order nor a device. The perturbed weight
//!   is a copy in f32 and the model's own tensor is put back, where the reference adds and subtracts in place in half precision and drifts.

use ressa_experiment::{
    Tower,
    allocation::{ScoreRule, Sensitivities},
};
use ressa_models::{Sample, VisionLanguage};
use ressa_runtime::normals;
use tch::{Kind, Tensor, no_grad};

use super::{AllocationError, probe::Probe};

/// What is drawn and how far it moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Noise {
    /// Factor on the noise.
    pub epsilon: f64,
    /// Noises per layer and sample.
    pub draws: u32,
    /// Replicate seed.
    pub seed: u64,
}

/// Scores of every layer of a tower. `model` carries no masks and is given back as it was.
pub(super) fn perturbations(
    model: &mut dyn VisionLanguage,
    tower: Tower,
    score: ScoreRule,
    noise: Noise,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, AllocationError> {
    let probe = Probe::new(model, tower, samples);
    let layers: Vec<usize> =
        model.linears().iter().enumerate().filter(|(_, (id, _))| id.tower == tower).map(|(at, _)| at).collect();
    let mut sensitivities = Sensitivities::new();
    no_grad(|| {
        for (done, &at) in layers.iter().enumerate() {
            let (name, original) = {
                let (id, linear) = &model.linears()[at];
                (id.name.clone(), linear.weight().shallow_clone())
            };
            let slopes = slopes(model, at, &name, &original, noise, &probe, samples.len());
            // Put back before an error can leave: the very tensor, not one computed back.
            model.linears_mut()[at].1.set_weight(original.shallow_clone())?;
            sensitivities.insert(name, weigh(score, &original, &slopes?));
            progress((done + 1) as f64 / layers.len() as f64);
        }
        Ok(sensitivities)
    })
}

fn slopes(
    model: &mut dyn VisionLanguage,
    at: usize,
    name: &str,
    original: &Tensor,
    noise: Noise,
    probe: &Probe<'_>,
    samples: usize,
) -> Result<Vec<f64>, AllocationError> {
    let mut slopes = Vec::with_capacity(samples * noise.draws as usize);
    for sample in 0..samples {
        for draw in 0..noise.draws {
            let step = normal(original, noise.seed, &format!("{name}/{sample}/{draw}")) * noise.epsilon;
            let mut loss = |sign: f64| -> Result<f64, AllocationError> {
                let moved = original.to_kind(Kind::Float) + &step * sign;
                model.linears_mut()[at].1.set_weight(moved.to_kind(original.kind()))?;
                Ok(probe.loss(model, sample).double_value(&[]))
            };
            slopes.push((loss(1.0)? - loss(-1.0)?).abs() / (2.0 * noise.epsilon));
        }
    }
    Ok(slopes)
}

/// Standard normal numbers shaped like `like`.
fn normal(like: &Tensor, seed: u64, label: &str) -> Tensor {
    let values: Vec<f32> = normals(seed, label).take(like.numel()).map(|value| value as f32).collect();
    Tensor::from_slice(&values).view_as(like).to_device(like.device())
}

fn weigh(score: ScoreRule, weight: &Tensor, slopes: &[f64]) -> f64 {
    let weight = weight.to_kind(Kind::Float);
    let mean = |power: i32| slopes.iter().map(|slope| slope.powi(power)).sum::<f64>() / slopes.len().max(1) as f64;
    let squares = || weight.square().sum(Kind::Double).double_value(&[]);
    match score {
        ScoreRule::Gradient => mean(1),
        ScoreRule::Aobd => mean(1) * weight.abs().sum(Kind::Double).double_value(&[]),
        ScoreRule::ObdAbsolute => mean(1) * squares(),
        ScoreRule::Obd => mean(2) * squares(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_standard_normal_and_its_own() {
        let like = Tensor::zeros([101, 99], (Kind::Float, tch::Device::Cpu));
        let draw = normal(&like, 3, "a");
        let moment = |power: f64| draw.pow_tensor_scalar(power).mean(Kind::Double).double_value(&[]);
        assert!(moment(1.0).abs() < 0.03 && (moment(2.0) - 1.0).abs() < 0.05 && (moment(4.0) - 3.0).abs() < 0.4);
        assert!(draw.equal(&normal(&like, 3, "a")) && !draw.equal(&normal(&like, 3, "b")));
        assert!(!draw.equal(&normal(&like, 4, "a")));
    }

    #[test]
    fn rules_by_hand() {
        let weight = Tensor::from_slice(&[2.0f32, -3.0]);
        let weigh = |rule| weigh(rule, &weight, &[1.0, 3.0]);
        assert_eq!(weigh(ScoreRule::Gradient), 2.0);
        assert_eq!(weigh(ScoreRule::Aobd), 10.0);
        assert_eq!(weigh(ScoreRule::ObdAbsolute), 26.0);
        assert_eq!(weigh(ScoreRule::Obd), 65.0);
    }
}

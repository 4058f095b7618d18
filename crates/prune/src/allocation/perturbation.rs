//! Zeroth-order scores: how much the loss changes when noise is added to a layer, forward passes only.
//!
//! - Formula: mean over samples and noises of `|L(w + eps z) - L(w - eps z)| / (2 eps)`, `z` standard normal on one matrix, times what
//!   [`ScoreRule`] says of the weights: `sum |w|`, `sum w^2` (with the squared slope for `obd`), or nothing
//! - Needs: two forward passes for each matrix, sample and noise
//! - Paper: Sung et al., "ECoFLaP", arXiv 2310.02998, section 3.3
//! - Reference: `lavis/compression/pruners/layer_single_base_pruner.py`, `olmezo-gradient`
//! - Differs: noise comes from a stream of its own per layer, sample and draw, so it knows neither an order nor a device. The perturbed weight
//!   is a copy in f32 and the model's own tensor is put back, where the reference adds and subtracts in place in half precision and drifts. Half
//!   precision is refused: a step of 1e-3 is lost in a weight of 0.25, and a difference of two losses in their rounding.

use ressa_experiment::{
    Tower,
    allocation::{ScoreRule, Sensitivities},
};
use ressa_models::{Sample, VisionLanguage};
use ressa_runtime::normal_like;
use tch::{Device, Kind, Tensor, no_grad};

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
        if !samples.is_empty() && !probe.computes_in_f32(model) {
            return Err(AllocationError::HalfPrecision);
        }
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
    // Both losses of every slope, read together: reading one would wait for the device.
    let mut losses = Vec::with_capacity(2 * samples * noise.draws as usize);
    let original = original.to_kind(Kind::Float);
    for sample in 0..samples {
        for draw in 0..noise.draws {
            let step = normal_like(&original, noise.seed, &format!("{name}/{sample}/{draw}")) * noise.epsilon;
            for sign in [1.0, -1.0] {
                model.linears_mut()[at].1.set_weight(&original + &step * sign)?;
                losses.push(probe.loss(model, sample).to_kind(Kind::Double));
            }
        }
    }
    if losses.is_empty() {
        return Ok(Vec::new());
    }
    let losses = Tensor::stack(&losses, 0).to_device(Device::Cpu);
    let losses = Vec::<f64>::try_from(losses).map_err(|e| AllocationError::Model(e.into()))?;
    Ok(losses.as_chunks::<2>().0.iter().map(|[plus, minus]| (plus - minus).abs() / (2.0 * noise.epsilon)).collect())
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
    fn rules_by_hand() {
        let weight = Tensor::from_slice(&[2.0f32, -3.0]);
        let weigh = |rule| weigh(rule, &weight, &[1.0, 3.0]);
        assert_eq!(weigh(ScoreRule::Gradient), 2.0);
        assert_eq!(weigh(ScoreRule::Aobd), 10.0);
        assert_eq!(weigh(ScoreRule::ObdAbsolute), 26.0);
        assert_eq!(weigh(ScoreRule::Obd), 65.0);
    }
}

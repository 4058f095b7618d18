//! First-order scores: what a layer's weights and the gradients of the loss say, summed over the layer.
//!
//! - Formula: mean over samples of `sum_ij |w_ij| |g_ij|`, and the variants of [`ScoreRule`]
//! - Needs: gradients of the answer's loss, one sample at a time
//! - Paper: Sung et al., "ECoFLaP", arXiv 2310.02998, section 3.2; second-order reading of squares: LeCun et al., "Optimal brain damage"
//! - Reference: `lavis/compression/pruners/layer_single_base_pruner.py`
//! - Differs: the reference's `aobd` computes `w^2 |g|` because its name contains `obd`; here that is `obd-absolute`. Any tower of any family;
//!   the reference finds no layer of LLaMA. A score is linear in what a sample adds, so no gradient outlives its sample and sums are f64.
//!
//! Memory: gradients exist for a window of layers at a time, at least one, at most [`WINDOW`] bytes. Weights that are not in the window need no
//! gradient and the graph holds activations only. Each window costs a forward and the part of the backward above its first layer; a tower
//! that fits is one window. What comes out does not depend on the window.

use ressa_experiment::{
    Tower,
    allocation::{ScoreRule, Sensitivities},
};
use ressa_models::{QUERY_TOKENS, Sample, VisionLanguage};
use tch::{Kind, Tensor, no_grad, with_grad};

use super::{AllocationError, probe::Probe};

/// Bytes of gradients that are held at once.
pub const WINDOW: u64 = 1 << 30;

/// Scores of every layer of a tower. `model` carries no masks and is given back as it was.
pub(super) fn gradients(
    model: &mut dyn VisionLanguage,
    tower: Tower,
    score: ScoreRule,
    window: u64,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
) -> Result<Sensitivities, AllocationError> {
    let mut sensitivities = Sensitivities::new();
    differentiate(model, tower, window, samples, progress, &mut |name, weight, _| {
        let sum = no_grad(|| weigh(score, &weight.detach(), &weight.grad()));
        *sensitivities.entry(name.to_owned()).or_insert(0.0) += sum;
        weight.zero_grad();
    })?;
    sensitivities.values_mut().for_each(|sum| *sum /= samples.len() as f64);
    Ok(sensitivities)
}

/// Sees a weight with its gradient, by its layer's module path, behind each sample; whether it was the last one.
pub(crate) type Differentiated<'a> = dyn FnMut(&str, &mut Tensor, bool) + 'a;

/// Shows the weights of a tower with the gradients of each sample's loss; gradients add up, in the weights' type, where they are not taken away. `model` is given back as it
/// was.
pub(crate) fn differentiate(
    model: &mut dyn VisionLanguage,
    tower: Tower,
    window: u64,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64),
    seen: &mut Differentiated<'_>,
) -> Result<(), AllocationError> {
    let probe = Probe::new(model, tower, samples);
    let layers: Vec<(usize, u64)> = model
        .linears()
        .iter()
        .enumerate()
        .filter(|(_, (id, _))| id.tower == tower)
        .map(|(at, (_, linear))| {
            (at, linear.weight().numel() as u64 * linear.weight().kind().elt_size_in_bytes() as u64)
        })
        .collect();
    let windows = windows(&layers, window);
    for (done, layers) in windows.iter().enumerate() {
        let mut originals = Vec::with_capacity(layers.len());
        let mut leaves = Vec::with_capacity(layers.len());
        let mut linears = model.linears_mut();
        for &at in layers {
            let (id, linear) = &mut linears[at];
            // A detached view: the same storage, but what is recorded on it is not recorded on the model's own tensor.
            let leaf = linear.weight().detach().set_requires_grad(true);
            originals.push(linear.weight().shallow_clone());
            linear.set_weight(leaf.shallow_clone())?;
            leaves.push((id.name.clone(), leaf));
        }
        drop(linears);
        for sample in 0..samples.len() {
            with_grad(|| probe.loss(model, sample).backward());
            for (name, weight) in &mut leaves {
                seen(name, weight, sample + 1 == samples.len());
            }
            progress((done * samples.len() + sample + 1) as f64 / (windows.len() * samples.len()) as f64);
        }
        let mut linears = model.linears_mut();
        for (&at, original) in layers.iter().zip(originals) {
            linears[at].1.set_weight(original)?;
        }
    }
    Ok(())
}

/// The gradient of the samples' losses with respect to the learned queries, summed in f32, `[queries, width]`. `model` is as it was afterwards.
pub(crate) fn differentiate_queries(
    model: &mut dyn VisionLanguage,
    samples: &[Sample],
) -> Result<Tensor, AllocationError> {
    let probe = Probe::new(model, Tower::Connector, samples);
    let of_queries = |model: &mut dyn VisionLanguage, base: Tensor| {
        let weights = model.weights_mut().into_iter();
        weights
            .filter(|weight| weight.key() == QUERY_TOKENS)
            .try_for_each(|weight| weight.set_base(base.shallow_clone()))
    };
    let Some(original) = model.queries().map(|queries| queries.base().shallow_clone()) else {
        return Ok(Tensor::zeros([0, 0], (Kind::Float, tch::Device::Cpu)));
    };
    // As for layers, a view of its own.
    let mut leaf = original.detach().set_requires_grad(true);
    of_queries(model, leaf.shallow_clone())?;
    let mut sum = Tensor::zeros(original.size(), (Kind::Float, original.device()));
    for sample in 0..samples.len() {
        with_grad(|| probe.loss(model, sample).backward());
        let gradient = leaf.grad();
        if gradient.defined() {
            let _ = sum.g_add_(&gradient.to_kind(Kind::Float));
        }
        leaf.zero_grad();
    }
    of_queries(model, original)?;
    Ok(sum.select(0, 0))
}

/// Layers that are differentiated together: consecutive ones up to `window` bytes, at least one.
fn windows(layers: &[(usize, u64)], window: u64) -> Vec<Vec<usize>> {
    let mut windows: Vec<Vec<usize>> = Vec::new();
    let mut held = 0;
    for &(at, bytes) in layers {
        match windows.last_mut() {
            Some(last) if held + bytes <= window => last.push(at),
            _ => {
                windows.push(vec![at]);
                held = 0;
            }
        }
        held += bytes;
    }
    windows
}

fn weigh(score: ScoreRule, weight: &Tensor, gradient: &Tensor) -> f64 {
    if !gradient.defined() {
        // The loss does not depend on the layer.
        return 0.0;
    }
    let gradient = gradient.to_kind(Kind::Float);
    let weight = || weight.to_kind(Kind::Float);
    let weighed = match score {
        ScoreRule::Aobd => (weight() * gradient).abs(),
        ScoreRule::Obd => (weight() * gradient).square(),
        ScoreRule::ObdAbsolute => weight().square() * gradient.abs(),
        ScoreRule::Gradient => gradient.abs(),
    };
    weighed.sum(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_by_hand() {
        let (weight, gradient) = (Tensor::from_slice(&[2.0f32, -3.0]), Tensor::from_slice(&[-0.5f32, 4.0]));
        let weigh = |rule| weigh(rule, &weight, &gradient);
        assert_eq!(weigh(ScoreRule::Aobd), 1.0 + 12.0);
        assert_eq!(weigh(ScoreRule::Obd), 1.0 + 144.0);
        assert_eq!(weigh(ScoreRule::ObdAbsolute), 2.0 + 36.0);
        assert_eq!(weigh(ScoreRule::Gradient), 4.5);
        assert_eq!(super::weigh(ScoreRule::Aobd, &weight, &Tensor::new()), 0.0);
    }

    #[test]
    fn windows_hold_what_fits_and_at_least_one() {
        assert_eq!(windows(&[(3, 4), (4, 4), (5, 9), (6, 1)], 8), [vec![3, 4], vec![5], vec![6]]);
        assert_eq!(windows(&[(0, 4), (1, 4)], 0), [vec![0], vec![1]]);
        assert!(windows(&[], 8).is_empty());
    }
}

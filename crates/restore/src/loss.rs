//! What restoration minimises.
//!
//! `(1 - w) * task + w * distillation` with
//! - task: mean cross entropy over the questions' answer tokens, plus that over the captions' tokens, plus `contrastive` times the
//!   in-batch image-text loss where the model has a retrieval head. Questions and captions weigh the same however many tokens they have.
//! - distillation: the divergence of the student's next-token distributions from the teacher's, over questions plus over captions. No
//!   factor of the squared temperature unless asked for, as in the reference; and the distances of hidden states and of attention, where they have a weight.

use ressa_experiment::config::{DistillConfig, Divergence, Reduction};
use ressa_models::Forced;
use tch::{Kind, Tensor};

use crate::teacher::Output;

/// Softmax temperature of the contrastive loss: what the retrieval heads are trained with from scratch start at.
const CONTRASTIVE_TEMPERATURE: f64 = 0.1;

/// Divergence of the student's distributions from the teacher's over the vocabulary ([`Divergence`]), reduced over positions; a scalar.
///
/// [`Reduction::Mean`] averages over the target tokens that count. [`Reduction::Sum`] is the reference's: the sum over all positions,
/// padding included, divided by the rows, so it grows with the padded length.
///
/// With [`Output::Top`] all tokens but the teacher's most probable ones count as one token: a lower bound of the divergence, the closer the
/// less the teacher gives the rest.
pub fn distillation(teacher: &Output, student: &Forced, settings: &DistillConfig) -> Tensor {
    let got = (&student.logits / settings.temperature).log_softmax(-1, Kind::Float);
    let (target, got) = match teacher {
        Output::Logits(logits) => ((logits / settings.temperature).log_softmax(-1, Kind::Float), got),
        Output::Top { ids, log_probabilities } => {
            let got = got.gather(-1, ids, false);
            (with_rest(log_probabilities), with_rest(&got))
        }
    };
    let divergence = match settings.divergence {
        Divergence::Forward => kullback_leibler(&target, &got),
        Divergence::Reverse => kullback_leibler(&got, &target),
        Divergence::Symmetric => (kullback_leibler(&target, &got) + kullback_leibler(&got, &target)) / 2.0,
        Divergence::JensenShannon => {
            let middle = target.logaddexp(&got) - std::f64::consts::LN_2;
            (kullback_leibler(&target, &middle) + kullback_leibler(&got, &middle)) / 2.0
        }
    };
    let divergence = if settings.square { divergence * settings.temperature.powi(2) } else { divergence };
    match settings.reduction {
        Reduction::Mean => {
            let counts = student.mask.to_kind(Kind::Float);
            (divergence * &counts).sum(Kind::Float) / counts.sum(Kind::Float).clamp_min(1.0)
        }
        Reduction::Sum => divergence.sum(Kind::Float) / (student.logits.size()[0] as f64),
    }
}

/// `KL(p || q)` of log-probabilities `[..., words]`, `[...]`.
pub(crate) fn kullback_leibler(p: &Tensor, q: &Tensor) -> Tensor {
    (p.exp() * (p - q)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
}

/// Distance of hidden states `[rows, tokens, width]`, f32, from the teacher's; a scalar: the mean over rows of the squared distance over the teacher's
/// squared length, both summed over tokens with their `weights` `[rows, tokens]`. A row adds the same whatever it is padded to, and however large the
/// states of a network are. A row of which no token counts adds nothing.
pub fn hidden(student: &Tensor, teacher: &Tensor, weights: &Tensor) -> Tensor {
    /// Keeps the length of nothing from being 0.
    const LEAST: f64 = 1e-12;
    let teacher = teacher.to_kind(Kind::Float);
    let squares = |x: &Tensor| {
        let of_tokens = x.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
        (of_tokens * weights).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)
    };
    (squares(&(student - &teacher)) / squares(&teacher).clamp_min(LEAST)).mean(Kind::Float)
}

/// Log-probabilities `[..., k]` with that of everything else behind them, `[..., k + 1]`.
fn with_rest(log_probabilities: &Tensor) -> Tensor {
    /// Keeps the logarithm finite where nothing is left.
    const LEAST: f64 = 1e-7;
    let taken = log_probabilities.exp().sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
    Tensor::cat(&[log_probabilities, &(taken.neg() + 1.0).clamp_min(LEAST).log()], -1)
}

/// In-batch image-text contrastive loss: every image must find its text among all texts and the other way round; a scalar.
///
/// `images` `[n, queries, d]` and `texts` `[n, d]` have unit norm; an image is as near to a text as the nearest of its queries.
///
/// `hardness` times the nearness of a wrong pair is added to its logit, without a gradient: its odds count `exp(hardness * nearness)` times (Lan et al.,
/// "LLaVE", arXiv 2503.04812, whose reward model is the model itself).
pub fn contrastive(images: &Tensor, texts: &Tensor, hardness: f64) -> Tensor {
    let nearness = images.matmul(&texts.transpose(0, 1)).amax([1i64].as_slice(), false);
    let own = Tensor::arange(texts.size()[0], (Kind::Int64, texts.device()));
    let mut logits = &nearness / CONTRASTIVE_TEMPERATURE;
    if hardness > 0.0 {
        let right = own.unsqueeze(1).eq_tensor(&own);
        logits += (nearness.detach() * hardness).masked_fill(&right, 0.0);
    }
    (logits.cross_entropy_for_logits(&own) + logits.transpose(0, 1).cross_entropy_for_logits(&own)) / 2.0
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::stepper::HALF_SCALE;

    /// States as long as a large model's: their gradient is there in float16 only where the loss is scaled.
    #[test]
    fn gradients_of_hidden_states_are_not_lost_in_half_precision() {
        tch::manual_seed(1);
        let teacher = Tensor::randn([1, 300, 2048], (Kind::Float, Device::Cpu)) * 20.0;
        let weights = Tensor::ones([1, 300], (Kind::Float, Device::Cpu));
        let gradient = |kind: Kind, scale: f64| {
            let state = (&teacher + 1.0).to_kind(kind).detach().set_requires_grad(true);
            let loss = hidden(&state.to_kind(Kind::Float), &teacher, &weights) * scale;
            Tensor::run_backward(&[&loss], &[&state], false, false).remove(0).to_kind(Kind::Float) / scale
        };
        let exact = gradient(Kind::Float, 1.0);
        let sum = |tensor: &Tensor| tensor.abs().sum(Kind::Double).double_value(&[]);
        assert_eq!(sum(&gradient(Kind::Half, 1.0)), 0.0);
        let scaled = gradient(Kind::Half, HALF_SCALE);
        assert!(sum(&(&scaled - &exact)) < 0.05 * sum(&exact), "{} {}", sum(&scaled), sum(&exact));
    }
}

//! What restoration minimises.
//!
//! `(1 - w) * task + w * distillation` with
//! - task: mean cross entropy over the questions' answer tokens, plus that over the captions' tokens, plus `contrastive` times the
//!   in-batch image-text loss where the model has a retrieval head. Questions and captions weigh the same however many tokens they have.
//! - distillation: the divergence of the student's next-token distributions from the teacher's, over questions plus over captions. No
//!   factor of the squared temperature, as in the reference.

use ressa_experiment::config::{DistillConfig, Reduction};
use ressa_models::Forced;
use tch::{Kind, Tensor};

use crate::teacher::Output;

/// Softmax temperature of the contrastive loss: what the retrieval heads are trained with from scratch start at.
const CONTRASTIVE_TEMPERATURE: f64 = 0.1;

/// Forward divergence `KL(teacher || student)` over the vocabulary, reduced over positions; a scalar.
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
    let divergence = (target.exp() * (&target - got)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Float);
    match settings.reduction {
        Reduction::Mean => {
            let counts = student.mask.to_kind(Kind::Float);
            (divergence * &counts).sum(Kind::Float) / counts.sum(Kind::Float).clamp_min(1.0)
        }
        Reduction::Sum => divergence.sum(Kind::Float) / (student.logits.size()[0] as f64),
    }
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
pub fn contrastive(images: &Tensor, texts: &Tensor) -> Tensor {
    let nearness = images.matmul(&texts.transpose(0, 1)).amax([1i64].as_slice(), false) / CONTRASTIVE_TEMPERATURE;
    let own = Tensor::arange(texts.size()[0], (Kind::Int64, texts.device()));
    (nearness.cross_entropy_for_logits(&own) + nearness.transpose(0, 1).cross_entropy_for_logits(&own)) / 2.0
}

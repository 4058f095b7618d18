//! The losses of a training step, and their numbers.

use ressa_experiment::{config::DistillConfig, stage::AdaptTraining};
use ressa_models::{Forced, Prompts, VisionLanguage};
use tch::{Kind, Tensor};

use crate::{RestoreError, loss, micro::Exchange, teacher::Output, traced::Compared};

/// A loss above this has exploded: per-token losses are of the order of the logarithm of the vocabulary.
const EXPLODED: f64 = 1e6;

/// Losses of one step, before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLoss {
    /// Step, counted from 0.
    pub step: u32,
    /// What is minimised.
    pub total: f64,
    /// Cross entropy of the answers; in steps that align the connector, that of their words.
    pub questions: f64,
    /// Cross entropy of the captions, likewise.
    pub captions: f64,
    /// Contrastive loss, unweighted; 0 without one.
    pub contrastive: f64,
    /// Distillation loss, unweighted; 0 without one.
    pub distillation: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl StepLoss {
    /// From `[total, questions, captions, contrastive, distillation, gradient norm]`.
    ///
    /// # Errors
    /// Where training has left the finite numbers.
    pub(crate) fn new(step: u32, values: &[f64]) -> Result<Self, RestoreError> {
        let row: Vec<f64> = std::iter::once(f64::from(step)).chain(values.iter().copied()).collect();
        let loss = Self::from_rows(&row).pop().expect("seven numbers");
        if !loss.total.is_finite() || loss.total > EXPLODED {
            return Err(RestoreError::Diverged { step, what: "loss", value: loss.total });
        }
        if !loss.gradient_norm.is_finite() {
            return Err(RestoreError::Diverged { step, what: "gradient norm", value: loss.gradient_norm });
        }
        Ok(loss)
    }

    pub(crate) fn to_row(self) -> [f64; 7] {
        let Self { step, total, questions, captions, contrastive, distillation, gradient_norm } = self;
        [f64::from(step), total, questions, captions, contrastive, distillation, gradient_norm]
    }

    pub(crate) fn from_rows(rows: &[f64]) -> Vec<Self> {
        let (rows, _) = rows.as_chunks::<7>();
        rows.iter()
            .map(|&[step, total, questions, captions, contrastive, distillation, gradient_norm]| Self {
                step: step as u32,
                total,
                questions,
                captions,
                contrastive,
                distillation,
                gradient_norm,
            })
            .collect()
    }
}

/// Teacher-forced outputs of an exchange; `None` where there is none.
pub(crate) fn forced(model: &dyn VisionLanguage, features: &Tensor, exchange: &Exchange) -> Option<Forced> {
    if exchange.answers.is_empty() {
        return None;
    }
    let prompts: &Prompts = &exchange.prompts;
    let prefix = model.visual_prefix(features, prompts);
    Some(model.force_padded(Some(&prefix), &prompts.language, exchange.answers()))
}

/// The losses of a part of a batch as shares of the whole batch's: they add up to it. Still differentiable.
pub(crate) struct Terms {
    /// What is minimised.
    pub total: Tensor,
    questions: Tensor,
    captions: Tensor,
    contrastive: Tensor,
    distillation: Tensor,
}

impl Terms {
    /// `contrastive` is the unweighted in-batch loss, where this part accounts for it; `images` the distance of the image encoder's attention, where it is
    /// compared, as a share of the whole batch's.
    pub(crate) fn new(
        questions: Option<Reply<'_>>,
        captions: Option<Reply<'_>>,
        contrastive: Option<Tensor>,
        images: Option<Tensor>,
        device: tch::Device,
        settings: &AdaptTraining,
    ) -> Self {
        let zero = || Tensor::zeros([], (Kind::Float, device));
        let cross_entropy = |reply: &Option<Reply<'_>>| reply.as_ref().map_or_else(zero, Reply::cross_entropy);
        let contrastive = contrastive.map_or_else(zero, |loss| loss.to_kind(Kind::Float));
        let (question_loss, caption_loss) = (cross_entropy(&questions), cross_entropy(&captions));
        let task = &question_loss + &caption_loss + &contrastive * settings.contrastive;
        let (total, distillation) = match distills(settings) {
            None => (task, zero()),
            Some(distill) => {
                let divergence = |reply: &Option<Reply<'_>>| {
                    reply.as_ref().and_then(|reply| reply.distillation(distill)).unwrap_or_else(zero)
                };
                let mut distillation = divergence(&questions) + divergence(&captions);
                if let Some(images) = images {
                    distillation += images * distill.attention.weight;
                }
                (task * (1.0 - distill.weight) + &distillation * distill.weight, distillation)
            }
        };
        Self { total, questions: question_loss, captions: caption_loss, contrastive, distillation }
    }

    /// Of a step that aligns the connector with words.
    pub(crate) fn aligned(questions: Option<Tensor>, captions: Option<Tensor>, device: tch::Device) -> Self {
        let zero = || Tensor::zeros([], (Kind::Float, device));
        let (questions, captions) = (questions.unwrap_or_else(zero), captions.unwrap_or_else(zero));
        Self { total: &questions + &captions, questions, captions, contrastive: zero(), distillation: zero() }
    }

    /// The sum of parts.
    pub(crate) fn sum(parts: impl IntoIterator<Item = Option<Self>>) -> Self {
        let sum = |left: Self, right: Self| Self {
            total: left.total + right.total,
            questions: left.questions + right.questions,
            captions: left.captions + right.captions,
            contrastive: left.contrastive + right.contrastive,
            distillation: left.distillation + right.distillation,
        };
        parts.into_iter().flatten().map(Self::without_history).reduce(sum).expect("at least one part")
    }

    /// The values alone.
    pub(crate) fn without_history(self) -> Self {
        let Self { total, questions, captions, contrastive, distillation } = self;
        Self {
            total: total.detach(),
            questions: questions.detach(),
            captions: captions.detach(),
            contrastive: contrastive.detach(),
            distillation: distillation.detach(),
        }
    }

    /// `[total, questions, captions, contrastive, distillation]`, without autograd graph.
    pub(crate) fn values(&self) -> Tensor {
        let Self { total, questions, captions, contrastive, distillation } = self;
        Tensor::stack(&[total, questions, captions, contrastive, distillation], 0).detach()
    }
}

/// Distillation, where it has a weight.
pub(crate) fn distills(settings: &AdaptTraining) -> Option<&DistillConfig> {
    settings.distill.as_ref().filter(|distill| distill.weight > 0.0)
}

/// What the student says in an exchange, beside what the teacher says.
pub(crate) struct Reply<'a> {
    pub student: &'a Forced,
    pub teacher: Option<&'a Output>,
    pub exchange: &'a Exchange,
    /// What is compared: which columns of the logits are.
    pub compared: &'a Compared,
    /// Distance of hidden states, the mean over these rows, where they are compared.
    pub hidden: Option<Tensor>,
    /// Distance of attention, likewise.
    pub attention: Option<Tensor>,
}

impl Reply<'_> {
    fn cross_entropy(&self) -> Tensor {
        weighed(self.student.loss(), self.exchange.tokens)
    }

    /// What of it is distilled, with the weights of its parts.
    fn distillation(&self, distill: &DistillConfig) -> Option<Tensor> {
        let times = |loss: Tensor, weight: f64| if weight == 1.0 { loss } else { loss * weight };
        let divergence = || self.divergence(distill).map(|divergence| times(divergence, distill.logits));
        let divergence = if distill.logits > 0.0 { divergence() } else { None };
        let of_rows = |distance: &Option<Tensor>, weight: f64| {
            distance.as_ref().map(|distance| times(weighed(distance.shallow_clone(), self.exchange.rows), weight))
        };
        let hidden = of_rows(&self.hidden, distill.hidden.weight);
        let attention = of_rows(&self.attention, distill.attention.weight);
        [divergence, hidden, attention].into_iter().flatten().reduce(|sum, more| sum + more)
    }

    fn divergence(&self, distill: &DistillConfig) -> Option<Tensor> {
        let share = match distill.reduction {
            ressa_experiment::config::Reduction::Mean => self.exchange.tokens,
            ressa_experiment::config::Reduction::Sum => self.exchange.rows,
        };
        let Forced { logits, targets, mask } = self.student;
        let student = Forced {
            logits: self.compared.in_common(logits.shallow_clone()),
            targets: targets.shallow_clone(),
            mask: mask.shallow_clone(),
        };
        Some(weighed(loss::distillation(self.teacher?, &student, distill), share))
    }
}

fn weighed(loss: Tensor, share: f64) -> Tensor {
    if share == 1.0 { loss } else { loss * share }
}

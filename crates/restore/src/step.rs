//! One training step up to its gradient: forward passes, losses, and their numbers.

use ressa_experiment::{config::DistillConfig, stage::AdaptTraining};
use ressa_models::{Forced, Prompts, VisionLanguage};
use tch::{Kind, Tensor};

use crate::{RestoreError, batch::TrainingBatch, loss};

/// A loss above this has exploded: per-token losses are of the order of the logarithm of the vocabulary.
const EXPLODED: f64 = 1e6;

/// Losses of one step, before its update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLoss {
    /// Step, counted from 0.
    pub step: u32,
    /// What is minimised.
    pub total: f64,
    /// Cross entropy of the answers.
    pub questions: f64,
    /// Cross entropy of the captions.
    pub captions: f64,
    /// Contrastive loss, unweighted; 0 without one.
    pub contrastive: f64,
    /// Distillation loss, unweighted; 0 without one.
    pub distillation: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

impl StepLoss {
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

/// The teacher's logits on a batch.
pub(crate) struct Taught {
    questions: Option<Tensor>,
    captions: Option<Tensor>,
}

impl Taught {
    pub(crate) fn new(teacher: &dyn VisionLanguage, batch: &TrainingBatch) -> Self {
        let features = teacher.encode_images(&batch.pixels);
        let logits =
            |prompts: &Prompts, answers: &[Vec<u32>]| forced(teacher, &features, prompts, answers).map(|f| f.logits);
        Self {
            questions: logits(&batch.questions, &batch.answers),
            captions: logits(&batch.captions, &batch.caption_answers),
        }
    }
}

/// Teacher-forced outputs of prompts; `None` where there are none.
fn forced(model: &dyn VisionLanguage, features: &Tensor, prompts: &Prompts, answers: &[Vec<u32>]) -> Option<Forced> {
    if answers.is_empty() {
        return None;
    }
    let prefix = model.visual_prefix(features, prompts);
    Some(model.force(Some(&prefix), &prompts.language, answers))
}

/// The losses of a step, still differentiable.
pub(crate) struct Terms {
    /// What is minimised.
    pub(crate) total: Tensor,
    questions: Tensor,
    captions: Tensor,
    contrastive: Tensor,
    distillation: Tensor,
}

impl Terms {
    pub(crate) fn of(
        student: &dyn VisionLanguage,
        batch: &TrainingBatch,
        taught: Option<&(Taught, &DistillConfig)>,
        settings: &AdaptTraining,
    ) -> Self {
        let zero = || Tensor::zeros([], (Kind::Float, batch.pixels.device()));
        let features = student.encode_images(&batch.pixels);
        let questions = forced(student, &features, &batch.questions, &batch.answers);
        let captions = forced(student, &features, &batch.captions, &batch.caption_answers);
        let cross_entropy = |forced: &Option<Forced>| forced.as_ref().map_or_else(zero, Forced::loss);
        let contrastive = batch
            .retrieval
            .as_ref()
            .filter(|_| settings.contrastive > 0.0)
            .and_then(|texts| {
                let images = student.retrieval_images(&features)?;
                Some(loss::contrastive(&images, &student.retrieval_texts(texts)?))
            })
            .unwrap_or_else(zero);
        let (question_loss, caption_loss) = (cross_entropy(&questions), cross_entropy(&captions));
        let task = &question_loss + &caption_loss + &contrastive * settings.contrastive;
        let (total, distillation) = match taught {
            None => (task, zero()),
            Some((taught, distill)) => {
                let divergence = |teacher: &Option<Tensor>, student: &Option<Forced>| match (teacher, student) {
                    (Some(teacher), Some(student)) => loss::distillation(teacher, student, distill),
                    _ => zero(),
                };
                let distillation = divergence(&taught.questions, &questions) + divergence(&taught.captions, &captions);
                (task * (1.0 - distill.weight) + &distillation * distill.weight, distillation)
            }
        };
        Self { total, questions: question_loss, captions: caption_loss, contrastive, distillation }
    }

    /// The numbers of a step, its gradient norm still to come; an error where training has left the finite numbers.
    pub(crate) fn record(&self, step: u32) -> Result<StepLoss, RestoreError> {
        let value = |tensor: &Tensor| tensor.double_value(&[]);
        let total = value(&self.total);
        if !total.is_finite() || total > EXPLODED {
            return Err(RestoreError::Diverged { step, what: "loss", value: total });
        }
        Ok(StepLoss {
            step,
            total,
            questions: value(&self.questions),
            captions: value(&self.captions),
            contrastive: value(&self.contrastive),
            distillation: value(&self.distillation),
            gradient_norm: 0.0,
        })
    }
}

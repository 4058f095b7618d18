//! The training loop: plain code, resumable to the bit.
//!
//! The effective weight of every adapted layer is formed once per step and handed to a working copy of the student as its plain weight, so
//! questions, captions and the contrastive pass share one `(W + sBA)∘M` and one gradient of it.

use ressa_experiment::{config::DistillConfig, stage::AdaptTraining};
use ressa_models::{Adapter, AdapterSet, Forced, Prompts, VisionLanguage};
use ressa_runtime::optim::{AdamW, AdamWOptions, Parameter, Schedule};
use tch::{Kind, Tensor, no_grad, with_grad};

use crate::{
    RestoreError, adapters,
    batch::{BatchSource, TrainingBatch},
    checkpoint::{Checkpoints, Saved},
    loss,
};

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
    pub(crate) fn to_row(&self) -> [f64; 7] {
        let Self { step, total, questions, captions, contrastive, distillation, gradient_norm } = *self;
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

/// A finished training.
#[derive(Debug)]
pub struct Restoration {
    /// Trained adapters, without gradients.
    pub adapters: AdapterSet,
    /// One entry per step.
    pub losses: Vec<StepLoss>,
}

/// What a training is told beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct TrainingOptions<'a> {
    /// Whether updates are masked while training (SparseLoRA).
    pub masked: bool,
    /// Replicate seed: initialisation of the adapters.
    pub seed: u64,
    /// Where to keep an unfinished training; `None` starts over after an interruption.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// Trains adapters on the masked `student`, which carries them afterwards. Only adapters change.
///
/// `teacher` is the dense model, over the same weights; it is looked at only where `settings.distill` has a weight. A training that finds its
/// own checkpoint continues there and ends with the same bits as one that was never interrupted. `progress` sees every step.
pub fn train_adapters(
    student: &mut dyn VisionLanguage,
    teacher: Option<&dyn VisionLanguage>,
    settings: &AdaptTraining,
    options: TrainingOptions<'_>,
    batches: &mut dyn BatchSource,
    progress: &mut dyn FnMut(&StepLoss),
) -> Result<Restoration, RestoreError> {
    let distill = settings.distill.as_ref().filter(|d| d.weight > 0.0);
    let teacher = match (distill, teacher) {
        (None, _) => None,
        (Some(distill), Some(teacher)) => Some((teacher, distill)),
        (Some(distill), None) => return Err(RestoreError::NoTeacher(distill.weight)),
    };
    let adapters = adapters::initialise(student, settings, options.masked, options.seed)?;
    let mut parameters = trainable(&adapters);
    adapters.apply(student)?;
    let mut optimiser = AdamW::new(
        parameters
            .iter()
            .map(|p| Parameter { tensor: p.shallow_clone(), weight_decay: settings.weight_decay })
            .collect(),
        AdamWOptions::default(),
    );
    let identity = identity(settings, options, &parameters);
    let mut losses = Vec::with_capacity(settings.steps as usize);
    let saved = options.checkpoints.map(|c| c.read(&identity, parameters.len())).transpose()?.flatten();
    if let Some(saved) = saved {
        optimiser.resume(&saved.optimiser)?;
        no_grad(|| parameters.iter_mut().zip(&saved.parameters).for_each(|(to, from)| to.copy_(from)));
        losses = saved.losses;
    }
    let schedule = Schedule {
        peak: settings.learning_rate,
        warmup: settings.warmup,
        steps: settings.steps,
        final_share: settings.final_rate,
    };
    let clip = (settings.clip > 0.0).then_some(settings.clip);
    let mut working = working_copy(student)?;
    for step in losses.len() as u32..settings.steps {
        let batch = batches.batch(step).map_err(|source| RestoreError::Batch { step, source })?;
        let taught = teacher.map(|(teacher, distill)| (no_grad(|| Taught::new(teacher, &batch)), distill));
        optimiser.zero_grad();
        let mut loss = with_grad(|| -> Result<StepLoss, RestoreError> {
            hand_over(student, working.as_mut())?;
            let terms = Terms::of(working.as_ref(), &batch, taught.as_ref(), settings);
            let loss = terms.record(step)?;
            terms.total.backward();
            Ok(loss)
        })?;
        loss.gradient_norm = optimiser.step(schedule.at(step), clip);
        if !loss.gradient_norm.is_finite() {
            return Err(RestoreError::Diverged { step, what: "gradient norm", value: loss.gradient_norm });
        }
        losses.push(loss);
        progress(&loss);
        let done = step + 1;
        if let Some(checkpoints) = options.checkpoints
            && done % checkpoints.every.max(1) == 0
            && done < settings.steps
        {
            let parameters = parameters.iter().map(Tensor::shallow_clone).collect();
            let saved = Saved { parameters, optimiser: optimiser.state(), losses: losses.clone() };
            checkpoints.write(&identity, &saved)?;
        }
    }
    let adapters = finished(&adapters);
    adapters.apply(student)?;
    Ok(Restoration { adapters, losses })
}

/// The tensors that train, in layer order, now requiring gradients.
fn trainable(adapters: &AdapterSet) -> Vec<Tensor> {
    let tensors = adapters.iter().flat_map(|(_, adapter)| [&adapter.a, &adapter.b]);
    tensors.map(|tensor| tensor.set_requires_grad(true)).collect()
}

fn finished(adapters: &AdapterSet) -> AdapterSet {
    let mut set = AdapterSet::new();
    for (name, adapter) in adapters.iter() {
        let (a, b) = (adapter.a.detach(), adapter.b.detach());
        set.insert(name, Adapter { a, b, scale: adapter.scale, masked: adapter.masked });
    }
    set
}

/// What tells this training from another one that left a checkpoint.
fn identity(settings: &AdaptTraining, options: TrainingOptions<'_>, parameters: &[Tensor]) -> String {
    let shapes: Vec<Vec<i64>> = parameters.iter().map(Tensor::size).collect();
    let identity = serde_json::json!({
        "settings": settings, "masked": options.masked, "seed": options.seed, "shapes": shapes,
    });
    identity.to_string()
}

/// A copy whose weights are the student's effective ones, without masks and adapters of its own.
fn working_copy(student: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, RestoreError> {
    let mut working = student.shallow_clone();
    for ((_, from), (_, to)) in student.linears().into_iter().zip(working.linears_mut()) {
        to.set_adapter(None)?;
        to.set_mask(None)?;
        to.set_weight(no_grad(|| from.effective_weight()))?;
    }
    Ok(working)
}

/// Gives the working copy the weights that the current adapters make, with their history.
fn hand_over(student: &dyn VisionLanguage, working: &mut dyn VisionLanguage) -> Result<(), RestoreError> {
    for ((_, from), (_, to)) in student.linears().into_iter().zip(working.linears_mut()) {
        if from.adapter().is_some() {
            to.set_weight(from.effective_weight())?;
        }
    }
    Ok(())
}

/// The teacher's logits on a batch.
struct Taught {
    questions: Option<Tensor>,
    captions: Option<Tensor>,
}

impl Taught {
    fn new(teacher: &dyn VisionLanguage, batch: &TrainingBatch) -> Self {
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
struct Terms {
    total: Tensor,
    questions: Tensor,
    captions: Tensor,
    contrastive: Tensor,
    distillation: Tensor,
}

impl Terms {
    fn of(
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
    fn record(&self, step: u32) -> Result<StepLoss, RestoreError> {
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

//! The training loop: plain code, resumable to the bit.
//!
//! The effective weight of every adapted layer is formed once per step and handed to a working copy of the student as its plain weight, so
//! questions, captions and the contrastive pass share one `(W + sBA)∘M` and one gradient of it.

use ressa_experiment::stage::AdaptTraining;
use ressa_models::{Adapter, AdapterSet, VisionLanguage};
use ressa_runtime::optim::{AdamW, AdamWOptions, Parameter, Schedule};
use tch::{Tensor, no_grad, with_grad};

use crate::{
    RestoreError, adapters,
    batch::BatchSource,
    checkpoint::{Checkpoints, Saved},
    step::{StepLoss, Taught, Terms},
};

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

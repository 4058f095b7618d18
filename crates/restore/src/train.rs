//! The training loop: plain code, resumable; on a CPU to the bit.
//!
//! Where activations are kept, the effective weight of every updated layer is formed once per part of a batch and handed to a working copy
//! of the student as its plain weight, so questions, captions and the contrastive pass share one `(W + sBA)∘M` and one gradient of it. With
//! recomputation the student forms a block's weights when the block has its turn.

use std::collections::BTreeMap;

use ressa_experiment::{Tower, layout::Layout, loading::LoadingRecord, stage::AdaptTraining};
use ressa_models::{ModelError, UpdateSet, VisionLanguage};
use ressa_runtime::optim::{AdamWOptions, FlatAdamW, Schedule};
use tch::Tensor;

use crate::{
    RestoreError, adapters,
    attention::Maps,
    batch::BatchSource,
    checkpoint::{Checkpoints, Saved},
    evolve::{self, Budgets, Evolution, Evolver},
    gradient::Places,
    loading::Loader,
    penalty::{Penalty, ZeroGroups},
    perturb::Perturbation,
    states::States,
    step::{StepLoss, distills},
    stepper::{Stepper, Wanted},
    teacher::{Reads, Teacher},
    traced::Compared,
};

/// A finished training.
#[derive(Debug)]
pub struct Restoration {
    /// Trained updates, without gradients.
    pub adapters: UpdateSet,
    /// One entry per step.
    pub losses: Vec<StepLoss>,
    /// How steps were computed in the end.
    pub layout: Layout,
    /// What became of the masks, where they could change.
    pub evolution: Option<Evolution>,
    /// What became of the weights of domains, where they could change.
    pub loading: Option<LoadingRecord>,
    /// Groups that are zero, by tower and kind, where groups were penalised.
    pub groups: BTreeMap<Tower, BTreeMap<&'static str, ZeroGroups>>,
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
    /// What masks are held to where they change.
    pub budgets: Budgets<'a>,
}

/// Trains updates on the masked `student`, which carries them afterwards. Nothing else changes, but for masks and stored weights where `settings.evolve` changes masks.
///
/// `teacher` is looked at only where `settings.distill` has a weight. A training that finds its own checkpoint continues there; on a CPU it
/// ends with the same bits as one that was never interrupted. `progress` sees every step. Where memory runs out, blocks are recomputed (if
/// the settings leave that open) and then ever smaller parts of a batch are computed one after the other, which adds up to the same step.
///
/// # Errors
/// Settings that fit no layer; batches that cannot be made; a loss or gradient that left the finite numbers; a checkpoint that is another
/// training's or cannot be written.
pub fn train_adapters(
    student: &mut dyn VisionLanguage,
    teacher: Option<&dyn VisionLanguage>,
    settings: &AdaptTraining,
    options: TrainingOptions<'_>,
    batches: &mut dyn BatchSource,
    progress: &mut dyn FnMut(&StepLoss),
) -> Result<Restoration, RestoreError> {
    train_with(student, teacher.map(Teacher::new), settings, options, batches, progress)
}

/// As [`train_adapters`], with a teacher whose outputs may be known already.
///
/// # Errors
/// As [`train_adapters`].
pub fn train_with(
    student: &mut dyn VisionLanguage,
    teacher: Option<Teacher<'_>>,
    settings: &AdaptTraining,
    options: TrainingOptions<'_>,
    batches: &mut dyn BatchSource,
    progress: &mut dyn FnMut(&StepLoss),
) -> Result<Restoration, RestoreError> {
    let mut teacher = match (distills(settings), teacher) {
        (None, _) => None,
        (Some(_), Some(teacher)) => Some(teacher),
        (Some(distill), None) => return Err(RestoreError::NoTeacher(distill.weight)),
    };
    let fresh = adapters::initialise(student, settings, options.masked, options.seed)?;
    let mut compared = compared(student, teacher.as_mut(), settings, options.seed)?;
    let own = parameters(&fresh);
    let all: Vec<Tensor> = own.iter().map(Tensor::shallow_clone).chain(compared.states.parameters()).collect();
    let mut optimiser = FlatAdamW::new(&all, settings.weight_decay, AdamWOptions::default());
    let updates = with(&fresh, optimiser.parameters());
    compared.states = compared.states.with(&optimiser.parameters()[own.len()..]);
    updates.apply(student)?;
    let mut names = evolve::names(&updates);
    // What brings a teacher's width to the student's is no weight of the model.
    names.resize(all.len(), String::new());
    let places = Places::new(student, &names, optimiser.parameters());
    let mut more = More {
        evolver: Evolver::of(student, settings, options.budgets, &names, options.seed),
        perturbation: Perturbation::of(student, settings.perturb, &names, options.seed),
        penalty: Penalty::of(student, settings.penalty, &names),
        loader: Loader::of(settings, batches)?,
    };
    let identity = identity(settings, options, optimiser.parameters());
    let mut losses = Vec::with_capacity(settings.steps as usize);
    let saved = options.checkpoints.map(|c| c.read(&identity)).transpose()?.flatten();
    let mut scale = None;
    if let Some(saved) = saved {
        optimiser.resume(&saved.parameters, &saved.optimiser)?;
        let unfit = |error: ModelError| RestoreError::unfit(options.checkpoints, &error);
        more.resume(student, &saved.more, batches).map_err(unfit)?;
        scale = saved.more.get(SCALE).map(|scale| scale.double_value(&[0]));
        losses = saved.losses;
    } else if let Some(loader) = &mut more.loader {
        loader.begin(settings, batches)?;
    }
    let schedule = Schedule {
        peak: settings.learning_rate,
        warmup: settings.warmup,
        steps: settings.steps,
        final_share: settings.final_rate,
    };
    let clip = (settings.clip > 0.0).then_some(settings.clip);
    let mut stepper = Stepper::new(student, settings, &compared);
    stepper.scale = scale.unwrap_or(stepper.scale);
    let mut clock = options.checkpoints.map(Checkpoints::clock);
    for step in losses.len() as u32..settings.steps {
        if let Some(loader) = more.loader.as_mut().filter(|loader| loader.is_due(step)) {
            // Losses are those of the weights themselves, without their noise.
            updates.apply(stepper.student)?;
            loader.update(step, &mut stepper, batches)?;
        }
        let batch = batches.batch(step).map_err(|source| RestoreError::Batch { step, source })?;
        if let Some(evolver) = &mut more.evolver
            && let Some(share) = evolver.share_at(step)
        {
            // What is exchanged is decided by the weights themselves, without their noise.
            updates.apply(stepper.student)?;
            evolver.exchange(&mut stepper, &mut optimiser, (step, share), &batch, teacher.as_mut())?;
        }
        if let Some(perturbation) = &more.perturbation {
            perturbation.wear(stepper.student, &updates, step)?;
        }
        let wanted = Wanted { parameters: optimiser.parameters(), places: &places };
        let (values, gradient) = stepper.run(step, &batch, teacher.as_mut(), wanted)?;
        if let Some(perturbation) = &mut more.perturbation {
            perturbation.learn(stepper.student, &optimiser, &gradient);
        }
        let norm = optimiser.step(&gradient, schedule.at(step), clip);
        // While towers are aligned nothing holds the language model against the penalty.
        if let Some(penalty) = more.penalty.as_ref().filter(|_| step >= settings.align) {
            penalty.shrink(stepper.student, &optimiser, schedule.at(step));
        }
        // Here the host waits for the device; otherwise only where masks change and where a float16 gradient is looked at.
        let values = Tensor::cat(&[values, norm.view([1])], 0);
        let values = Vec::<f32>::try_from(&values).map_err(|e| RestoreError::Model(e.into()))?;
        let loss = StepLoss::new(step, &values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>())?;
        losses.push(loss);
        progress(&loss);
        let is_asked = ressa_runtime::is_asked_to_stop();
        if let Some(clock) = &mut clock
            && step + 1 < settings.steps
            && (is_asked || clock.is_due(step + 1))
        {
            let mut more = more.saved(stepper.student)?;
            more.insert(SCALE.to_owned(), Tensor::from_slice(&[stepper.scale as f32]));
            let saved = Saved {
                parameters: optimiser.flat().shallow_clone(),
                optimiser: optimiser.state(),
                losses: losses.clone(),
                more,
            };
            clock.write(&identity, &saved)?;
            if is_asked {
                return Err(RestoreError::GivenBack { steps: step + 1 });
            }
        }
    }
    let layout = stepper.layout;
    drop(stepper);
    let adapters = updates.detached();
    adapters.apply(student)?;
    let groups = more.penalty.map(|penalty| penalty.zeros(student, &optimiser)).unwrap_or_default();
    let evolution = more.evolver.map(|evolver| evolver.finish(student));
    let loading = more.loader.map(Loader::finish);
    Ok(Restoration { adapters, losses, layout, evolution, loading, groups })
}

/// Entry of a checkpoint for what losses are multiplied by.
const SCALE: &str = "stepper.scale";

/// What a training does beside steps of its optimiser.
struct More {
    evolver: Option<Evolver>,
    perturbation: Option<Perturbation>,
    penalty: Option<Penalty>,
    loader: Option<Loader>,
}

impl More {
    fn saved(&self, student: &dyn VisionLanguage) -> Result<BTreeMap<String, Tensor>, RestoreError> {
        let mut saved = BTreeMap::new();
        if let Some(evolver) = &self.evolver {
            saved.extend(evolver.saved(student)?);
        }
        saved.extend(self.perturbation.as_ref().map(Perturbation::saved));
        saved.extend(self.loader.iter().flat_map(Loader::saved));
        Ok(saved)
    }

    fn resume(
        &mut self,
        student: &mut dyn VisionLanguage,
        saved: &BTreeMap<String, Tensor>,
        batches: &mut dyn BatchSource,
    ) -> Result<(), ModelError> {
        if let Some(loader) = &mut self.loader {
            loader.resume(saved, batches)?;
        }
        if let Some(evolver) = &mut self.evolver {
            evolver.resume(student, saved)?;
        }
        match &mut self.perturbation {
            Some(perturbation) => perturbation.resume(saved),
            None => Ok(()),
        }
    }
}

/// What of a teacher is compared inside of the networks.
///
/// # Errors
/// A teacher whose logits lack tokens, or whose states stand for other tokens.
fn compared(
    student: &dyn VisionLanguage,
    teacher: Option<&mut Teacher<'_>>,
    settings: &AdaptTraining,
    seed: u64,
) -> Result<Compared, RestoreError> {
    let (Some(teacher), Some(distill)) = (teacher, distills(settings)) else { return Ok(Compared::default()) };
    let words = teacher.common_words(student.search_sizes().map(|sizes| sizes.words))?;
    let any_queries = student.queries().is_some() && !distill.looks_inside();
    teacher.expect(Reads { image_tokens: student.image_tokens(), any_queries })?;
    if !distill.looks_inside() {
        return Ok(Compared { words, ..Compared::default() });
    }
    let model = teacher.model()?;
    Ok(Compared {
        states: States::of(student, model, distill, seed)?,
        maps: Maps::of(student, model, settings, distill)?,
        words,
    })
}

/// Everything that trains, in the order of the weights' names.
fn parameters(updates: &UpdateSet) -> Vec<Tensor> {
    updates.iter().flat_map(|(_, update)| update.parameters()).map(|(_, tensor)| tensor.shallow_clone()).collect()
}

/// The same updates with other parameters, in the order of [`parameters`].
fn with(updates: &UpdateSet, parameters: &[Tensor]) -> UpdateSet {
    let mut rest = parameters.iter();
    let mut set = UpdateSet::new();
    for (name, update) in updates.iter() {
        let own = rest.by_ref().take(update.parameters().len()).map(Tensor::shallow_clone).collect();
        set.insert(name, update.with(own));
    }
    set
}

/// What tells this training from another one that left a checkpoint.
fn identity(settings: &AdaptTraining, options: TrainingOptions<'_>, parameters: &[Tensor]) -> String {
    let shapes: Vec<Vec<i64>> = parameters.iter().map(Tensor::size).collect();
    let mut settings = settings.without_layout();
    // Where the teacher is says nothing: the stage's key, which names the folder of checkpoints, sees what it is.
    if let Some(distill) = &mut settings.distill {
        distill.teacher = None;
    }
    let identity = serde_json::json!({
        "settings": settings, "masked": options.masked, "seed": options.seed, "shapes": shapes,
    });
    identity.to_string()
}

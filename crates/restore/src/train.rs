//! The training loop: plain code, resumable; on a CPU to the bit.
//!
//! Where activations are kept, the effective weight of every updated layer is formed once per part of a batch and handed to a working copy
//! of the student as its plain weight, so questions, captions and the contrastive pass share one `(W + sBA)∘M` and one gradient of it. With
//! recomputation the student forms a block's weights when the block has its turn.

use ressa_experiment::{layout::Layout, stage::AdaptTraining};
use ressa_models::{Form, Update, UpdateSet, VisionLanguage};
use ressa_runtime::optim::{AdamWOptions, FlatAdamW, Schedule};
use tch::{Tensor, no_grad};

use crate::{
    RestoreError, adapters,
    batch::{BatchSource, TrainingBatch, features},
    checkpoint::{Checkpoints, Saved},
    gradient::{FlatGradient, Places},
    micro::{MicroBatch, cut},
    pass::{Contrast, Pass, contrast_of},
    states::States,
    step::{StepLoss, distills},
    teacher::{Teacher, TeacherOutputs},
    words::Words,
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

/// Trains updates on the masked `student`, which carries them afterwards. Nothing else changes.
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
    let states = compared(student, teacher.as_ref(), settings, options.seed)?;
    let own = parameters(&fresh);
    let all: Vec<Tensor> = own.iter().map(Tensor::shallow_clone).chain(states.parameters()).collect();
    let mut optimiser = FlatAdamW::new(&all, settings.weight_decay, AdamWOptions::default());
    let updates = with(&fresh, optimiser.parameters());
    let states = states.with(&optimiser.parameters()[own.len()..]);
    updates.apply(student)?;
    let named = |(name, update): (&str, &dyn Update)| vec![name.to_owned(); update.parameters().len()];
    let mut names: Vec<String> = updates.iter().flat_map(named).collect();
    // What brings a teacher's width to the student's is no weight of the model.
    names.resize(all.len(), String::new());
    let places = Places::new(student, &names, optimiser.parameters());
    let identity = identity(settings, options, optimiser.parameters());
    let mut losses = Vec::with_capacity(settings.steps as usize);
    let saved = options.checkpoints.map(|c| c.read(&identity)).transpose()?.flatten();
    if let Some(saved) = saved {
        optimiser.resume(&saved.parameters, &saved.optimiser)?;
        losses = saved.losses;
    }
    let schedule = Schedule {
        peak: settings.learning_rate,
        warmup: settings.warmup,
        steps: settings.steps,
        final_share: settings.final_rate,
    };
    let clip = (settings.clip > 0.0).then_some(settings.clip);
    let layout = Layout::of(settings);
    let is_half = student.weights().iter().any(|weight| weight.kind() == tch::Kind::Half);
    let scale = if is_half { HALF_SCALE } else { 1.0 };
    let mut stepper = Stepper { student, working: None, settings, states: &states, places: &places, layout, scale };
    let mut clock = options.checkpoints.map(Checkpoints::clock);
    for step in losses.len() as u32..settings.steps {
        let batch = batches.batch(step).map_err(|source| RestoreError::Batch { step, source })?;
        let (values, gradient) = stepper.run(step, &batch, teacher.as_mut(), &optimiser)?;
        let norm = optimiser.step(&gradient, schedule.at(step), clip);
        // The one place where the host waits for the device.
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
            let saved = Saved {
                parameters: optimiser.flat().shallow_clone(),
                optimiser: optimiser.state(),
                losses: losses.clone(),
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
    Ok(Restoration { adapters, losses, layout })
}

/// What losses are multiplied by before they are differentiated where weights are float16: gradients of activations are small, that of hidden states
/// smallest of all, and what is below 6e-8 is nothing there.
pub(crate) const HALF_SCALE: f64 = 1024.0;
/// By how much less they are multiplied where a gradient leaves float16's range.
const BACK_OFF: f64 = 32.0;

/// What computes a step's losses and gradient.
struct Stepper<'a> {
    student: &'a mut dyn VisionLanguage,
    /// A copy whose weights are the student's effective ones; made when activations are kept.
    working: Option<Box<dyn VisionLanguage>>,
    settings: &'a AdaptTraining,
    states: &'a States,
    places: &'a Places,
    layout: Layout,
    /// What losses are multiplied by while they are differentiated.
    scale: f64,
}

impl Stepper<'_> {
    /// Losses `[total, questions, captions, contrastive, distillation]` and the flat gradient of a step, which is finite if it can be.
    fn run(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        mut teacher: Option<&mut Teacher<'_>>,
        optimiser: &FlatAdamW,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        loop {
            let (values, gradient) = self.fitting(step, batch, teacher.as_deref_mut(), optimiser)?;
            if self.scale == 1.0 || ressa_runtime::is_finite(&gradient) {
                return Ok((values, gradient));
            }
            self.scale = (self.scale / BACK_OFF).max(1.0);
        }
    }

    /// With a smaller layout from the step on at which memory runs out.
    fn fitting(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        mut teacher: Option<&mut Teacher<'_>>,
        optimiser: &FlatAdamW,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        while let Some(smaller) = self.layout.smaller(self.settings) {
            let attempt = || self.attempt(step, batch, teacher.as_deref_mut(), optimiser);
            if let Some(done) = ressa_runtime::unless_out_of_memory(attempt) {
                return done;
            }
            self.layout = smaller;
            self.working = None;
        }
        self.attempt(step, batch, teacher, optimiser)
    }

    fn attempt(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        teacher: Option<&mut Teacher<'_>>,
        optimiser: &FlatAdamW,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        let parts = cut(batch, i64::from(self.layout.micro_batch));
        let mut gradient = FlatGradient::new(optimiser.parameters(), self.places, optimiser.no_gradient());
        let contrasts = match step < self.settings.align {
            true => parts.iter().map(|_| Contrast::None).collect(),
            false => self.contrasts(batch, &parts),
        };
        let words = (step < self.settings.align).then(|| Words::of(self.student, batch)).transpose()?;
        // A teacher says nothing about steps without a language model.
        let mut teacher = teacher.filter(|_| words.is_none());
        if let Some(teacher) = teacher.as_deref_mut() {
            teacher.begin(step);
        }
        let mut values: Option<Tensor> = None;
        for (part, contrast) in parts.iter().zip(contrasts) {
            let taught = match (teacher.as_deref_mut(), distills(self.settings)) {
                (Some(teacher), Some(distill)) => no_grad(|| teacher.taught(part, distill, self.states)),
                _ => TeacherOutputs::default(),
            };
            let terms = if let Some(words) = &words {
                self.form_weights()?;
                let working = self.working.as_deref().expect("made by form_weights");
                self.pass(working, part, &taught, contrast).aligning(words, &mut gradient)
            } else if self.layout.recompute {
                self.pass(self.student, part, &taught, contrast).recomputing(&mut gradient)
            } else {
                self.form_weights()?;
                let working = self.working.as_deref().expect("made by form_weights");
                self.pass(working, part, &taught, contrast).at_once(&mut gradient)
            };
            let found = terms.values();
            values = Some(match values {
                Some(values) => values + found,
                None => found,
            });
        }
        if let Some(teacher) = teacher {
            teacher.end(step);
        }
        let values = values.unwrap_or_else(|| Tensor::zeros([5], (tch::Kind::Float, batch.pixels.device())));
        let gradient = gradient.into_flat();
        Ok((values, if self.scale == 1.0 { gradient } else { gradient / self.scale }))
    }

    fn pass<'p>(
        &'p self,
        student: &'p dyn VisionLanguage,
        batch: &'p MicroBatch,
        taught: &'p TeacherOutputs,
        contrast: Contrast<'p>,
    ) -> Pass<'p> {
        Pass { student, batch, taught, states: self.states, contrast, settings: self.settings, scale: self.scale }
    }

    /// What each part contributes to the in-batch loss. With several parts, embeddings of all are computed first without a gradient: Gao et
    /// al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983.
    fn contrasts<'b>(&self, batch: &'b TrainingBatch, parts: &[MicroBatch]) -> Vec<Contrast<'b>> {
        let none = || parts.iter().map(|_| Contrast::None).collect();
        let Some(texts) = batch.retrieval.as_ref().filter(|_| self.settings.contrastive > 0.0) else { return none() };
        if parts.len() == 1 {
            return vec![Contrast::Whole(texts)];
        }
        let student: &dyn VisionLanguage = self.student;
        let texts_of = |part: &MicroBatch| texts.narrow(part.from, part.pixels.size()[0]);
        let embedded: Option<Vec<(Tensor, Tensor)>> = no_grad(|| {
            let embed = |part: &MicroBatch| {
                let features = features(student, &part.pixels);
                Some((student.retrieval_images(&features)?, student.retrieval_texts(&texts_of(part))?))
            };
            parts.iter().map(embed).collect()
        });
        let Some(embedded) = embedded else { return none() };
        let (images, captions): (Vec<Tensor>, Vec<Tensor>) = embedded.into_iter().unzip();
        let (value, of_images, of_texts) = contrast_of(&images, &captions, self.settings.hardness);
        let contrast = |part: &MicroBatch| {
            let (from, count) = (part.from, part.pixels.size()[0]);
            Contrast::Part {
                texts: texts_of(part),
                images_gradient: of_images.narrow(0, from, count),
                texts_gradient: of_texts.narrow(0, from, count),
                value: (from == 0).then(|| value.shallow_clone()),
            }
        };
        parts.iter().map(contrast).collect()
    }

    /// Gives the working copy the weights that the current updates make, keeping the autograd graph.
    fn form_weights(&mut self) -> Result<(), RestoreError> {
        if self.working.is_none() {
            let mut working = self.student.shallow_clone();
            for weight in working.weights_mut() {
                if weight.form() == Form::Masked {
                    weight.bake()?;
                }
                weight.set_keep(None)?;
                weight.set_update(None)?;
            }
            self.working = Some(working);
        }
        let working = self.working.as_deref_mut().expect("just made");
        for (from, to) in self.student.weights().into_iter().zip(working.weights_mut()) {
            if from.form() == Form::Updated {
                to.set_base(tch::with_grad(|| from.effective(from.kind())))?;
            }
        }
        Ok(())
    }
}

/// What of a teacher's hidden states is compared.
///
/// # Errors
/// A teacher that speaks of other words, or whose states stand for other tokens.
fn compared(
    student: &dyn VisionLanguage,
    teacher: Option<&Teacher<'_>>,
    settings: &AdaptTraining,
    seed: u64,
) -> Result<States, RestoreError> {
    let (Some(teacher), Some(distill)) = (teacher, distills(settings)) else { return Ok(States::default()) };
    let words = |model: &dyn VisionLanguage| model.search_sizes().map(|sizes| sizes.words);
    let (found, wanted) = (words(teacher.model()), words(student));
    if found != wanted {
        let [found, wanted] = [found, wanted].map(Option::unwrap_or_default);
        return Err(RestoreError::OtherWords { found, wanted });
    }
    if student.image_tokens() != teacher.model().image_tokens() {
        return Err(RestoreError::OtherReader);
    }
    States::of(student, teacher.model(), distill, seed)
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

//! What computes the losses and the gradient of a step, in the layout that memory allows.

use std::collections::BTreeMap;

use ressa_experiment::{layout::Layout, stage::AdaptTraining};
use ressa_models::{Form, VisionLanguage};
use tch::{Kind, Tensor, no_grad};

use crate::{
    RestoreError,
    batch::{TrainingBatch, features},
    gradient::{FlatGradient, Places},
    micro::{MicroBatch, cut},
    pass::{Contrast, Pass, contrast_of},
    probe::Probed,
    step::distills,
    teacher::{Teacher, TeacherOutputs},
    traced::Compared,
    words::Words,
};

/// What losses are multiplied by before they are differentiated where weights are float16: gradients of activations are small, that of hidden states
/// smallest of all, and what is below 6e-8 is nothing there.
pub(crate) const HALF_SCALE: f64 = 1024.0;
/// By how much less they are multiplied where a gradient leaves float16's range.
const BACK_OFF: f64 = 32.0;

/// What computes a step's losses and gradient.
pub(crate) struct Stepper<'a> {
    pub student: &'a mut dyn VisionLanguage,
    /// A copy whose weights are the student's effective ones; made when activations are kept.
    working: Option<Box<dyn VisionLanguage>>,
    settings: &'a AdaptTraining,
    compared: &'a Compared,
    /// How steps are computed now.
    pub layout: Layout,
    /// What losses are multiplied by while they are differentiated.
    pub scale: f64,
}

/// Parameters whose gradient is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// Leaves, in the order of their gradients.
    pub parameters: &'w [Tensor],
    /// Where they belong.
    pub places: &'w Places,
}

impl<'a> Stepper<'a> {
    pub fn new(student: &'a mut dyn VisionLanguage, settings: &'a AdaptTraining, compared: &'a Compared) -> Self {
        let is_half = student.weights().iter().any(|weight| weight.kind() == Kind::Half);
        let scale = if is_half { HALF_SCALE } else { 1.0 };
        Self { student, working: None, settings, compared, layout: Layout::of(settings), scale }
    }

    /// Losses `[total, questions, captions, contrastive, distillation]` and the flat gradient of a step, which is finite if it can be.
    pub fn run(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        mut teacher: Option<&mut Teacher<'_>>,
        wanted: Wanted<'_>,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        loop {
            let (values, gradient) = self.fitting(step, batch, teacher.as_deref_mut(), wanted)?;
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
        wanted: Wanted<'_>,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        while let Some(smaller) = self.layout.smaller(self.settings) {
            let attempt = || self.attempt(step, batch, teacher.as_deref_mut(), wanted);
            if let Some(done) = ressa_runtime::unless_out_of_memory(attempt) {
                return done;
            }
            self.layout = smaller;
            self.working = None;
        }
        self.attempt(step, batch, teacher, wanted)
    }

    /// What `compute` makes of the student, with a smaller layout from then on where memory runs out.
    ///
    /// # Errors
    /// Those of `compute`.
    pub fn within_memory<T>(
        &mut self,
        mut compute: impl FnMut(&dyn VisionLanguage, Layout) -> Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        while let Some(smaller) = self.layout.smaller(self.settings) {
            let (student, layout) = (&*self.student, self.layout);
            if let Some(done) = ressa_runtime::unless_out_of_memory(|| compute(student, layout)) {
                return done;
            }
            self.layout = smaller;
            self.working = None;
        }
        compute(self.student, self.layout)
    }

    /// The gradients of a batch's loss with respect to the effective weights of some layers, pruned ones among them, f32 `[out, in]` in their order.
    ///
    /// # Errors
    /// As a step.
    pub fn dense_gradients(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        teacher: Option<&mut Teacher<'_>>,
        layers: &[String],
    ) -> Result<Vec<Tensor>, RestoreError> {
        let mut probes: BTreeMap<String, Tensor> = BTreeMap::new();
        let mut plain = Vec::new();
        for weight in self.student.weights_mut() {
            let key = weight.key().to_owned();
            if let (true, Some(update)) = (layers.contains(&key), weight.update()) {
                let probed = Probed::new(update, &weight.base().size(), weight.device());
                probes.insert(key.clone(), probed.probe().shallow_clone());
                plain.push((key, update.shallow_clone()));
                weight.set_update(Some(Box::new(probed)))?;
            }
        }
        let parameters: Vec<Tensor> =
            layers.iter().filter_map(|name| Some(probes.get(name)?.shallow_clone())).collect();
        let places = Places::new(self.student, layers, &parameters);
        let found = self.run(step, batch, teacher, Wanted { parameters: &parameters, places: &places });
        let mut plain: BTreeMap<String, _> = plain.into_iter().collect();
        for weight in self.student.weights_mut() {
            if let Some(update) = plain.remove(weight.key()) {
                weight.set_update(Some(update))?;
            }
        }
        let (_, flat) = found?;
        let mut from = 0;
        let gradient = |parameter: &Tensor| {
            from += parameter.numel() as i64;
            flat.narrow(0, from - parameter.numel() as i64, parameter.numel() as i64).view_as(parameter)
        };
        Ok(parameters.iter().map(gradient).collect())
    }

    fn attempt(
        &mut self,
        step: u32,
        batch: &TrainingBatch,
        teacher: Option<&mut Teacher<'_>>,
        wanted: Wanted<'_>,
    ) -> Result<(Tensor, Tensor), RestoreError> {
        let parts = cut(batch, i64::from(self.layout.micro_batch));
        let mut gradient = FlatGradient::new(wanted.parameters, wanted.places, wanted.zeros());
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
                (Some(teacher), Some(distill)) => no_grad(|| teacher.taught(part, distill, self.compared))?,
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
        let values = values.unwrap_or_else(|| Tensor::zeros([5], (Kind::Float, batch.pixels.device())));
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
        Pass { student, batch, taught, compared: self.compared, contrast, settings: self.settings, scale: self.scale }
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

impl Wanted<'_> {
    /// A gradient of zeros, f32, flat.
    fn zeros(&self) -> Tensor {
        let device = self.parameters.first().map_or(tch::Device::Cpu, Tensor::device);
        let elements: i64 = self.parameters.iter().map(|parameter| parameter.numel() as i64).sum();
        Tensor::zeros([elements], (Kind::Float, device))
    }
}

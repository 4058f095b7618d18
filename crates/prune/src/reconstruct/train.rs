//! The training of one window.

use std::collections::HashMap;

use rand::seq::SliceRandom;
use ressa_models::{Flow, KeepMask, Update, VisionLanguage, Weight};
use ressa_runtime::{
    is_asked_to_stop,
    optim::{AdamWOptions, FlatAdamW, LinearSchedule},
    stream,
};
use tch::{Kind, Tensor, with_grad};

use super::{ReconstructRequest, window::Span};
use crate::{error::PruneError, refine::Change};

/// A trained window.
#[derive(Debug)]
pub(super) struct Trained {
    /// New values by the names of their weights; nothing where training did not help.
    pub weights: Vec<(String, Tensor)>,
    /// The error before and after.
    pub error: Change,
    /// Optimiser steps.
    pub steps: u32,
}

/// What a window is trained on: activations that enter, and those that are to leave.
pub(super) struct Lesson<'a> {
    pub span: &'a Span,
    pub inputs: &'a [Flow],
    pub targets: &'a [Flow],
    /// Samples of each.
    pub rows: &'a [i64],
}

/// Trains a window of `student`, which carries the new weights afterwards; masks stay. `None` where nothing of it trains.
///
/// # Errors
/// When the process was asked to stop: the student is of no more use then.
pub(super) fn train(
    student: &mut dyn VisionLanguage,
    request: &ReconstructRequest<'_>,
    lesson: &Lesson<'_>,
) -> Result<Option<Trained>, PruneError> {
    let mut members = Members::of(student, request, lesson.span);
    let Some(output) = members.keep_read(student, request, lesson)? else { return Ok(None) };
    let before = error(student, request, lesson, output);
    if before == 0.0 {
        // What leaves is what is to leave: nothing in front of it or in it has changed.
        return Ok(Some(Trained { weights: Vec::new(), error: Change { before, after: before }, steps: 0 }));
    }
    let mut optimiser = FlatAdamW::new(&members.parameters(), 0.0, AdamWOptions::default());
    members.adopt(optimiser.parameters());
    let batches = batches(request, lesson);
    let steps = batches.len() as u32;
    let warmup = (request.training.warmup * f64::from(steps)).ceil() as u32;
    let schedule = LinearSchedule { peak: request.training.learning_rate, warmup, steps };
    for (step, batch) in batches.iter().enumerate() {
        if is_asked_to_stop() {
            return Err(PruneError::GivenBack);
        }
        let gradient = with_grad(|| -> Result<Tensor, PruneError> {
            members.lay(student)?;
            Ok(gradient(student, request, lesson, output, batch, optimiser.parameters()))
        })?;
        // A norm that is not finite shows in the error afterwards.
        let _ = optimiser.step(&gradient, schedule.at(step as u32), None);
    }
    let weights = members.settle(student)?;
    let after = error(student, request, lesson, output);
    if after < before {
        return Ok(Some(Trained { weights, error: Change { before, after }, steps }));
    }
    members.give_back(student)?;
    Ok(Some(Trained { weights: Vec::new(), error: Change { before, after: before }, steps }))
}

/// Which activations leave a window that something in it can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// The hidden states.
    Hidden,
    /// What goes along with them from then on, where they begin anew.
    Companion,
}

impl Output {
    /// Of what a window gives; `None` where it depends on nothing that trains.
    fn trained(out: &Flow) -> Option<Self> {
        if out.hidden.requires_grad() {
            return Some(Output::Hidden);
        }
        out.carried().filter(|companion| companion.requires_grad()).map(|_| Output::Companion)
    }

    /// In f32.
    fn of(self, out: &Flow) -> Tensor {
        match self {
            Output::Hidden => &out.hidden,
            Output::Companion => out.carried().unwrap_or(&out.hidden),
        }
        .to_kind(Kind::Float)
    }
}

/// A weight that trains.
struct Member {
    key: String,
    base: Tensor,
    keep: Option<KeepMask>,
    /// Type of the computation.
    kind: Kind,
    update: Box<dyn Update>,
}

impl Member {
    fn formed(&self, kind: Kind) -> Tensor {
        self.update.form(&self.base, self.keep.as_ref(), kind)
    }
}

/// The weights of a window that train.
struct Members(Vec<Member>);

impl Members {
    fn of(student: &dyn VisionLanguage, request: &ReconstructRequest<'_>, span: &Span) -> Self {
        let member = |weight: &Weight| {
            Some(Member {
                key: weight.key().to_owned(),
                base: weight.base().shallow_clone(),
                keep: weight.keep().map(KeepMask::shallow_clone),
                kind: weight.kind(),
                update: (request.starts)(weight)?,
            })
        };
        Self(span.weights(student, request.tower).into_iter().filter_map(member).collect())
    }

    /// Drops those that the window does not read, which is a matter of the architecture: the gradient of the first sample shows it. Answers with what they change;
    /// `None` where that is nothing.
    fn keep_read(
        &mut self,
        student: &mut dyn VisionLanguage,
        request: &ReconstructRequest<'_>,
        lesson: &Lesson<'_>,
    ) -> Result<Option<Output>, PruneError> {
        let Some(first) = lesson.inputs.first() else { return Ok(None) };
        let found = with_grad(|| -> Result<_, PruneError> {
            let leaves: Vec<Tensor> =
                self.parameters().iter().map(|parameter| parameter.detach().set_requires_grad(true)).collect();
            self.adopt(&leaves);
            self.lay(student)?;
            let out = lesson.span.run(student, request.tower, first);
            let Some(output) = Output::trained(&out) else { return Ok(None) };
            let gradients = Tensor::run_backward(&[output.of(&out).sum(Kind::Float)], &leaves, false, false);
            Ok(Some((output, gradients)))
        })?;
        self.give_back(student)?;
        let Some((output, gradients)) = found else { return Ok(None) };
        let mut gradients = gradients.into_iter();
        self.0.retain(|member| {
            let own = gradients.by_ref().take(member.update.parameters().len());
            // Every one is taken out, whatever the first says.
            own.fold(false, |read, gradient| read | gradient.defined())
        });
        Ok(Some(output))
    }

    /// What trains, in order.
    fn parameters(&self) -> Vec<Tensor> {
        let of = |member: &Member| -> Vec<Tensor> {
            member.update.parameters().into_iter().map(|(_, parameter)| parameter.shallow_clone()).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// Takes other tensors for what trains.
    fn adopt(&mut self, parameters: &[Tensor]) {
        let mut rest = parameters.iter();
        for member in &mut self.0 {
            let own = rest.by_ref().take(member.update.parameters().len()).map(Tensor::shallow_clone).collect();
            member.update = member.update.with(own);
        }
    }

    /// Gives the student what the updates make of the weights, keeping the autograd graph: formed once, however many samples follow.
    fn lay(&self, student: &mut dyn VisionLanguage) -> Result<(), PruneError> {
        let formed: Vec<Tensor> = self.0.iter().map(|member| member.formed(member.kind)).collect();
        self.put(student, &formed, false)
    }

    /// Gives the student the trained values, in the type of the old ones, and answers with them.
    fn settle(&self, student: &mut dyn VisionLanguage) -> Result<Vec<(String, Tensor)>, PruneError> {
        let value = |member: &Member| member.formed(Kind::Float).to_kind(member.base.kind()).detach();
        let values: Vec<Tensor> = self.0.iter().map(value).collect();
        self.put(student, &values, true)?;
        Ok(self.0.iter().map(|member| member.key.clone()).zip(values).collect())
    }

    /// Gives the student its old weights.
    fn give_back(&self, student: &mut dyn VisionLanguage) -> Result<(), PruneError> {
        let bases: Vec<Tensor> = self.0.iter().map(|member| member.base.shallow_clone()).collect();
        self.put(student, &bases, true)
    }

    fn put(&self, student: &mut dyn VisionLanguage, values: &[Tensor], masked: bool) -> Result<(), PruneError> {
        let by_key: HashMap<&str, usize> =
            self.0.iter().enumerate().map(|(at, member)| (member.key.as_str(), at)).collect();
        for weight in student.weights_mut() {
            let Some(&at) = by_key.get(weight.key()) else { continue };
            let keep = self.0[at].keep.as_ref().filter(|_| masked).map(KeepMask::shallow_clone);
            weight.set_base(values[at].shallow_clone())?;
            weight.set_packed(keep)?;
        }
        Ok(())
    }
}

/// The samples of every step.
fn batches(request: &ReconstructRequest<'_>, lesson: &Lesson<'_>) -> Vec<Vec<usize>> {
    let (tower, training) = (request.tower, request.training);
    let name = lesson.span.name(tower);
    let most = i64::from(training.batch);
    let mut batches = Vec::new();
    for pass in 0..training.passes {
        let mut order: Vec<usize> = (0..lesson.inputs.len()).collect();
        order.shuffle(&mut stream(request.seed, &format!("reconstruct {name} pass {pass}")));
        let (mut batch, mut rows) = (Vec::new(), 0);
        for at in order {
            if !batch.is_empty() && rows + lesson.rows[at] > most {
                batches.push(std::mem::take(&mut batch));
                rows = 0;
            }
            batch.push(at);
            rows += lesson.rows[at];
        }
        batches.push(batch);
    }
    batches
}

/// The flat gradient of a step. The loss is summed over elements and its gradient divided by their number, so that half precision does not lose small ones.
fn gradient(
    student: &dyn VisionLanguage,
    request: &ReconstructRequest<'_>,
    lesson: &Lesson<'_>,
    output: Output,
    batch: &[usize],
    parameters: &[Tensor],
) -> Tensor {
    let mut total: Option<Tensor> = None;
    let mut elements = 0;
    for &at in batch {
        let out = output.of(&lesson.span.run(student, request.tower, &lesson.inputs[at]));
        let target = output.of(&lesson.targets[at]);
        elements += out.numel();
        let mut loss = (&out - &target).square().sum(Kind::Float);
        if request.training.cosine > 0.0 {
            // The mean over tokens, on the scale of a sum over elements.
            let width = out.size().last().copied().unwrap_or(1) as f64;
            let cosine = Tensor::cosine_similarity(&out, &target, -1, 1e-8).sum(Kind::Float);
            loss -= cosine * (width * request.training.cosine);
        }
        total = Some(match total {
            Some(total) => total + loss,
            None => loss,
        });
    }
    let total = total.expect("a step has samples");
    let found = Tensor::run_backward(&[total], parameters, false, false);
    let flat = |(gradient, parameter): (&Tensor, &Tensor)| match gradient.defined() {
        true => gradient.reshape([-1]),
        false => parameter.detach().zeros_like().reshape([-1]),
    };
    let rows: Vec<Tensor> = found.iter().zip(parameters).map(flat).collect();
    Tensor::cat(&rows, 0).detach() / elements as f64
}

/// The squared error over all samples, relative to what is to be put out; 0 where there is nothing to put out. Summed over tokens on the host, so that threads change nothing.
fn error(student: &dyn VisionLanguage, request: &ReconstructRequest<'_>, lesson: &Lesson<'_>, output: Output) -> f64 {
    let by_token = |x: &Tensor| x.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Double).reshape([-1]);
    let (mut lost, mut all) = (Vec::new(), Vec::new());
    for (input, target) in lesson.inputs.iter().zip(lesson.targets) {
        let target = output.of(target);
        let out = output.of(&lesson.span.run(student, request.tower, input));
        lost.push(by_token(&(&out - &target)));
        all.push(by_token(&target));
    }
    let sum = |parts: &[Tensor]| {
        let tokens = Tensor::cat(parts, 0).to_device(tch::Device::Cpu);
        Vec::<f64>::try_from(&tokens).unwrap_or_default().iter().sum::<f64>()
    };
    let all = sum(&all);
    if all > 0.0 { sum(&lost) / all } else { 0.0 }
}

//! The walk of a reconstruction: one window after the other, activations of all samples between them.

use ressa_experiment::reconstruct::{WindowInputs, WindowTargets};
use ressa_models::{Flow, Sample, Tower, VisionLanguage, WeightSet};
use tch::no_grad;

use super::{
    ReconstructRequest, TowerReconstruction, saved,
    train::{Lesson, Trained, train},
    window::{Span, Station, stations},
};
use crate::{
    error::PruneError,
    walk::{Blocks, Flows, InMemory, Listed, Shown, Together, Walk},
};

/// Reconstructs a tower of `student`, which carries masks, and the new weights afterwards. `dense` says what windows are to put out; it has the same blocks. `progress` gets
/// the share done and what is going on.
///
/// Held beside both models are, for all samples, what enters a window and what is to leave it. A reconstruction that finds finished windows of its own goes on behind
/// them, and on a CPU ends with the same bits.
///
/// # Errors
/// No samples; a scratch folder that cannot be written; a stop that was asked for.
pub fn reconstruct_tower(
    student: &mut dyn VisionLanguage,
    dense: &dyn VisionLanguage,
    request: &ReconstructRequest<'_>,
    samples: &[Sample],
    progress: &mut dyn FnMut(f64, &str),
) -> Result<TowerReconstruction, PruneError> {
    let ReconstructRequest { tower, training, scratch, .. } = *request;
    let mut found = TowerReconstruction::default();
    no_grad(|| {
        let mut entering = Entering::new(student, dense, request, samples)?;
        let first = entering.inputs.first().ok_or(PruneError::NothingToReconstruct { tower })?;
        let stations = stations(dense, tower, training.window, first);
        let all = stations.iter().map(|station| station.windows.len()).sum::<usize>();
        let mut number = 0;
        for Station { span, windows } in &stations {
            let mut targets = None;
            for window in windows {
                let kept = scratch.and_then(|folder| saved::read(folder, number));
                let trained = match kept {
                    Some(trained) => Some(resumed(student, trained)?),
                    None => {
                        let trained = entering.train(student, dense, request, (span, window), &mut targets)?;
                        if let (Some(folder), Some(trained)) = (scratch, &trained) {
                            saved::write(folder, number, trained)?;
                        }
                        trained
                    }
                };
                number += 1;
                let name = window.name(tower);
                if let Some(Trained { weights, error, steps }) = trained {
                    let message = format!("{name}: error {:.2e} to {:.2e}", error.before, error.after);
                    progress(number as f64 / all as f64, &message);
                    found.errors.insert(name, error);
                    found.steps += u64::from(steps);
                    weights.into_iter().for_each(|(key, weight)| found.weights.insert(key, weight));
                }
            }
            entering.advance((student, dense), tower, span, targets);
        }
        Ok(found)
    })
}

/// Gives the student the weights of a window that was finished before.
fn resumed(student: &mut dyn VisionLanguage, trained: Trained) -> Result<Trained, PruneError> {
    let mut weights = WeightSet::new();
    trained.weights.iter().for_each(|(key, weight)| weights.insert(key.clone(), weight.shallow_clone()));
    weights.apply(student)?;
    Ok(trained)
}

/// Activations at the entry of a window, of all samples.
struct Entering {
    /// What enters the window that is trained.
    inputs: Vec<Flow>,
    /// What enters it in the dense model, where its outputs are the targets and `inputs` are others.
    dense: Option<Vec<Flow>>,
    /// Samples of each.
    rows: Vec<i64>,
    sees_changes: bool,
}

impl Entering {
    fn new(
        student: &dyn VisionLanguage,
        dense: &dyn VisionLanguage,
        request: &ReconstructRequest<'_>,
        samples: &[Sample],
    ) -> Result<Self, PruneError> {
        let training = request.training;
        let sees_changes = training.inputs == WindowInputs::Changed;
        let apart = sees_changes && training.targets == WindowTargets::Dense;
        let enter = |model| enter(model, request.tower, samples, training.batch as usize);
        let inputs = enter(if sees_changes { student } else { dense })?;
        let dense = apart.then(|| enter(dense)).transpose()?;
        let rows = inputs.iter().map(|flow| flow.hidden.size()[0]).collect();
        Ok(Self { inputs, dense, rows, sees_changes })
    }

    /// Trains a window of a stretch. `targets` holds what is to leave the stretch, once it is known.
    fn train(
        &self,
        student: &mut dyn VisionLanguage,
        dense: &dyn VisionLanguage,
        request: &ReconstructRequest<'_>,
        (stretch, window): (&Span, &Span),
        targets: &mut Option<Vec<Flow>>,
    ) -> Result<Option<Trained>, PruneError> {
        let tower = request.tower;
        let seen: &dyn VisionLanguage = if self.sees_changes { student } else { dense };
        let Some(inputs) = window.inputs(seen, tower, &self.inputs) else { return Ok(None) };
        let run = |flow: &Flow| window.run(dense, tower, flow);
        let wanted = || match &self.dense {
            None => Some(inputs.iter().map(run).collect()),
            Some(flows) => Some(window.inputs(dense, tower, flows)?.iter().map(run).collect()),
        };
        let (inputs, rows) = (&inputs, &self.rows);
        if window != stretch {
            let Some(targets) = wanted() else { return Ok(None) };
            let targets: Vec<Flow> = targets;
            return train(student, request, &Lesson { span: window, inputs, targets: &targets, rows });
        }
        if targets.is_none() {
            *targets = wanted();
        }
        let Some(targets) = targets.as_deref() else { return Ok(None) };
        train(student, request, &Lesson { span: window, inputs, targets, rows })
    }

    /// Moves on behind a stretch, of which `targets` are what the dense model makes of what it was given, where that is known.
    fn advance(
        &mut self,
        (student, dense): (&dyn VisionLanguage, &dyn VisionLanguage),
        tower: Tower,
        stretch: &Span,
        targets: Option<Vec<Flow>>,
    ) {
        let run = |model: &dyn VisionLanguage, flows: &[Flow]| -> Vec<Flow> {
            flows.iter().map(|flow| stretch.run(model, tower, flow)).collect()
        };
        if !self.sees_changes {
            self.inputs = targets.unwrap_or_else(|| run(dense, &self.inputs));
            return;
        }
        self.dense = self.dense.take().map(|flows| targets.unwrap_or_else(|| run(dense, &flows)));
        self.inputs = run(student, &self.inputs);
    }
}

/// What enters a tower, on the device of the model.
fn enter(model: &dyn VisionLanguage, tower: Tower, samples: &[Sample], batch: usize) -> Result<Vec<Flow>, PruneError> {
    let blocks = Shown(model);
    let device = blocks.device();
    let mut walk = Walk::new(blocks, InMemory::new(device));
    walk.arrive_in(tower, &Listed::new(samples), Together::Batches(batch))?;
    (0..walk.flows.len()).map(|at| walk.flows.get(at)).collect()
}

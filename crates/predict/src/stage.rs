//! What one stage takes on a card.

use std::collections::BTreeSet;

use ressa_experiment::{Asks, Stage, Tower, job::Compute, loading::domains, stage::Inputs};
use serde::Serialize;

use crate::{
    calibration::Calibrated,
    card::Card,
    evaluation::Evaluated,
    model::{Layer, Model},
    program::{device, host},
    reconstruction::Reconstruction,
    shared::Known,
    training::{Training, largest_block},
    work::{Machine, Work},
};

/// What a stage works on.
pub(crate) struct Subject<'a> {
    pub model: &'a Model,
    pub machine: Machine<'a>,
    /// Towers with masks.
    pub pruned: BTreeSet<Tower>,
    /// Whether an earlier restoration gave it weights that are not the dense model's.
    pub merged: bool,
}

impl Subject<'_> {
    /// Bytes of the weights in the type of the computation.
    pub fn weights_bytes(&self) -> f64 {
        self.model.parameters * self.machine.bytes()
    }

    fn pruned_weights(&self) -> f64 {
        self.pruned.iter().map(|tower| self.model.weights(*tower)).sum()
    }

    /// Bytes of packed masks.
    pub fn masks_bytes(&self) -> f64 {
        self.pruned_weights() / 8.0
    }

    /// Bytes of the masked copies of pruned weights.
    pub fn masked_bytes(&self) -> f64 {
        self.pruned_weights() * self.machine.bytes()
    }

    /// Weights of the largest block.
    pub fn largest_block(&self) -> f64 {
        largest_block(self.model)
    }
}

/// Time and what it is spent on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    pub seconds: f64,
    pub work: Work,
    /// Optimiser steps of a training; 1 elsewhere.
    pub steps: f64,
}

impl Time {
    /// Work on the device, and seconds of the host beside it.
    pub fn of(machine: &Machine<'_>, work: Work, waiting: f64) -> Self {
        Self { seconds: machine.seconds(work) + waiting, work, steps: 1.0 }
    }
}

/// What a stage needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Need {
    pub time: Time,
    /// Bytes that the program holds on the device at its peak.
    pub peak: f64,
    /// How a training changes its layout by itself where it does not fit as it is.
    pub fallback: Option<String>,
}

/// Whether a card holds what the program needs, with what the libraries take.
pub(crate) fn fits(card: &Card, peak: f64) -> bool {
    peak * (1.0 + device::FRAGMENTS) + device::CONTEXT_BYTES <= card.memory() as f64
}

/// What a stage will take on a card.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Prediction {
    /// Wall seconds.
    pub seconds: f64,
    /// Bytes that the program holds on the device at its peak, without the CUDA context and what fragments cost.
    pub peak_bytes: u64,
    /// Whether the card holds that, and the context.
    pub fits: bool,
    /// How a training changes its layout by itself where it does not fit as its settings say, such as `recomputes blocks, 8 images at a time`; the
    /// other fields are of that layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Operations issued.
    pub launches: f64,
    /// Waits for the device.
    pub syncs: f64,
    /// 10^12 floating-point operations of matrix products and attention.
    pub tflop: f64,
    /// Seconds that the device computes.
    pub busy_seconds: f64,
    /// Optimiser steps that the stage has; 1 where it is no training.
    pub steps: f64,
}

/// The stage on a card, where its sizes say anything; `None` for the training of a dense model. `other` is the model of a retrieval or of a teacher,
/// where it is one of its own; `known` is what earlier stages left in the cache.
pub(crate) fn predict(
    stage: &Stage,
    inputs: &Inputs,
    subject: &Subject<'_>,
    other: Option<&Model>,
    known: Known,
) -> Option<Prediction> {
    let need = need(stage, inputs, subject, other, known)?;
    let Need { time: Time { seconds, work, steps }, peak, fallback } = need;
    // Weights of its own stand beside the dense ones, which give way to them in evaluations only.
    let is_beside = subject.merged && !matches!(stage, Stage::Evaluate { .. });
    let peak = peak + if is_beside { subject.model.prunable() * subject.machine.bytes() } else { 0.0 };
    Some(Prediction {
        seconds,
        peak_bytes: peak as u64,
        fits: fits(subject.machine.card, peak),
        fallback,
        launches: work.launches,
        syncs: work.syncs,
        tflop: work.flops / 1e12,
        busy_seconds: work.busy,
        steps,
    })
}

fn need(stage: &Stage, inputs: &Inputs, subject: &Subject<'_>, other: Option<&Model>, known: Known) -> Option<Need> {
    let machine = &subject.machine;
    let stored = match subject.model.stored {
        Compute::Float32 => 4.0,
        Compute::Bfloat16 | Compute::Float16 => 2.0,
    };
    let read = subject.model.parameters * stored / host::DISK_BYTES;
    Some(match stage {
        Stage::Dense { checkpoint: None, .. } => return None,
        // Taken as it is; the first stage that needs the weights brings them to the device.
        Stage::Dense { .. } => {
            let waiting = host::WORKER_SECONDS + read + machine.copy(subject.weights_bytes());
            Need { time: Time::of(machine, Work::default(), waiting), ..Need::default() }
        }
        // Read and written once, on the host.
        Stage::Rescale { .. } => Need { time: Time::of(machine, Work::default(), 2.0 * read), ..Need::default() },
        Stage::Sensitivity { tower, projection, measurement, samples, calibration, .. } => {
            Calibrated { subject, tower: *tower, projection: *projection }.sensitivity(
                *measurement,
                *samples,
                calibration,
            )
        }
        Stage::Statistics { tower, projection, needs, calibration, .. } => {
            Calibrated { subject, tower: *tower, projection: *projection }.statistics(calibration, *needs)
        }
        Stage::Prune { tower, projection, metric, method, calibration, .. } => {
            let method = method.as_deref().copied().unwrap_or_default();
            let stored = inputs.statistics.is_some();
            Calibrated { subject, tower: *tower, projection: *projection }.prune(
                *metric,
                &method,
                calibration.as_ref(),
                stored,
            )
        }
        Stage::Refine { tower, method, iterations, calibration, .. } => {
            let stored = inputs.statistics.is_some();
            // The projection, where it is one of them, is a small part of its tower.
            Calibrated { subject, tower: *tower, projection: false }.refine(*method, *iterations, calibration, stored)
        }
        Stage::Structure { tower, score, block_score, calibration, .. } => {
            let scores = (*score, *block_score);
            Calibrated { subject, tower: *tower, projection: false }.structure(scores, calibration.as_ref())
        }
        Stage::Reconstruct { tower, training, calibration, .. } => {
            let calibrated = Calibrated { subject, tower: *tower, projection: false };
            Reconstruction { calibrated, training }.need(calibration)
        }
        Stage::Adapt { training, masked, data, .. } => {
            let (settings, masked, domains) = (&**training, *masked, domains(data).len());
            Training { subject, settings, masked, teacher: other, taught: known.teacher, domains }.need()
        }
        Stage::Merge { .. } => merge(subject),
        Stage::Evaluate { task, items, beams, data, asking, retrieval, window, aids, .. } => {
            let beams = f64::from(beams.unwrap_or(1));
            let items = f64::from(*items);
            let aids = aids.as_deref();
            let evaluated = Evaluated { subject, task: *task, source: data.source, items, beams, aids, known };
            match task.asks() {
                Asks::Match => evaluated.retrieval(other, &retrieval.as_deref().cloned().unwrap_or_default()),
                Asks::Text => evaluated.text(f64::from(window.unwrap_or_default())),
                Asks::Answer | Asks::Choice | Asks::Caption => evaluated.generate(asking.as_deref(), other),
            }
        }
    })
}

/// Weights formed, recounted, and outputs before and after compared.
fn merge(subject: &Subject<'_>) -> Need {
    const BYTES: f64 = 40.0;
    const LAUNCHES: f64 = 40.0;
    let layers: Vec<&Layer> = subject.model.layers.iter().collect();
    let machine = &subject.machine;
    let work = machine.traffic(subject.model.prunable() * BYTES, layers.len() as f64 * LAUNCHES);
    let peak = subject.weights_bytes() + subject.model.prunable() * machine.bytes() + subject.masks_bytes();
    Need { time: Time::of(machine, work, 0.0), peak, fallback: None }
}

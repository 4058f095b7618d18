//! Settings of how the batches of a restoration are divided among the domains that they are drawn from, and what a training says about it.

use serde::{Deserialize, Serialize};

use crate::{
    Task,
    config::{DataConfig, DataSource},
};

/// Dynamic batch loading (Xia et al., "Sheared LLaMA", arXiv 2310.06694, section 2.2): every so many steps the loss of each domain is measured on held-out
/// items, its weight is multiplied by `exp(max(loss - reference, 0))`, and the weights are divided by their sum. Later batches are drawn by them.
///
/// Differs: reference losses are those of the dense model on the same items; the paper predicts them by scaling laws of the source model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LoadingConfig {
    /// Whether the weights of domains change.
    pub method: LoadingMethod,
    /// Steps between two measurements, at least 1.
    pub every: u32,
    /// Held-out items of each domain, at least 1.
    pub held_out: u32,
}

impl Default for LoadingConfig {
    fn default() -> Self {
        Self { method: LoadingMethod::Fixed, every: 10, held_out: 64 }
    }
}

/// Whether the weights of domains change while a restoration trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadingMethod {
    /// Every domain has the share that the data has.
    #[default]
    Fixed,
    /// Weights follow the losses.
    Dynamic,
}

impl LoadingConfig {
    /// Whether weights change at all.
    pub fn is_on(&self) -> bool {
        self.method == LoadingMethod::Dynamic
    }

    /// Whether losses are measured before a step, counted from 0. The first `align` steps run without the language model, whose losses say nothing then.
    pub fn is_due(&self, step: u32, align: u32) -> bool {
        self.is_on() && step > 0 && step.is_multiple_of(self.every.max(1)) && step >= align
    }

    /// The first step behind one before which losses are measured; `steps` where there is none.
    pub fn next(&self, step: u32, steps: u32, align: u32) -> u32 {
        (step.saturating_add(1)..steps).find(|&later| self.is_due(later, align)).unwrap_or(steps)
    }

    /// Measurements in so many steps, that of the reference losses not among them.
    pub fn updates(&self, steps: u32, align: u32) -> u32 {
        (0..steps).filter(|&step| self.is_due(step, align)).count() as u32
    }

    /// Items of a corpus that no batch is drawn from.
    pub fn kept_from_training(&self) -> u32 {
        if self.is_on() { self.held_out } else { 0 }
    }
}

/// Names of the domains that a restoration draws from, in the order of their weights: corpora, or the kinds of questions of the embedded world, whose
/// captions are one for each image in any case.
pub fn domains(data: &DataConfig) -> Vec<&'static str> {
    match data.source {
        DataSource::Shapes => Task::QUESTIONS.into_iter().map(Task::name).collect(),
        DataSource::Folder => data.restoration.corpora.iter().map(|corpus| corpus.name()).collect(),
    }
}

/// What became of the weights of domains during a training. Every list has a number for each domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadingRecord {
    /// Names.
    pub domains: Vec<String>,
    /// Weights at the beginning: the shares that the data has.
    pub weights: Vec<f64>,
    /// Losses of the reference, nats per token of an answer or caption.
    pub reference: Vec<f64>,
    /// How they changed.
    pub updates: Vec<LoadingUpdate>,
}

impl LoadingRecord {
    /// The weights that the batch of a step, counted from 0, is drawn by.
    pub fn at(&self, step: u32) -> &[f64] {
        let last = self.updates.iter().rev().find(|update| update.step <= step);
        last.map_or(&self.weights, |update| &update.weights)
    }
}

/// A change of weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoadingUpdate {
    /// The first step whose batch is drawn by the weights, counted from 0.
    pub step: u32,
    /// Held-out losses before that step, nats per token.
    pub losses: Vec<f64>,
    /// The weights; they add up to 1.
    pub weights: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_measured_every_so_many_steps_with_a_language_model() {
        let config = LoadingConfig { method: LoadingMethod::Dynamic, every: 4, held_out: 8 };
        let due = |config: LoadingConfig, align| (0..13).filter(|&step| config.is_due(step, align)).collect::<Vec<_>>();
        assert_eq!(due(config, 0), [4, 8, 12]);
        assert_eq!(due(config, 5), [8, 12]);
        assert_eq!((config.updates(12, 0), config.updates(12, 5), config.kept_from_training()), (2, 1, 8));
        assert_eq!([0, 3, 4, 8].map(|step| config.next(step, 12, 0)), [4, 4, 8, 12]);
        let fixed = LoadingConfig { method: LoadingMethod::Fixed, ..config };
        assert_eq!((fixed.updates(12, 0), fixed.next(0, 12, 0), fixed.kept_from_training()), (0, 12, 0));
    }
}

//! Weights of domains that follow held-out losses: the rule, resuming, and what of it other layouts of a step leave alone.

use std::error::Error;

use ressa_experiment::{
    config::Recompute,
    loading::{LoadingConfig, LoadingMethod, LoadingRecord},
    stage::AdaptTraining,
};
use ressa_models::{Model, VisionLanguage};
use ressa_restore::{
    BatchSource, Budgets, Checkpoints, Interval, Mixture, Restoration, RestoreError, TrainingBatch, TrainingOptions,
    reweighed, train_adapters,
};

use crate::world::{Batches, dense, settings, student};

/// Batches of two domains: those of even steps of the plain ones, and those of odd steps. Which one a step sees depends on the weights.
struct Mixed {
    plain: Batches,
    dense: Model,
    /// What was said about weights.
    told: Vec<(u32, Vec<f64>)>,
}

impl Mixed {
    fn new() -> Self {
        Self { plain: Batches::default(), dense: dense(), told: Vec::new() }
    }
}

impl BatchSource for Mixed {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>> {
        let weight = self.told.iter().rev().find(|(from, _)| *from <= step).map_or(0.5, |(_, weights)| weights[0]);
        let batch = self.plain.batch(step)?;
        // Every bit of the weight is seen.
        Ok(TrainingBatch { pixels: batch.pixels * (0.5 + weight), ..batch })
    }

    fn mixture(&mut self) -> Option<&mut dyn Mixture> {
        Some(self)
    }
}

impl Mixture for Mixed {
    fn domains(&self) -> Vec<(String, f64)> {
        vec![("first".to_owned(), 0.75), ("second".to_owned(), 0.25)]
    }

    fn weigh(&mut self, step: u32, weights: &[f64]) {
        self.told.push((step, weights.to_vec()));
    }

    fn held_out(&self, domain: usize, number: usize) -> Result<Option<TrainingBatch>, Box<dyn Error + Send + Sync>> {
        let step = 100 + 2 * number as u32 + domain as u32;
        (number < 2).then(|| Batches::default().batch(step)).transpose()
    }

    fn reference(&self) -> &dyn VisionLanguage {
        &self.dense
    }
}

fn dynamic(steps: u32) -> AdaptTraining {
    let loading = LoadingConfig { method: LoadingMethod::Dynamic, every: 2, ..LoadingConfig::default() };
    AdaptTraining { loading, ..settings(steps, None) }
}

fn train(
    settings: &AdaptTraining,
    batches: &mut Mixed,
    checkpoints: Option<&Checkpoints>,
) -> Result<Restoration, RestoreError> {
    let options = TrainingOptions { masked: true, seed: 5, checkpoints, budgets: Budgets::default() };
    train_adapters(student().as_mut(), None, settings, options, batches, &mut |_| {})
}

/// Small steps: AdamW makes whole ones of the smallest gradient, in which rounding decides.
fn gentle() -> AdaptTraining {
    AdaptTraining { learning_rate: 1e-4, ..dynamic(5) }
}

fn record(settings: &AdaptTraining) -> LoadingRecord {
    train(settings, &mut Mixed::new(), None).unwrap().loading.unwrap()
}

#[test]
fn weights_follow_the_losses_above_the_reference() {
    let mut batches = Mixed::new();
    let trained = train(&dynamic(7), &mut batches, None).unwrap();
    let record = trained.loading.unwrap();
    assert_eq!((record.domains.join(" "), record.weights.clone()), ("first second".to_owned(), vec![0.75, 0.25]));
    assert_eq!(record.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [2, 4, 6]);
    let mut weights = record.weights.clone();
    for update in &record.updates {
        weights = reweighed(&weights, &update.losses, &record.reference);
        assert_eq!(weights, update.weights);
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
    assert_eq!(batches.told, record.updates.iter().map(|u| (u.step, u.weights.clone())).collect::<Vec<_>>());
    // Losses are of the student at that step: it learns. The dense model's are its own.
    let mean = |losses: &[f64]| losses.iter().sum::<f64>();
    assert!(mean(&record.updates[2].losses) < mean(&record.updates[0].losses), "{record:?}");
    assert_eq!(
        [0, 1, 2, 5].map(|step| record.at(step)[0]),
        [0.75, 0.75, record.updates[0].weights[0], record.updates[1].weights[0]]
    );

    let fixed = settings(3, None);
    let mut batches = Mixed::new();
    assert!(train(&fixed, &mut batches, None).unwrap().loading.is_none() && batches.told.is_empty());
}

#[test]
fn a_resumed_training_draws_by_the_same_weights_to_the_bit() {
    let settings = dynamic(9);
    let whole = train(&settings, &mut Mixed::new(), None).unwrap();
    // Before the first change of weights, between two steps of one, and behind the last.
    for sick_at in [2, 5, 8] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints { folder: folder.path().to_owned(), every: Interval::Steps(1) };
        let mut interrupted = Mixed::new();
        interrupted.plain.sick_at = Some(sick_at);
        assert!(train(&settings, &mut interrupted, Some(&checkpoints)).unwrap_err().is_divergence());
        let mut rest = Mixed::new();
        let resumed = train(&settings, &mut rest, Some(&checkpoints)).unwrap();
        assert_eq!(rest.plain.asked, (sick_at..9).collect::<Vec<_>>());
        assert_eq!(whole.losses, resumed.losses);
        assert_eq!(whole.loading, resumed.loading);
        for ((name, one), (_, other)) in whole.adapters.iter().zip(resumed.adapters.iter()) {
            let alike = one.parameters().iter().zip(other.parameters()).all(|((_, a), (_, b))| a.equal(b));
            assert!(alike, "`{name}`");
        }
    }
}

#[test]
fn layouts_of_a_step_change_weights_by_rounding_alone() {
    let whole = record(&gentle());
    for (micro_batch, recompute) in [(Some(1), Recompute::None), (Some(2), Recompute::Blocks)] {
        let found = record(&AdaptTraining { micro_batch, recompute, ..gentle() });
        for (one, other) in whole.updates.iter().zip(&found.updates) {
            assert!(one.weights.iter().zip(&other.weights).all(|(a, b)| (a - b).abs() < 1e-4), "{one:?} {other:?}");
        }
    }
}

#[test]
fn batches_of_no_domains_cannot_be_divided() {
    let options = TrainingOptions { masked: true, seed: 5, checkpoints: None, budgets: Budgets::default() };
    let error = train_adapters(student().as_mut(), None, &dynamic(3), options, &mut Batches::default(), &mut |_| {});
    assert!(matches!(error, Err(RestoreError::NoDomains)));
}

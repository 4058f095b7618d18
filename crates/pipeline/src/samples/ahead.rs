//! Training batches made ahead of the computation.

use std::{error::Error, sync::Arc};

use ressa_data::Ahead;
use ressa_experiment::{loading::LoadingConfig, record::Shortfall, stage::AdaptTraining};
use ressa_models::VisionLanguage;
use ressa_restore::{BatchSource, Mixture, TrainingBatch};

use super::mix::Mix;
use crate::PipelineError;

type Made = Result<TrainingBatch, PipelineError>;
type HeldOut = Box<dyn Fn(usize, usize) -> Result<Option<TrainingBatch>, PipelineError>>;

/// The batches of a training, each a function of its step, and of the weights of its domains where these change.
pub(crate) struct Batches {
    batches: Ahead<Made>,
    skipped: Box<dyn Fn() -> usize>,
    /// What is missing of the images that were asked for.
    pub short: Option<Shortfall>,
    divided: Option<Divided>,
}

/// Batches whose domains have weights that change.
struct Divided {
    mix: Arc<Mix>,
    held_out: HeldOut,
    make: Arc<dyn Fn(usize) -> Made + Send + Sync>,
    loading: LoadingConfig,
    steps: u32,
    align: u32,
    ahead: usize,
}

impl Batches {
    /// The batches of `steps` steps, at most `ahead` of them made before they are asked for.
    pub fn new(
        steps: u32,
        ahead: usize,
        make: impl Fn(u32) -> Result<TrainingBatch, PipelineError> + Send + Sync + 'static,
    ) -> Self {
        let batches = Ahead::new(steps as usize, ahead, made_by(make));
        Self { batches, skipped: Box::new(|| 0), short: None, divided: None }
    }

    /// The batches of a training whose rows `mix` divides among domains. `held_out` makes the held-out batch of a domain and a number, and nothing behind the
    /// last.
    pub fn mixed(
        training: &AdaptTraining,
        ahead: usize,
        make: impl Fn(u32) -> Result<TrainingBatch, PipelineError> + Send + Sync + 'static,
        mix: Arc<Mix>,
        held_out: impl Fn(usize, usize) -> Result<Option<TrainingBatch>, PipelineError> + 'static,
    ) -> Self {
        let AdaptTraining { loading, steps, align, .. } = *training;
        let make: Arc<dyn Fn(usize) -> Made + Send + Sync> = Arc::new(made_by(make));
        let divided = Divided { mix, held_out: Box::new(held_out), make, loading, steps, align, ahead };
        let batches = divided.from(0);
        Self { batches, skipped: Box::new(|| 0), short: None, divided: Some(divided) }
    }

    /// The same, telling how many of the images it draws from could not be read, and how many are fewer than asked for.
    pub fn counting(self, skipped: impl Fn() -> usize + 'static, short: Option<Shortfall>) -> Self {
        Self { skipped: Box::new(skipped), short, ..self }
    }

    /// Images that could not be read so far; others stood in for them.
    pub fn skipped(&self) -> usize {
        (self.skipped)()
    }
}

impl Divided {
    /// Batches from a step on, made ahead only as far as their weights are known.
    fn from(&self, step: u32) -> Ahead<Made> {
        let make = Arc::clone(&self.make);
        let known = self.loading.next(step, self.steps, self.align);
        Ahead::new(known as usize, self.ahead, move |step| make(step))
    }
}

/// Set for each thread; whichever makes a batch must make the same.
fn made_by(make: impl Fn(u32) -> Made + Send + Sync + 'static) -> impl Fn(usize) -> Made + Send + Sync + 'static {
    move |step| {
        ressa_runtime::flush_denormals();
        make(step as u32)
    }
}

/// The batches of a training beside the dense model.
pub(crate) struct Beside<'a> {
    pub batches: &'a mut Batches,
    pub dense: &'a dyn VisionLanguage,
}

impl BatchSource for Beside<'_> {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>> {
        self.batches.batches.get(step as usize).map_err(|e| e.to_string().into())
    }

    fn mixture(&mut self) -> Option<&mut dyn Mixture> {
        self.batches.divided.is_some().then_some(self as &mut dyn Mixture)
    }
}

impl Mixture for Beside<'_> {
    fn domains(&self) -> Vec<(String, f64)> {
        self.batches.divided.as_ref().map(|divided| divided.mix.domains().to_vec()).unwrap_or_default()
    }

    fn weigh(&mut self, step: u32, weights: &[f64]) {
        if let Some(divided) = &self.batches.divided {
            divided.mix.weigh(step, weights);
            self.batches.batches = divided.from(step);
        }
    }

    fn held_out(&self, domain: usize, number: usize) -> Result<Option<TrainingBatch>, Box<dyn Error + Send + Sync>> {
        let Some(divided) = &self.batches.divided else { return Ok(None) };
        (divided.held_out)(domain, number).map_err(|e| e.to_string().into())
    }

    fn reference(&self) -> &dyn VisionLanguage {
        self.dense
    }
}

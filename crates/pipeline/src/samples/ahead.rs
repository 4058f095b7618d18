//! Training batches made ahead of the computation.

use std::error::Error;

use ressa_data::Ahead;
use ressa_experiment::record::Shortfall;
use ressa_restore::{BatchSource, TrainingBatch};

use crate::PipelineError;

/// The batches of a training, each a function of its step alone.
pub(crate) struct Batches {
    batches: Ahead<Result<TrainingBatch, PipelineError>>,
    skipped: Box<dyn Fn() -> usize>,
    /// What is missing of the images that were asked for.
    pub short: Option<Shortfall>,
}

impl Batches {
    /// The batches of `steps` steps, at most `ahead` of them made before they are asked for.
    pub fn new(
        steps: u32,
        ahead: usize,
        make: impl Fn(u32) -> Result<TrainingBatch, PipelineError> + Send + Sync + 'static,
    ) -> Self {
        let batches = Ahead::new(steps as usize, ahead, move |step| {
            // Set for each thread; whichever makes a batch must make the same.
            ressa_runtime::flush_denormals();
            make(step as u32)
        });
        Self { batches, skipped: Box::new(|| 0), short: None }
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

impl BatchSource for Batches {
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>> {
        self.batches.get(step as usize).map_err(|e| e.to_string().into())
    }
}

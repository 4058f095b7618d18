//! Weights of the domains that batches are drawn from, which follow held-out losses while a training runs: dynamic batch loading (Xia et al., "Sheared
//! LLaMA", arXiv 2310.06694, section 2.2).

use std::{collections::BTreeMap, error::Error};

use ressa_experiment::{
    layout::Layout,
    loading::{LoadingConfig, LoadingRecord, LoadingUpdate},
    stage::AdaptTraining,
};
use ressa_models::{ModelError, VisionLanguage};
use tch::{Kind, Tensor, no_grad};

use crate::{
    RestoreError,
    batch::{BatchSource, TrainingBatch, features},
    micro::cut,
    step::forced,
    stepper::Stepper,
};

/// Batches of several domains, drawn by weights that change on the way.
pub trait Mixture {
    /// Names of the domains and the shares that the data has, which add up to 1.
    fn domains(&self) -> Vec<(String, f64)>;

    /// Batches from a step on are drawn by these weights, one for each domain, which add up to 1. Called with steps that rise; a resumed training first says
    /// again what was said before it was interrupted.
    fn weigh(&mut self, step: u32, weights: &[f64]);

    /// A batch of held-out items of a domain, by its number; `None` behind the last. The same whenever it is asked for.
    ///
    /// # Errors
    /// Items that cannot be read.
    fn held_out(&self, domain: usize, number: usize) -> Result<Option<TrainingBatch>, Box<dyn Error + Send + Sync>>;

    /// The model whose held-out losses are the reference.
    fn reference(&self) -> &dyn VisionLanguage;
}

/// The weights behind a measurement: each times `exp(max(loss - reference, 0))`, divided by their sum.
pub fn reweighed(weights: &[f64], losses: &[f64], reference: &[f64]) -> Vec<f64> {
    let excess: Vec<f64> = losses.iter().zip(reference).map(|(loss, reference)| (loss - reference).max(0.0)).collect();
    // Any factor goes with the sum; without it a loss that has exploded would be infinite here.
    let largest = excess.iter().copied().fold(0.0, f64::max);
    let raised: Vec<f64> =
        weights.iter().zip(&excess).map(|(weight, excess)| weight * (excess - largest).exp()).collect();
    let sum: f64 = raised.iter().sum();
    raised.iter().map(|weight| weight / sum).collect()
}

/// Changes the weights of a training's domains.
pub(crate) struct Loader {
    config: LoadingConfig,
    align: u32,
    record: LoadingRecord,
}

impl Loader {
    /// For a training; nothing where weights stay as they are.
    ///
    /// # Errors
    /// Batches that come from no domains.
    pub fn of(settings: &AdaptTraining, batches: &mut dyn BatchSource) -> Result<Option<Self>, RestoreError> {
        if !settings.loading.is_on() {
            return Ok(None);
        }
        let (domains, weights) = mixture(batches)?.domains().into_iter().unzip();
        let record = LoadingRecord { domains, weights, ..LoadingRecord::default() };
        Ok(Some(Self { config: settings.loading, align: settings.align, record }))
    }

    /// Measures the reference losses, before the first step.
    ///
    /// # Errors
    /// Items that cannot be read, and losses that are no numbers.
    pub fn begin(&mut self, settings: &AdaptTraining, batches: &mut dyn BatchSource) -> Result<(), RestoreError> {
        let mixture: &dyn Mixture = mixture(batches)?;
        let (mut layout, count) = (Layout::of(settings), self.record.domains.len());
        let measure = |layout: Layout| measured(mixture.reference(), mixture, count, layout, 0);
        self.record.reference = loop {
            let Some(smaller) = layout.smaller(settings) else { break measure(layout) };
            match ressa_runtime::unless_out_of_memory(|| measure(layout)) {
                Some(found) => break found,
                None => layout = smaller,
            }
        }?;
        Ok(())
    }

    /// Whether losses are measured before a step.
    pub fn is_due(&self, step: u32) -> bool {
        self.config.is_due(step, self.align)
    }

    /// Measures the student's losses before a step, and has its batch and later ones drawn by other weights.
    ///
    /// # Errors
    /// Items that cannot be read, and losses that are no numbers.
    pub fn update(
        &mut self,
        step: u32,
        stepper: &mut Stepper<'_>,
        batches: &mut dyn BatchSource,
    ) -> Result<(), RestoreError> {
        let mixture = mixture(batches)?;
        let count = self.record.domains.len();
        let items: &dyn Mixture = mixture;
        let losses = stepper.within_memory(|student, layout| measured(student, items, count, layout, step))?;
        let weights = reweighed(self.weights(), &losses, &self.record.reference);
        mixture.weigh(step, &weights);
        self.record.updates.push(LoadingUpdate { step, losses, weights });
        Ok(())
    }

    /// The weights by which batches are drawn now.
    fn weights(&self) -> &[f64] {
        self.record.updates.last().map_or(&self.record.weights, |update| &update.weights)
    }

    /// What a resumed training needs, by name.
    pub fn saved(&self) -> [(String, Tensor); 2] {
        let row = |update: &LoadingUpdate| {
            let LoadingUpdate { step, losses, weights } = update;
            [&[f64::from(*step)], &losses[..], &weights[..]].concat()
        };
        let updates: Vec<f64> = self.record.updates.iter().flat_map(row).collect();
        let tensor = |name: &str, numbers: &[f64]| (name.to_owned(), Tensor::from_slice(numbers));
        [tensor(REFERENCE, &self.record.reference), tensor(UPDATES, &updates)]
    }

    /// Continues from what [`Loader::saved`] gave.
    ///
    /// # Errors
    /// What is missing or does not fit, by name.
    pub fn resume(
        &mut self,
        saved: &BTreeMap<String, Tensor>,
        batches: &mut dyn BatchSource,
    ) -> Result<(), ModelError> {
        let unfit = |name: &str| ModelError::Config(format!("the checkpoint has no `{name}` that fits"));
        let numbers = |name: &str| {
            let tensor = saved.get(name).ok_or_else(|| unfit(name))?;
            Vec::<f64>::try_from(tensor).map_err(|_| unfit(name))
        };
        let count = self.record.domains.len();
        self.record.reference = numbers(REFERENCE)?;
        let (updates, each) = (numbers(UPDATES)?, 1 + 2 * count);
        if self.record.reference.len() != count || !updates.len().is_multiple_of(each) {
            return Err(unfit(UPDATES));
        }
        let update = |row: &[f64]| LoadingUpdate {
            step: row[0] as u32,
            losses: row[1..=count].to_vec(),
            weights: row[1 + count..].to_vec(),
        };
        self.record.updates = updates.chunks(each).map(update).collect();
        let mixture = batches.mixture().ok_or_else(|| unfit(UPDATES))?;
        self.record.updates.iter().for_each(|update| mixture.weigh(update.step, &update.weights));
        Ok(())
    }

    /// What became of the weights.
    pub fn finish(self) -> LoadingRecord {
        self.record
    }
}

/// Entries of a checkpoint.
const REFERENCE: &str = "loading.reference";
const UPDATES: &str = "loading.updates";

fn mixture(batches: &mut dyn BatchSource) -> Result<&mut dyn Mixture, RestoreError> {
    batches.mixture().ok_or(RestoreError::NoDomains)
}

/// The mean cross entropy of each domain's held-out answers and captions, nats per token.
fn measured(
    model: &dyn VisionLanguage,
    mixture: &dyn Mixture,
    domains: usize,
    layout: Layout,
    step: u32,
) -> Result<Vec<f64>, RestoreError> {
    let mut means = Vec::with_capacity(domains);
    for domain in 0..domains {
        let (mut sums, mut tokens) = (Vec::new(), 0);
        for number in 0.. {
            let batch = mixture.held_out(domain, number).map_err(|source| RestoreError::Batch { step, source })?;
            let Some(batch) = batch else { break };
            for part in cut(&batch, i64::from(layout.micro_batch)) {
                let features = no_grad(|| features(model, &part.pixels));
                for exchange in [&part.questions, &part.captions] {
                    let Some(forced) = no_grad(|| forced(model, &features, exchange)) else { continue };
                    // Every reply has an end token beside its own.
                    let count = exchange.answers.iter().map(|answer| answer.len() + 1).sum::<usize>();
                    sums.push(no_grad(|| forced.loss().to_kind(Kind::Double) * count as f64));
                    tokens += count;
                }
            }
        }
        if sums.is_empty() {
            let source = format!("domain {domain} has no held-out items that losses could be measured on").into();
            return Err(RestoreError::Batch { step, source });
        }
        let mean = Tensor::stack(&sums, 0).sum(Kind::Double).double_value(&[]) / tokens as f64;
        if !mean.is_finite() {
            return Err(RestoreError::Diverged { step, what: "held-out loss", value: mean });
        }
        means.push(mean);
    }
    Ok(means)
}

#[cfg(test)]
mod tests {
    use super::reweighed;

    fn close(found: &[f64], wanted: &[f64]) {
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {wanted:?}");
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn weights_grow_with_the_exponential_of_what_is_left_to_recover() {
        let (two, three) = (2.0_f64.ln(), 3.0_f64.ln());
        // By 2, 3 and 1, as the last domain is below its reference: 1/2 2, 1/4 3, 1/4 1 of a sum of 2.
        let first = reweighed(&[0.5, 0.25, 0.25], &[1.0 + two, 0.5 + three, 0.1], &[1.0, 0.5, 0.4]);
        close(&first, &[0.5, 0.375, 0.125]);
        // Updates multiply: by 1, 1 and 4.
        close(
            &reweighed(&first, &[1.0, 0.5, 0.4 + 2.0 * two], &[1.0, 0.5, 0.4]),
            &[0.5 / 1.375, 0.375 / 1.375, 0.5 / 1.375],
        );
        close(&reweighed(&first, &[0.9, 0.4, 0.3], &[1.0, 0.5, 0.4]), &first);
        // What has exploded takes everything, and is still a number.
        close(&reweighed(&[0.5, 0.5], &[1e4, 1.0], &[1.0, 1.0]), &[1.0, 0.0]);
    }
}

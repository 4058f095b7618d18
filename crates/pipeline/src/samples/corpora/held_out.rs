//! Entries of corpora that no batch is drawn from: losses are measured on them.

use std::ops::Range;

use ressa_data::{
    Captions, ImageLoader, parallel,
    stream::{Purpose, stream},
};
use ressa_experiment::config::{Augment, CorporaConfig};
use ressa_restore::TrainingBatch;

use super::{Composed, CorpusBatches, Exchanges, Feed, compose, ranges, stack};
use crate::{PipelineError, samples::draw::Draw};

/// Held-out entries of each corpus, as they are: images are not changed.
pub(super) struct HeldOut {
    config: CorporaConfig,
    feed: Feed,
    loader: ImageLoader,
    threads: usize,
    draw: Draw,
    domains: Vec<Range<usize>>,
    batch: usize,
    seed: u64,
}

impl HeldOut {
    /// Beside the batches of a training.
    pub fn new(batches: &CorpusBatches, captions: &Captions) -> Result<Self, PipelineError> {
        Ok(Self {
            config: CorporaConfig { augment: Augment::None, ..batches.config.clone() },
            feed: batches.feed.clone(),
            loader: batches.loader.clone(),
            threads: batches.threads,
            draw: Draw::new(captions, None)?,
            domains: ranges(captions),
            batch: batches.batch,
            seed: batches.seed,
        })
    }

    /// The entries of a domain by the number of a batch; nothing behind the last.
    pub fn batch(&self, domain: usize, number: usize) -> Result<Option<TrainingBatch>, PipelineError> {
        let range = &self.domains[domain];
        let first = range.start + number * self.batch;
        if first >= range.end {
            return Ok(None);
        }
        let composed = parallel(self.batch.min(range.end - first), self.threads, |row| {
            let at = first + row;
            self.draw.read_within(range, at, |entry| {
                compose(&self.loader, &self.config, entry, stream(self.seed, Purpose::HeldOut, at as u64))
            })
        })?;
        let (mut images, mut said) = (Vec::new(), Exchanges::default());
        for (row, (_, Composed { sized, read, written })) in composed.into_iter().enumerate() {
            images.push(sized);
            said.push(row, read, written);
        }
        self.feed.batch(self.feed.levels(stack(images)?), &Exchanges::default(), &said, None).map(Some)
    }
}

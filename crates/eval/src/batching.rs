//! How a benchmark is cut into forward passes: a machine setting, not part of the task.

use ressa_experiment::search;
use ressa_runtime::Device;
use ressa_store::Cache;

use crate::FeatureCache;

/// Blocks, batches, and what is loaded ahead.
///
/// With `padded` off, a batch holds prompts of equal length only, and the answers in f32 on a CPU are those of any other `rows`. With it
/// on, prompts are sorted by length and padded: batches are full, which a GPU needs. Padding is masked everywhere, so an answer differs
/// only where rounding decides between two of them.
#[derive(Clone, Debug)]
pub struct Batching {
    /// Maximum number of images or prompts in one forward pass.
    pub rows: usize,
    /// Whether prompts of different lengths share a batch.
    pub padded: bool,
    /// Maximum number of image files whose features are held together, with the prompts about them.
    pub images: usize,
    /// Bytes that the search of a batch may take beside the model's weights; batches of prompts are as much smaller. `None` is no limit.
    pub search_bytes: Option<u64>,
    /// Loads of at most `rows` image files that are decoded before they are needed; 0 decodes when they are.
    pub ahead: usize,
    /// Where the levels of image files are kept between evaluations.
    pub pixels: Option<Cache>,
    /// Where the features of image files are kept between evaluations.
    pub features: Option<FeatureCache>,
}

impl Batching {
    /// Batches of equal lengths, decoded when they are needed.
    pub fn exact(rows: usize) -> Self {
        Self { rows, padded: false, images: 128, search_bytes: None, ahead: 0, pixels: None, features: None }
    }

    /// Full batches from blocks of a thousand images, decoded while the device computes, within the memory that predictions count with.
    pub fn padded(rows: usize) -> Self {
        let search_bytes = Some(search::SEARCH_BYTES);
        Self { rows, padded: true, images: search::IMAGES, search_bytes, ahead: 3, pixels: None, features: None }
    }

    /// What suits a device: exact lengths on a CPU, full batches on a GPU.
    pub fn of(device: Device) -> Self {
        if device.is_cuda() { Self::padded(search::ROWS) } else { Self::exact(128) }
    }

    /// The same with fewer rows at once, and with blocks as much smaller where they may be.
    pub fn shrunk(&self, rows: usize) -> Self {
        let images = if self.padded { (self.images * rows / self.rows.max(1)).max(1) } else { self.images };
        let search_bytes = self.search_bytes.map(|bytes| bytes * rows as u64 / self.rows.max(1) as u64);
        Self { rows, images, search_bytes, ..self.clone() }
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self::exact(128)
    }
}

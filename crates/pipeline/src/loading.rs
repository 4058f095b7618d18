//! How data reaches the device: machine settings that an executor is given, no part of a stage.

use ressa_eval::Batching;
use ressa_runtime::Device;
use ressa_store::Cache;

/// Batches and loads that are made ahead for a GPU. A CPU computes with all its threads already.
const AHEAD: usize = 3;

/// What is loaded ahead, batched and kept.
#[derive(Clone, Debug, Default)]
pub struct Loading {
    /// Training batches and loads of evaluation images that are made before they are needed; 0 makes them when they are. By default 3 for
    /// a GPU and 0 for a CPU. Changes no result.
    pub ahead: Option<usize>,
    /// Whether evaluation pads prompts of different lengths into one batch; by default for a GPU only. Answers may differ where rounding
    /// decides between two of them.
    pub padded: Option<bool>,
    /// Keeps preprocessed pixels and image features of published data for other runs. Changes no result; features are kept as they were
    /// computed, in their own type.
    pub cache: Option<Cache>,
}

impl Loading {
    pub(crate) fn ahead(&self, device: Device) -> usize {
        self.ahead.unwrap_or(if device.is_cuda() { AHEAD } else { 0 })
    }

    /// How an evaluation on a device is batched.
    pub(crate) fn batching(&self, device: Device) -> Batching {
        let usual = Batching::of(device);
        let batching = match self.padded {
            Some(true) => Batching::padded(usual.rows),
            Some(false) => Batching::exact(usual.rows),
            None => usual,
        };
        Batching { ahead: self.ahead(device), pixels: self.cache.clone(), ..batching }
    }
}

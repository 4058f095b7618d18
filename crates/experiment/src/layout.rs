//! How a training step is laid out in memory, and what gives way when memory runs out.

use crate::{config::Recompute, stage::AdaptTraining};

/// How a step is computed. Changes memory and time, and its result by rounding only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Maximum number of images computed at once.
    pub micro_batch: u32,
    /// Whether blocks are recomputed for their gradients instead of kept.
    pub recompute: bool,
}

impl Layout {
    /// The settings' layout; without settings, the whole batch at once with everything kept.
    pub fn of(settings: &AdaptTraining) -> Self {
        let micro_batch = settings.micro_batch.unwrap_or(settings.batch).clamp(1, settings.batch.max(1));
        Self { micro_batch, recompute: settings.recompute == Recompute::Blocks }
    }

    /// The next layout that takes less memory, or `None`: recomputation first where the settings leave it open, then half the images.
    #[must_use]
    pub fn smaller(self, settings: &AdaptTraining) -> Option<Self> {
        match self.micro_batch {
            _ if !self.recompute && settings.recompute == Recompute::Auto => Some(Self { recompute: true, ..self }),
            1 => None,
            size => Some(Self { micro_batch: size.div_ceil(2), ..self }),
        }
    }
}

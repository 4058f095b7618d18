//! Where the teacher's logits come from.

use ressa_models::VisionLanguage;

use crate::{RestoreError, micro::MicroBatch, step::Taught};

/// The teacher of a distillation.
pub enum Teacher<'a> {
    /// The dense model, asked at every step.
    Model(&'a dyn VisionLanguage),
}

impl Teacher<'_> {
    /// The teacher's logits on a part of the batch of a step.
    pub(crate) fn taught(&mut self, _step: u32, part: &MicroBatch) -> Result<Taught, RestoreError> {
        match self {
            Teacher::Model(model) => Ok(Taught::new(*model, part)),
        }
    }
}

//! What a training step looks at.

use std::error::Error;

use ressa_models::{Prompts, TextBatch, VisionLanguage};
use tch::Tensor;

use crate::loading::Mixture;

/// One step's images with what is asked and said about them.
#[derive(Debug)]
pub struct TrainingBatch {
    /// Pixels `[images, 3, height, width]`; or image features `[images, tokens, width]`, for trainings that leave the image encoder as it is
    /// and whose teacher, if there is one, looks through the same.
    pub pixels: Tensor,
    /// Questions in image order, the same number about each image; may have no rows.
    pub questions: Prompts,
    /// Answers to the questions, without start and end token.
    pub answers: Vec<Vec<u32>>,
    /// Caption instructions in image order, the same number about each image; may have no rows.
    pub captions: Prompts,
    /// Captions in reply to the instructions, without start and end token.
    pub caption_answers: Vec<Vec<u32>>,
    /// One text per image, in image order, for the contrastive loss; `None` to leave that loss out.
    pub retrieval: Option<TextBatch>,
}

/// Image features of what a batch shows: its pixels encoded, or what it has instead of them.
pub(crate) fn features(model: &dyn VisionLanguage, shown: &Tensor) -> Tensor {
    if are_features(shown) { shown.shallow_clone() } else { model.encode_images(shown) }
}

/// Whether a batch shows features instead of pixels: `[images, tokens, width]`.
pub(crate) fn are_features(shown: &Tensor) -> bool {
    shown.dim() == 3
}

/// Where batches come from.
pub trait BatchSource {
    /// The batch of a step, counted from 0. Must depend on the step alone, and on the weights of its domains where these change: a resumed training asks
    /// for the later steps only.
    fn batch(&mut self, step: u32) -> Result<TrainingBatch, Box<dyn Error + Send + Sync>>;

    /// The domains that batches are drawn from, where weights of theirs can change.
    fn mixture(&mut self) -> Option<&mut dyn Mixture> {
        None
    }
}

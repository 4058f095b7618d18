//! Comparing images and texts, where a model has a head for it.

use tch::Tensor;

use crate::{Infer, TextBatch};

/// A model that may embed images and texts in one space.
pub trait Retrieve: Infer {
    /// Unit-norm embeddings of images for retrieval `[images, queries, d]`; `None` without a retrieval head.
    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor>;

    /// Unit-norm embeddings of texts for retrieval `[texts, d]`; `None` without a retrieval head.
    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor>;

    /// How well captions fit images: the matching head's logit for "fits", averaged over the queries, f32 `[rows]`. Row `r` reads
    /// `captions`' row `r` and looks at image `images[r]` (i64 `[rows]`) of the features `[images, tokens, width]`. `None` without a
    /// matching head.
    fn matching_scores(&self, features: &Tensor, images: &Tensor, captions: &TextBatch) -> Option<Tensor> {
        let _ = (features, images, captions);
        None
    }
}

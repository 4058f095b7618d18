//! How a model compares images and texts.

use tch::Tensor;

use super::Model;
use crate::{Retrieve, TextBatch, qformer::Images};

impl Retrieve for Model {
    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor> {
        Some(self.retrieval.as_ref()?.images(self.connector.qformer()?, features, self.kind))
    }

    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor> {
        self.retrieval.as_ref()?.texts(self.connector.qformer()?, texts, self.kind)
    }

    fn matching_scores(&self, features: &Tensor, images: &Tensor, captions: &TextBatch) -> Option<Tensor> {
        let images = Images { features, rows: images };
        self.retrieval.as_ref()?.matching(self.connector.qformer()?, images, captions, self.kind)
    }
}

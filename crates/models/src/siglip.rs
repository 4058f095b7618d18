//! SigLIP's image encoder: patches with learned positions, without a class token.
//!
//! Reference: `SiglipVisionModel` in transformers, `modeling_siglip.py`. Its pooling head is on the way to no image feature and not read.

use tch::Tensor;

use crate::{
    ModelError, Scope,
    layers::{Embedding, parts},
    patch_encoder::{Embeddings, EncoderConfig, PatchEmbedding, PatchEncoder, Takes},
    transformer::PLAIN,
};

/// `vision_model.embeddings`.
pub(crate) struct SiglipEmbeddings {
    patch_embedding: PatchEmbedding,
    position_embedding: Embedding,
}

parts!(SiglipEmbeddings);

/// `vision_model`.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
) -> Result<PatchEncoder<SiglipEmbeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = SiglipEmbeddings {
        patch_embedding: PatchEmbedding::load(&embeddings.at("patch_embedding"), c.width, c.patch, true)?,
        position_embedding: Embedding::load(&embeddings.at("position_embedding"), c.patches(), c.width)?,
    };
    PatchEncoder::load(
        scope,
        embeddings,
        ("encoder.layers", c.layers, Some("post_layernorm")),
        &PLAIN,
        c.block(),
        takes,
    )
}

impl Embeddings for SiglipEmbeddings {
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let x = self.patch_embedding.forward(pixels);
        &x + self.position_embedding.first(x.size()[1])
    }
}

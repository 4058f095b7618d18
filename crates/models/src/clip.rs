//! CLIP's image encoder: a class token before the patches, and a norm before the first block.
//!
//! Reference: `CLIPVisionModel` in transformers, `modeling_clip.py`; which states are taken: `LlavaModel.get_image_features`,
//! `modeling_llava.py`.

use tch::Tensor;

use crate::{
    ModelError, Scope,
    layers::{Embedding, LayerNorm, parts},
    patch_encoder::{Embeddings, EncoderConfig, PatchEmbedding, PatchEncoder, Takes},
    transformer::PLAIN,
};

/// `vision_model.embeddings`, and the norm behind it.
pub(crate) struct ClipEmbeddings {
    class_embedding: Tensor,
    patch_embedding: PatchEmbedding,
    position_embedding: Embedding,
    pre_norm: LayerNorm,
}

parts!(ClipEmbeddings: pre_norm);

/// `vision_model`.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
) -> Result<PatchEncoder<ClipEmbeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = ClipEmbeddings {
        class_embedding: embeddings.tensor("class_embedding", &[c.width])?,
        patch_embedding: PatchEmbedding::load(&embeddings.at("patch_embedding"), c.width, c.patch, false)?,
        position_embedding: Embedding::load(&embeddings.at("position_embedding"), c.tokens(), c.width)?,
        // The published name has this spelling.
        pre_norm: LayerNorm::load(&scope.at("pre_layrnorm"), c.width, c.eps)?,
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

impl Embeddings for ClipEmbeddings {
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let patches = self.patch_embedding.forward(pixels);
        let class = self.class_embedding.view([1, 1, -1]).expand([pixels.size()[0], -1, -1], false);
        let x = Tensor::cat(&[class, patches], 1);
        self.pre_norm.forward(&(&x + self.position_embedding.first(x.size()[1])))
    }
}

//! InternVL's image encoder of 300 million parameters: a class token before the patches of a tile, a learned position for each, and factors on what each
//! block adds.
//!
//! Reference: `InternVLVisionModel` in transformers 4.57, `modeling_internvl.py`. Differs: every tile has the configured size, so positions are
//! never interpolated.

use tch::Tensor;

use crate::{
    ModelError, Scope,
    layers::parts,
    patch_encoder::{Embeddings, EncoderConfig, PatchEmbedding, PatchEncoder, Takes},
    transformer::Names,
};

/// What its checkpoints call the parts of a block.
const NAMES: Names = Names {
    norms: ["layernorm_before", "layernorm_after"],
    attention: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    projection: "attention.projection_layer",
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: Some(["lambda_1", "lambda_2"]),
};

/// `vision_tower.embeddings`.
pub(crate) struct InternVlEmbeddings {
    cls_token: Tensor,
    position_embeddings: Tensor,
    projection: PatchEmbedding,
}

parts!(InternVlEmbeddings);

/// `vision_tower`.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
) -> Result<PatchEncoder<InternVlEmbeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = InternVlEmbeddings {
        cls_token: embeddings.tensor("cls_token", &[1, 1, c.width])?,
        position_embeddings: embeddings.tensor("position_embeddings", &[1, c.tokens(), c.width])?,
        projection: PatchEmbedding::load(&embeddings.at("patch_embeddings.projection"), c.width, c.patch, true)?,
    };
    PatchEncoder::load(scope, embeddings, ("encoder.layer", c.layers, None), &NAMES, c.block(), takes)
}

impl Embeddings for InternVlEmbeddings {
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let class = self.cls_token.expand([pixels.size()[0], -1, -1], false);
        Tensor::cat(&[class, self.projection.forward(pixels)], 1) + &self.position_embeddings
    }
}

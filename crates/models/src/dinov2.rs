//! DINOv2's image encoder: a class token before the patches, positions that are interpolated for other image sizes, and factors on what
//! each block adds.
//!
//! Reference: `Dinov2Model` in transformers, `modeling_dinov2.py`. The token that its own training hides patches behind is not read.

use tch::{Kind, Tensor};

use crate::{
    ModelError, Scope,
    layers::parts,
    patch_encoder::{Embeddings, EncoderConfig, PatchEmbedding, PatchEncoder, Takes},
    transformer::Names,
    vit::interpolate_positions,
};

/// What its checkpoints call the parts of a block with a feed-forward layer that is not gated.
const NAMES: Names = Names {
    norms: ["norm1", "norm2"],
    attention: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    projection: "attention.output.dense",
    feed_forward: ["mlp.fc1", "mlp.fc2"],
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
};
/// The same with a gated one.
const GATED: Names = Names { feed_forward: ["mlp.weights_in", "mlp.weights_out"], ..NAMES };

/// `embeddings`.
pub(crate) struct Dinov2Embeddings {
    cls_token: Tensor,
    position_embeddings: Tensor,
    projection: PatchEmbedding,
}

parts!(Dinov2Embeddings);

/// The module itself.
pub(crate) fn load(
    scope: &Scope<'_>,
    c: &EncoderConfig,
    takes: Takes,
) -> Result<PatchEncoder<Dinov2Embeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = Dinov2Embeddings {
        cls_token: embeddings.tensor("cls_token", &[1, 1, c.width])?,
        position_embeddings: embeddings.tensor("position_embeddings", &[1, c.tokens(), c.width])?,
        projection: PatchEmbedding::load(&embeddings.at("patch_embeddings.projection"), c.width, c.patch, true)?,
    };
    let names = if c.activation.is_some() { &NAMES } else { &GATED };
    PatchEncoder::load(scope, embeddings, ("encoder.layer", c.layers, Some("layernorm")), names, c.block(), takes)
}

impl Embeddings for Dinov2Embeddings {
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let [rows, columns] = self.projection.grid(pixels);
        let class = self.cls_token.expand([pixels.size()[0], -1, -1], false);
        let x = Tensor::cat(&[class, self.projection.forward(pixels)], 1);
        // In f32 whatever the computation's type, as the reference.
        let positions = interpolate_positions(&self.position_embeddings.to_kind(Kind::Float), rows, columns);
        x + positions.to_kind(self.position_embeddings.kind())
    }
}

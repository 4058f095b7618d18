//! The image encoder: a pre-norm Vision Transformer with fused query, key and value.
//!
//! Reference: `InstructBlipVisionModel` in transformers, `modeling_instructblip.py` (EVA-CLIP's ViT without its relative bias); `Blip2VisionModel` is the same network.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::{
    ModelError, Scope, TensorMap,
    config::EncoderSizes,
    layers::{Activation, parts},
    patch_encoder::{Embeddings, PatchEmbedding, PatchEncoder, Takes},
    transformer::{BlockShape, Names, PLAIN},
};

/// What its checkpoints call the parts of a block.
const NAMES: Names = Names { attention: &["self_attn.qkv"], projection: "self_attn.projection", ..PLAIN };

/// `vision_config` of a checkpoint; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Width.
    pub hidden_size: i64,
    /// Width of the feed-forward layer.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: i64,
    /// Height and width of the image in pixels.
    pub image_size: i64,
    /// Height and width of a patch in pixels.
    pub patch_size: i64,
    /// Activation of the feed-forward layer.
    pub hidden_act: Activation,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Whether `qkv` has a bias.
    pub qkv_bias: bool,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 1408,
            intermediate_size: 6144,
            num_hidden_layers: 39,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: Activation::Gelu,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            rest: Map::new(),
        }
    }
}

impl VisionConfig {
    /// Patches along an edge of an image.
    pub fn side(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Tokens the encoder gives for an image: the class token and one per patch.
    pub fn tokens(&self) -> i64 {
        1 + self.side() * self.side()
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        EncoderSizes {
            layers: self.num_hidden_layers,
            width: self.hidden_size,
            heads: self.num_attention_heads,
            inner: self.intermediate_size,
            image: self.image_size,
            patch: self.patch_size,
            eps: self.layer_norm_eps,
        }
        .check()
    }
}

/// Learned positions `[1, 1 + side^2, width]` for a grid of `rows` by `columns` patches: the class token's stays, the others are
/// interpolated as an image, bicubic, as the reference's `interpolate_pos_encoding`. A grid of the same size gets them as they are.
pub fn interpolate_positions(positions: &Tensor, rows: i64, columns: i64) -> Tensor {
    let size = positions.size();
    let (count, width) = (size[1] - 1, size[2]);
    let side = (count as f64).sqrt() as i64;
    if rows == side && columns == side {
        return positions.shallow_clone();
    }
    let grid = positions.narrow(1, 1, count).view([1, side, side, width]).permute([0, 3, 1, 2]);
    let grid = grid.upsample_bicubic2d([rows, columns], false, None, None);
    let grid = grid.permute([0, 2, 3, 1]).reshape([1, -1, width]);
    Tensor::cat(&[positions.narrow(1, 0, 1), grid], 1)
}

/// `embeddings`: patches, class token, learned positions.
pub(crate) struct VitEmbeddings {
    class_embedding: Tensor,
    position_embedding: Tensor,
    patch_embedding: PatchEmbedding,
    /// Patches along an edge of an image of the configured size.
    side: i64,
    /// Name of the positions.
    positions: String,
}

parts!(VitEmbeddings);

/// `vision_model`.
pub(crate) fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<PatchEncoder<VitEmbeddings>, ModelError> {
    let embeddings = scope.at("embeddings");
    let embeddings = VitEmbeddings {
        class_embedding: embeddings.tensor("class_embedding", &[1, 1, c.hidden_size])?,
        position_embedding: embeddings.tensor("position_embedding", &[1, c.tokens(), c.hidden_size])?,
        patch_embedding: PatchEmbedding::load(&embeddings.at("patch_embedding"), c.hidden_size, c.patch_size, true)?,
        side: c.side(),
        positions: format!("{}.position_embedding", embeddings.path()),
    };
    let shape = BlockShape {
        width: c.hidden_size,
        inner: c.intermediate_size,
        heads: c.num_attention_heads,
        activation: Some(c.hidden_act),
        eps: c.layer_norm_eps,
        bias: c.qkv_bias,
    };
    let stack = ("encoder.layers", c.num_hidden_layers, Some("post_layernorm"));
    PatchEncoder::load(scope, embeddings, stack, &NAMES, shape, Takes::Last)
}

impl Embeddings for VitEmbeddings {
    /// Images of another size than the configured one get interpolated positions.
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let [rows, columns] = self.patch_embedding.grid(pixels);
        let class = self.class_embedding.expand([pixels.size()[0], -1, -1], false);
        let x = Tensor::cat(&[class, self.patch_embedding.forward(pixels)], 1);
        x + interpolate_positions(&self.position_embedding, rows, columns)
    }

    fn refit(&self, tensors: &mut TensorMap) {
        if let Some(positions) = tensors.get_mut(&self.positions) {
            *positions = tch::no_grad(|| interpolate_positions(positions, self.side, self.side));
        }
    }
}

//! The image encoder: a pre-norm Vision Transformer with fused query, key and value.
//!
//! Reference: `InstructBlipVisionModel` in transformers, `modeling_instructblip.py` (EVA-CLIP's ViT without its relative bias); `Blip2VisionModel` is the same network.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::{
    Feed, Flow, Linear, ModelError, Scope, TensorMap, Weight,
    clip::patches,
    config::EncoderSizes,
    encoder::ImageEncoder,
    layers::{Activation, Attend, LayerNorm, Parts, attention, parts},
};

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
struct Embeddings {
    class_embedding: Tensor,
    position_embedding: Tensor,
    patch_weight: Tensor,
    patch_bias: Tensor,
    patch: i64,
    /// Patches along an edge of an image of the configured size.
    side: i64,
    /// Name of the positions.
    positions: String,
}

impl Embeddings {
    fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<Self, ModelError> {
        let patch = scope.at("patch_embedding");
        Ok(Self {
            class_embedding: scope.tensor("class_embedding", &[1, 1, c.hidden_size])?,
            position_embedding: scope.tensor("position_embedding", &[1, c.tokens(), c.hidden_size])?,
            patch_weight: patch.tensor("weight", &[c.hidden_size, 3, c.patch_size, c.patch_size])?,
            patch_bias: patch.tensor("bias", &[c.hidden_size])?,
            patch: c.patch_size,
            side: c.side(),
            positions: format!("{}.position_embedding", scope.path()),
        })
    }

    /// Images of another size than the configured one get interpolated positions.
    fn forward(&self, pixels: &Tensor) -> Tensor {
        let size = pixels.size();
        let (images, rows, columns) = (size[0], size[2] / self.patch, size[3] / self.patch);
        let patches = patches(pixels, &self.patch_weight, Some(&self.patch_bias), self.patch);
        let class = self.class_embedding.expand([images, -1, -1], false);
        Tensor::cat(&[class, patches], 1) + interpolate_positions(&self.position_embedding, rows, columns)
    }
}

/// `self_attn`: one projection for queries, keys and values.
struct Attention {
    qkv: Linear,
    projection: Linear,
    heads: i64,
}

impl Attention {
    fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<Self, ModelError> {
        let d = c.hidden_size;
        Ok(Self {
            qkv: Linear::load(&scope.at("qkv"), 3 * d, d, c.qkv_bias)?,
            projection: Linear::load(&scope.at("projection"), d, d, true)?,
            heads: c.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let width = size[2] / self.heads;
        let qkv = self.qkv.forward(x).view([size[0], size[1], 3, self.heads, width]).permute([2, 0, 3, 1, 4]);
        // One by one, each part's gradient would be put into zeros of the whole.
        let [q, k, v]: [Tensor; 3] = qkv.unbind(0).try_into().expect("three parts");
        let attend = Attend { scale: (width as f64).powf(-0.5), bias: None, causal: false, rounded: false };
        let mixed = attention(&q, &k, &v, attend);
        self.projection.forward(&mixed)
    }
}

/// `mlp`.
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<Self, ModelError> {
        Ok(Self {
            fc1: Linear::load(&scope.at("fc1"), c.intermediate_size, c.hidden_size, true)?,
            fc2: Linear::load(&scope.at("fc2"), c.hidden_size, c.intermediate_size, true)?,
            activation: c.hidden_act,
        })
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.fc2.forward(&self.activation.forward(&self.fc1.forward(x)))
    }
}

/// `encoder.layers.i`: norms before attention and feed-forward layer.
pub(crate) struct Layer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

parts!(Attention: qkv, projection);
parts!(Mlp: fc1, fc2);
parts!(Layer: layer_norm1, self_attn, layer_norm2, mlp);
parts!(Vit: layers, post_layernorm);

impl Layer {
    fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<Self, ModelError> {
        Ok(Self {
            layer_norm1: LayerNorm::load(&scope.at("layer_norm1"), c.hidden_size, c.layer_norm_eps)?,
            self_attn: Attention::load(&scope.at("self_attn"), c)?,
            layer_norm2: LayerNorm::load(&scope.at("layer_norm2"), c.hidden_size, c.layer_norm_eps)?,
            mlp: Mlp::load(&scope.at("mlp"), c)?,
        })
    }

    /// What its norms feed.
    fn feeds(&self) -> impl Iterator<Item = Feed> {
        [self.layer_norm1.feeds(&[&self.self_attn.qkv]), self.layer_norm2.feeds(&[&self.mlp.fc1])].into_iter().flatten()
    }

    /// `[images, tokens, width]` to the same.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.self_attn.forward(&self.layer_norm1.forward(x));
        &x + self.mlp.forward(&self.layer_norm2.forward(&x))
    }
}

/// `vision_model`.
pub(crate) struct Vit {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    post_layernorm: LayerNorm,
}

impl Vit {
    pub fn load(scope: &Scope<'_>, c: &VisionConfig) -> Result<Self, ModelError> {
        let layers = scope.at("encoder.layers");
        Ok(Self {
            embeddings: Embeddings::load(&scope.at("embeddings"), c)?,
            layers: (0..c.num_hidden_layers).map(|i| Layer::load(&layers.at(i), c)).collect::<Result<_, _>>()?,
            post_layernorm: LayerNorm::load(&scope.at("post_layernorm"), c.hidden_size, c.layer_norm_eps)?,
        })
    }
}

impl ImageEncoder for Vit {
    fn by_block(&self) -> Vec<Vec<&Linear>> {
        self.layers.iter().map(Parts::linears).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        self.layers[block].weights()
    }

    /// The last norm's outputs go to the connector.
    fn feeds(&self) -> Vec<Feed> {
        self.layers.iter().flat_map(Layer::feeds).collect()
    }

    fn enter(&self, pixels: &Tensor) -> Flow {
        Flow { hidden: self.embeddings.forward(pixels), context: Vec::new(), carried: None }
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        flow.with_hidden(self.layers[block].forward(&flow.hidden))
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        self.post_layernorm.forward(&flow.hidden)
    }

    /// Positions are interpolated.
    fn refit(&self, tensors: &mut TensorMap) {
        if let Some(positions) = tensors.get_mut(&self.embeddings.positions) {
            let side = self.embeddings.side;
            *positions = tch::no_grad(|| interpolate_positions(positions, side, side));
        }
    }
}

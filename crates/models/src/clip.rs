//! CLIP's image encoder: a pre-norm Vision Transformer with a class token and a norm before the first block, of which a model takes the
//! states after some block.
//!
//! Reference: `CLIPVisionModel` in transformers, `modeling_clip.py`; which states: `LlavaModel.get_image_features`, `modeling_llava.py`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use crate::{
    Feed, Flow, Linear, ModelError, Scope, Weight,
    config::EncoderSizes,
    encoder::ImageEncoder,
    layers::{Activation, Attend, Embedding, LayerNorm, Parts, attention, parts, split_heads},
};

/// Place of the chosen states among the companions of a flow.
const CHOSEN: usize = 0;

/// `vision_config` of a CLIP encoder; absent fields have the published class's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// `clip_vision_model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_type: Option<String>,
    /// Width.
    pub hidden_size: i64,
    /// Width of the feed-forward layers.
    pub intermediate_size: i64,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: i64,
    /// Height and width of an image.
    pub image_size: i64,
    /// Height and width of a patch.
    pub patch_size: i64,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Fields that the network does not read, kept for writing the folder again.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            model_type: None,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            rest: Map::new(),
        }
    }
}

impl ClipConfig {
    /// Patches of an image.
    pub fn patches(&self) -> i64 {
        let side = self.image_size / self.patch_size;
        side * side
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

/// Which states of the encoder are image features.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    /// Blocks that have run.
    pub after: usize,
    /// Whether the class token is left out.
    pub without_class: bool,
}

/// `self_attn`.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl Attention {
    fn forward(&self, x: &Tensor) -> Tensor {
        let heads = |linear: &Linear| split_heads(&linear.forward(x), self.heads);
        let q = heads(&self.q_proj);
        let scale = (q.size()[3] as f64).powf(-0.5);
        let attend = Attend { scale, bias: None, causal: false, rounded: false };
        self.out_proj.forward(&attention(&q, &heads(&self.k_proj), &heads(&self.v_proj), attend))
    }
}

/// `mlp`.
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

/// `encoder.layers.i`: norms before attention and feed-forward layer.
pub(crate) struct Layer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

parts!(Attention: q_proj, k_proj, v_proj, out_proj);
parts!(Mlp: fc1, fc2);
parts!(Layer: layer_norm1, self_attn, layer_norm2, mlp);

/// Sizes of a layer.
#[derive(Clone, Copy)]
pub(crate) struct LayerShape {
    pub width: i64,
    pub inner: i64,
    pub heads: i64,
    pub activation: Activation,
    pub eps: f64,
}

impl Layer {
    pub fn load(scope: &Scope<'_>, shape: LayerShape) -> Result<Self, ModelError> {
        let LayerShape { width, inner, heads, activation, eps } = shape;
        let attention = scope.at("self_attn");
        let square = |name: &str| Linear::load(&attention.at(name), width, width, true);
        Ok(Self {
            layer_norm1: LayerNorm::load(&scope.at("layer_norm1"), width, eps)?,
            self_attn: Attention {
                q_proj: square("q_proj")?,
                k_proj: square("k_proj")?,
                v_proj: square("v_proj")?,
                out_proj: square("out_proj")?,
                heads,
            },
            layer_norm2: LayerNorm::load(&scope.at("layer_norm2"), width, eps)?,
            mlp: Mlp {
                fc1: Linear::load(&scope.at("mlp.fc1"), inner, width, true)?,
                fc2: Linear::load(&scope.at("mlp.fc2"), width, inner, true)?,
                activation,
            },
        })
    }

    /// What its norms feed.
    pub fn feeds(&self) -> impl Iterator<Item = Feed> {
        let Attention { q_proj, k_proj, v_proj, .. } = &self.self_attn;
        let attention = self.layer_norm1.feeds(&[q_proj, k_proj, v_proj]);
        [attention, self.layer_norm2.feeds(&[&self.mlp.fc1])].into_iter().flatten()
    }

    /// `[images, tokens, width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.self_attn.forward(&self.layer_norm1.forward(x));
        let inner = self.mlp.activation.forward(&self.mlp.fc1.forward(&self.layer_norm2.forward(&x)));
        &x + self.mlp.fc2.forward(&inner)
    }
}

/// A convolution whose stride is its kernel, written as the matrix product that it is: `[images, 3, height, width]` to
/// `[images, patches, width]`. Pixels beyond the last whole patch are not seen.
pub(crate) fn patches(pixels: &Tensor, weight: &Tensor, bias: Option<&Tensor>, patch: i64) -> Tensor {
    let size = pixels.size();
    let (images, rows, columns) = (size[0], size[2] / patch, size[3] / patch);
    pixels
        .to_kind(weight.kind())
        .narrow(2, 0, rows * patch)
        .narrow(3, 0, columns * patch)
        .reshape([images, 3, rows, patch, columns, patch])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([images, rows * columns, -1])
        .linear(&weight.flatten(1, -1), bias)
}

/// `vision_model`.
pub(crate) struct Clip {
    class_embedding: Tensor,
    patch_weight: Tensor,
    positions: Embedding,
    pre_norm: LayerNorm,
    layers: Vec<Layer>,
    /// In the checkpoint, and not on the way to any chosen states.
    post_norm: LayerNorm,
    chosen: Chosen,
    patch: i64,
}

parts!(Clip: pre_norm, layers, post_norm);

impl Clip {
    pub fn load(scope: &Scope<'_>, c: &ClipConfig, chosen: Chosen) -> Result<Self, ModelError> {
        let (embeddings, width) = (scope.at("embeddings"), c.hidden_size);
        let shape = LayerShape {
            width,
            inner: c.intermediate_size,
            heads: c.num_attention_heads,
            activation: c.hidden_act,
            eps: c.layer_norm_eps,
        };
        let layers = scope.at("encoder.layers");
        let patch = [width, 3, c.patch_size, c.patch_size];
        Ok(Self {
            class_embedding: embeddings.tensor("class_embedding", &[width])?,
            patch_weight: embeddings.at("patch_embedding").tensor("weight", &patch)?,
            positions: Embedding::load(&embeddings.at("position_embedding"), c.patches() + 1, width)?,
            // The published name has this spelling.
            pre_norm: LayerNorm::load(&scope.at("pre_layrnorm"), width, c.layer_norm_eps)?,
            layers: (0..c.num_hidden_layers).map(|i| Layer::load(&layers.at(i), shape)).collect::<Result<_, _>>()?,
            post_norm: LayerNorm::load(&scope.at("post_layernorm"), width, c.layer_norm_eps)?,
            chosen,
            patch: c.patch_size,
        })
    }

    /// The states after `ran` blocks, kept aside if they are the chosen ones.
    fn choose(&self, flow: Flow, ran: usize) -> Flow {
        if ran != self.chosen.after {
            return flow;
        }
        let chosen = match self.chosen.without_class {
            true => flow.hidden.narrow(1, 1, flow.hidden.size()[1] - 1),
            false => flow.hidden.shallow_clone(),
        };
        Flow { context: vec![chosen], carried: Some(CHOSEN), ..flow }
    }
}

impl ImageEncoder for Clip {
    fn by_block(&self) -> Vec<Vec<&Linear>> {
        self.layers.iter().map(Parts::linears).collect()
    }

    fn block_weights(&self, block: usize) -> Vec<&Weight> {
        self.layers[block].weights()
    }

    fn feeds(&self) -> Vec<Feed> {
        self.layers.iter().flat_map(Layer::feeds).collect()
    }

    fn enter(&self, pixels: &Tensor) -> Flow {
        let patches = patches(pixels, &self.patch_weight, None, self.patch);
        let class = self.class_embedding.view([1, 1, -1]).expand([pixels.size()[0], -1, -1], false);
        let x = Tensor::cat(&[class, patches], 1);
        let x = &x + self.positions.first(x.size()[1]);
        self.choose(Flow { hidden: self.pre_norm.forward(&x), context: Vec::new(), carried: None }, 0)
    }

    fn run_block(&self, block: usize, flow: &Flow) -> Flow {
        self.choose(flow.with_hidden(self.layers[block].forward(&flow.hidden)), block + 1)
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        flow.context[CHOSEN].shallow_clone()
    }

    fn needed(&self) -> usize {
        self.chosen.after
    }
}

/// Number of blocks that have run where `hidden_states[index]` of the reference is taken; negative indices count from the end.
pub(crate) fn after(field: &str, index: i64, blocks: usize) -> Result<usize, ModelError> {
    let states = blocks as i64 + 1;
    let found = if index < 0 { states + index } else { index };
    if (0..states).contains(&found) {
        return Ok(found as usize);
    }
    Err(ModelError::Config(format!("`{field}` is {index}; the encoder has states {} to {blocks}", -states)))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn states_are_counted_as_the_reference_counts_them() {
        assert_eq!(after("vision_feature_layer", -2, 24).expect("there"), 23);
        assert_eq!(after("vision_feature_layer", -1, 24).expect("there"), 24);
        assert_eq!(after("vision_feature_layer", 0, 24).expect("there"), 0);
        for outside in [25, -26] {
            let error = after("vision_feature_layer", outside, 24).expect_err("outside").to_string();
            assert!(error.contains("-25 to 24"), "{error}");
        }
        let pixels = Tensor::arange(3 * 4 * 5, (Kind::Float, tch::Device::Cpu)).view([1, 3, 4, 5]);
        let weight = Tensor::ones([1, 3, 2, 2], (Kind::Float, tch::Device::Cpu));
        let convolved =
            pixels.conv2d::<Tensor>(&weight, None, [2i64, 2].as_slice(), [0i64].as_slice(), [1i64].as_slice(), 1);
        assert!(patches(&pixels, &weight, None, 2).view([-1]).equal(&convolved.view([-1])));
    }
}

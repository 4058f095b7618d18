//! Connectors of models that read images as tiles: squares of patches as one feature, then one linear (Idefics3 and SmolVLM), or a norm and two (InternVL).
//!
//! Reference: `Idefics3Connector` in transformers, `modeling_idefics3.py`; `InternVLMultiModalProjector` and `pixel_shuffle`, `modeling_internvl.py`.

use tch::{Kind, Tensor};

use crate::{
    Flow, Linear, ModelError, Prompts, Scope, TokenKind, Weight,
    connector::Connector,
    layers::{Activation, LayerNorm, Parts, parts},
    mlp::{enter_images, leave_images, stack_images},
};

/// Sizes of the connector.
pub(crate) struct ShuffleShape {
    /// Width of a patch.
    pub inputs: i64,
    /// Width of the language model's words.
    pub outputs: i64,
    /// Patches along a side of a tile.
    pub side: i64,
    /// Patches along a side that become one feature.
    pub scale: i64,
    /// Features of a photograph.
    pub tokens: usize,
}

impl ShuffleShape {
    /// Width of a square of patches.
    fn gathered(&self) -> i64 {
        self.inputs * self.scale * self.scale
    }
}

/// Added to the variance in the norm: no setting of the reference.
const EPS: f64 = 1e-5;

/// The connector.
pub(crate) struct Shuffle {
    /// `layer_norm` of InternVL.
    norm: Option<LayerNorm>,
    /// `proj` of Idefics3 and SmolVLM, `linear_1` of InternVL.
    first: Linear,
    /// `linear_2` of InternVL, and what is before it.
    second: Option<Linear>,
    activation: Activation,
    side: i64,
    scale: i64,
    tokens: usize,
    kind: Kind,
}

parts!(Shuffle: norm, first, second);

impl Shuffle {
    /// With one linear, `proj` of `scope`.
    pub fn load(scope: &Scope<'_>, shape: &ShuffleShape) -> Result<Self, ModelError> {
        let &ShuffleShape { outputs, side, scale, tokens, .. } = shape;
        let first = Linear::load(&scope.at("proj"), outputs, shape.gathered(), false)?;
        let activation = Activation::Gelu;
        Ok(Self { norm: None, first, second: None, activation, side, scale, tokens, kind: scope.kind() })
    }

    /// With a norm and two linears.
    pub fn with_layers(scope: &Scope<'_>, shape: &ShuffleShape, activation: Activation) -> Result<Self, ModelError> {
        let &ShuffleShape { outputs, side, scale, tokens, .. } = shape;
        let norm = Some(LayerNorm::load(&scope.at("layer_norm"), shape.gathered(), EPS)?);
        let first = Linear::load(&scope.at("linear_1"), outputs, shape.gathered(), true)?;
        let second = Some(Linear::load(&scope.at("linear_2"), outputs, outputs, true)?);
        Ok(Self { norm, first, second, activation, side, scale, tokens, kind: scope.kind() })
    }

    /// Patches of tiles `[images, tiles * patches, width]` to `[images, tiles * features, width * scale * scale]`.
    fn gather(&self, patches: &Tensor) -> Tensor {
        let (size, squares) = (patches.size(), self.side / self.scale);
        patches.reshape([-1, squares, self.scale, squares, self.scale, size[2]]).permute([0, 1, 3, 2, 4, 5]).reshape([
            size[0],
            size[1] / (self.scale * self.scale),
            size[2] * self.scale * self.scale,
        ])
    }
}

impl Connector for Shuffle {
    fn image_tokens(&self) -> usize {
        self.tokens
    }

    fn by_block(&self) -> Vec<Vec<&Linear>> {
        vec![self.linears()]
    }

    fn block_weights(&self, _block: usize) -> Vec<&Weight> {
        self.weights()
    }

    fn enter(&self, features: &Tensor, prompts: &Prompts) -> Flow {
        enter_images(self.gather(&features.to_kind(self.kind)), prompts)
    }

    fn run_block(&self, _block: usize, flow: &Flow) -> Flow {
        let normed = self.norm.as_ref().map(|norm| norm.forward(&flow.hidden));
        let hidden = self.first.forward(normed.as_ref().unwrap_or(&flow.hidden));
        flow.with_hidden(match &self.second {
            Some(second) => second.forward(&self.activation.forward(&hidden)),
            None => hidden,
        })
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        leave_images(flow)
    }

    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        stack_images(flows)
    }

    fn token_kinds(&self, flow: &Flow) -> Vec<TokenKind> {
        TokenKind::parts(&[(TokenKind::Visual, flow.hidden.size()[1])])
    }
}

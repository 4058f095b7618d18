//! The connector of Idefics3 and SmolVLM: squares of patches as one, then one linear.
//!
//! Reference: `Idefics3Connector` in transformers, `modeling_idefics3.py`.

use tch::{Kind, Tensor};

use crate::{
    Flow, Linear, ModelError, Prompts, Scope, TokenKind, Weight,
    connector::Connector,
    layers::{Parts, parts},
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

/// `connector.modality_projection`.
pub(crate) struct Shuffle {
    proj: Linear,
    side: i64,
    scale: i64,
    tokens: usize,
    kind: Kind,
}

parts!(Shuffle: proj);

impl Shuffle {
    pub fn load(scope: &Scope<'_>, shape: &ShuffleShape) -> Result<Self, ModelError> {
        let inputs = shape.inputs * shape.scale * shape.scale;
        Ok(Self {
            proj: Linear::load(&scope.at("proj"), shape.outputs, inputs, false)?,
            side: shape.side,
            scale: shape.scale,
            tokens: shape.tokens,
            kind: scope.kind(),
        })
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
        flow.with_hidden(self.proj.forward(&flow.hidden))
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

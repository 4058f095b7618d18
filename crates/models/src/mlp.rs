//! The connector of LLaVA: two linears on each image feature. Where an image is tiles (LLaVA-NeXT), their features are put together behind it, and
//! a learned vector ends each line.
//!
//! Reference: `LlavaMultiModalProjector` in transformers, `modeling_llava.py`; `pack_image_features` in `modeling_llava_next.py`.

use tch::{Kind, Tensor};

use crate::{
    Flow, Linear, ModelError, Mosaic, Prompts, Scope, TokenKind, Weight,
    connector::Connector,
    layers::{Activation, Parts, parts},
};

/// Sizes of the connector.
pub(crate) struct MlpShape {
    /// Width of an image feature.
    pub inputs: i64,
    /// Width of the language model's words.
    pub outputs: i64,
    /// Whether its linears have biases.
    pub bias: bool,
    /// Between the two.
    pub activation: Activation,
    /// Features of an image.
    pub tokens: usize,
}

/// `multi_modal_projector`.
pub(crate) struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
    activation: Activation,
    tokens: usize,
    kind: Kind,
    /// `image_newline`, `[width]`, where an image is tiles.
    newline: Option<Tensor>,
}

parts!(Mlp: linear_1, linear_2);

impl Mlp {
    pub fn load(scope: &Scope<'_>, shape: &MlpShape) -> Result<Self, ModelError> {
        Ok(Self {
            linear_1: Linear::load(&scope.at("linear_1"), shape.outputs, shape.inputs, shape.bias)?,
            linear_2: Linear::load(&scope.at("linear_2"), shape.outputs, shape.outputs, shape.bias)?,
            activation: shape.activation,
            tokens: shape.tokens,
            kind: scope.kind(),
            newline: None,
        })
    }

    /// The same for images that are tiles, with what ends a line.
    pub fn with_newline(self, newline: Tensor) -> Self {
        Self { newline: Some(newline), ..self }
    }
}

/// Rows of the images that the rows of a batch are about, beside the features: computed once for all rows on an image.
pub(crate) fn enter_images(features: Tensor, prompts: &Prompts) -> Flow {
    Flow { hidden: features, context: vec![prompts.image.shallow_clone()], carried: None }
}

/// What each row gets of the images that [`enter_images`] began with.
pub(crate) fn leave_images(flow: &Flow) -> Tensor {
    flow.hidden.index_select(0, &flow.context[0])
}

/// Flows of [`enter_images`] as one.
pub(crate) fn stack_images(flows: &[Flow]) -> Option<Flow> {
    let alone = flows.iter().map(|flow| {
        let hidden = leave_images(flow);
        let rows = Tensor::arange(hidden.size()[0], (Kind::Int64, hidden.device()));
        Flow { hidden, context: vec![rows], carried: None }
    });
    let mut stacked = Flow::stack(&alone.collect::<Vec<_>>(), usize::MAX)?;
    stacked.context[0] = Tensor::arange(stacked.hidden.size()[0], (Kind::Int64, stacked.hidden.device()));
    Some(stacked)
}

impl Connector for Mlp {
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
        enter_images(features.to_kind(self.kind), prompts)
    }

    fn run_block(&self, _block: usize, flow: &Flow) -> Flow {
        let hidden = self.activation.forward(&self.linear_1.forward(&flow.hidden));
        flow.with_hidden(self.linear_2.forward(&hidden))
    }

    fn leave(&self, flow: &Flow) -> Tensor {
        leave_images(flow)
    }

    fn lay(&self, states: &Tensor, mosaic: &Mosaic) -> Tensor {
        let Some(newline) = &self.newline else { return states.shallow_clone() };
        let end = newline.view([1, 1, -1]).expand([states.size()[0], -1, -1], false);
        let places = Tensor::from_slice(&mosaic.places()).to_device(states.device());
        Tensor::cat(&[states, &end], 1).index_select(1, &places)
    }

    fn stack(&self, flows: &[Flow]) -> Option<Flow> {
        stack_images(flows)
    }

    fn token_kinds(&self, flow: &Flow) -> Vec<TokenKind> {
        TokenKind::parts(&[(TokenKind::Visual, flow.hidden.size()[1])])
    }
}

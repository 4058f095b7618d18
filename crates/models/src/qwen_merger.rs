//! The connector of Qwen2-VL and Qwen2.5-VL: a norm, then two linears on the patches of a square.
//!
//! Reference: `PatchMerger` in transformers, `modeling_qwen2_vl.py`.

use tch::{Kind, Tensor};

use crate::{
    Flow, Linear, ModelError, Prompts, Scope, TokenKind, Weight,
    connector::Connector,
    layers::{Activation, Parts, parts},
    mlp::{enter_images, leave_images, stack_images},
    qwen_vision::{Norm, QwenVision},
};

/// `visual.merger`.
pub(crate) struct Merger {
    ln_q: Norm,
    first: Linear,
    second: Linear,
    /// Patches of a feature.
    merged: i64,
    /// Features of an image of middling size.
    tokens: usize,
    kind: Kind,
}

parts!(Merger: ln_q, first, second);

impl Merger {
    /// `tokens` are those of an image of middling size, for those who ask before they have an image.
    pub fn load(scope: &Scope<'_>, c: &QwenVision, tokens: usize) -> Result<Self, ModelError> {
        let merged = c.merge * c.merge;
        let inner = c.width * merged;
        Ok(Self {
            ln_q: Norm::load(&scope.at("ln_q"), c.width, c.windows.is_some())?,
            first: Linear::load(&scope.at("mlp.0"), inner, inner, true)?,
            second: Linear::load(&scope.at("mlp.2"), c.handed, inner, true)?,
            merged,
            tokens,
            kind: scope.kind(),
        })
    }
}

impl Connector for Merger {
    fn image_tokens(&self) -> usize {
        self.tokens
    }

    fn by_block(&self) -> Vec<Vec<&Linear>> {
        vec![self.linears()]
    }

    fn block_weights(&self, _block: usize) -> Vec<&Weight> {
        self.first.weights().chain(self.second.weights()).collect()
    }

    fn enter(&self, features: &Tensor, prompts: &Prompts) -> Flow {
        let size = features.size();
        let read = self.ln_q.forward(&features.to_kind(self.kind));
        enter_images(read.reshape([size[0], size[1] / self.merged, size[2] * self.merged]), prompts)
    }

    fn run_block(&self, _block: usize, flow: &Flow) -> Flow {
        flow.with_hidden(self.second.forward(&Activation::Gelu.forward(&self.first.forward(&flow.hidden))))
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

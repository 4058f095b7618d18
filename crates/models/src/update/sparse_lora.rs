//! SparseLoRA: a low-rank product under the keep mask of its weight.
//!
//! Paper: "Rethinking Pruning for Vision-Language Models", arXiv 2404.02424, section 3.3. Reference: the scripts' `SparseLinear`, which masks
//! the sum of weight and product in every forward.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{LoraParts, Update};
use crate::{KeepMask, ModelError};

/// `(W + sBA)∘M`.
#[derive(Debug)]
pub struct SparseLora(pub LoraParts);

impl SparseLora {
    /// Its name in files and settings.
    pub const KIND: &'static str = "sparse-lora";

    pub(super) fn read(
        settings: &Value,
        part: &mut dyn FnMut(&'static str) -> Result<Tensor, String>,
    ) -> Result<Box<dyn Update>, String> {
        Ok(Box::new(Self(LoraParts::read(settings, part)?)))
    }
}

impl Update for SparseLora {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        self.0.parameters()
    }

    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update> {
        Box::new(Self(self.0.with(parameters)))
    }

    fn settings(&self) -> Value {
        json!({ "scale": self.0.scale, "masked": true })
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        self.0.fits(weight, shape)
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        let mut formed = self.0.add_to(base, kind);
        match keep {
            // One kernel instead of two in the backward pass. Zeros may be negative, which is zero all the same.
            Some(keep) if kind != Kind::Float => formed * keep.keep(),
            // The sum has no other reader, and its gradient does not need its value.
            Some(keep) => formed.masked_fill_(&keep.remove(), 0.0),
            None => formed,
        }
    }

    fn respects_mask(&self) -> bool {
        true
    }
}

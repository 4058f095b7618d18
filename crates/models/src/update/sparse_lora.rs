//! SparseLoRA: a low-rank product under the keep mask of its weight.
//!
//! Paper: "Rethinking Pruning for Vision-Language Models", arXiv 2404.02424, section 3.3. Reference: the scripts' `SparseLinear`, which masks
//! the sum of weight and product in every forward.

use tch::{Kind, Tensor};

use super::{LoraParts, lora::LowRank};
use crate::KeepMask;

/// `(W + sBA)∘M`.
#[derive(Debug)]
pub struct SparseLora(pub LoraParts);

impl LowRank for SparseLora {
    const KIND: &'static str = "sparse-lora";
    const MASKED: bool = true;

    fn of(parts: LoraParts) -> Self {
        Self(parts)
    }

    fn parts(&self) -> &LoraParts {
        &self.0
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
}

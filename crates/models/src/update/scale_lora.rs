//! ScaleLoRA: every weight is scaled by an element of a low-rank product, which starts at one.
//!
//! Paper: Zimmer et al., "PERP: rethinking the prune-retrain paradigm in the era of LLMs", arXiv 2312.15230, section 3. Reference: the layers of that name in
//! ZIB-IOL/PERP, where `A` and `B` start at `1 / sqrt(rank)`. A weight that is zero stays zero, with a mask or without.

use tch::{Kind, Tensor};

use super::{
    LoraParts,
    lora::{LowRank, pruned},
};
use crate::KeepMask;

/// `(W∘M)∘(sBA)`, with `s` 1.
#[derive(Debug)]
pub struct ScaleLora(pub LoraParts);

impl LowRank for ScaleLora {
    const KIND: &'static str = "scale-lora";
    const MASKED: bool = true;

    fn of(parts: LoraParts) -> Self {
        Self(parts)
    }

    fn parts(&self) -> &LoraParts {
        &self.0
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        pruned(base, keep, kind) * self.0.product(kind)
    }
}

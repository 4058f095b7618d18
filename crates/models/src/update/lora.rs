//! LoRA: a low-rank product beside the weight.
//!
//! Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, section 4.1. On a pruned weight the product is
//! added to what pruning left, so pruned positions come alive: the baseline that SparseLoRA is compared with.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Update, fitting};
use crate::{KeepMask, ModelError};

/// The two factors of a low-rank product and its scale.
#[derive(Debug)]
pub struct LoraParts {
    /// `[rank, inputs]`.
    pub a: Tensor,
    /// `[outputs, rank]`.
    pub b: Tensor,
    /// Factor on the product.
    pub scale: f64,
}

impl LoraParts {
    /// Rank of the product.
    pub fn rank(&self) -> i64 {
        self.a.size().first().copied().unwrap_or(0)
    }

    /// `weight + scale * b @ a`, in `kind`.
    pub(super) fn add_to(&self, weight: &Tensor, kind: Kind) -> Tensor {
        let update = &self.b * self.scale;
        weight.to_kind(kind).addmm(&update.to_kind(kind), &self.a.to_kind(kind))
    }

    /// `scale * b @ a`, in `kind`.
    pub(super) fn product(&self, kind: Kind) -> Tensor {
        (&self.b * self.scale).to_kind(kind).matmul(&self.a.to_kind(kind))
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        let &[outputs, inputs] = shape else {
            return Err(ModelError::Shape { name: weight.to_owned(), found: shape.to_vec(), wanted: vec![-1, -1] });
        };
        fitting(weight, "lora_A", &self.a, &[self.rank(), inputs])?;
        fitting(weight, "lora_B", &self.b, &[outputs, self.rank()])
    }

    /// Reads the factors under the names that a file has for them.
    pub(super) fn read_named(
        settings: &Value,
        [first, second]: [&'static str; 2],
        part: &mut dyn FnMut(&'static str) -> Result<Tensor, String>,
    ) -> Result<Self, String> {
        let scale = settings.get("scale").and_then(Value::as_f64).ok_or("its scale is missing")?;
        let mut matrix = |name| match part(name)? {
            tensor if tensor.dim() == 2 => Ok(tensor),
            _ => Err(format!("`{name}` is not a matrix")),
        };
        Ok(Self { a: matrix(first)?, b: matrix(second)?, scale })
    }
}

/// A weight in `kind`, zero where `keep` removes.
pub(super) fn pruned(base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
    match keep {
        Some(keep) => base.to_kind(kind).masked_fill(&keep.remove(), 0.0),
        None => base.to_kind(kind),
    }
}

/// An update that trains a low-rank product; everything but its formula is shared.
pub(crate) trait LowRank: std::fmt::Debug + Send + Sized + 'static {
    /// Its name in files and settings.
    const KIND: &'static str;
    /// Whether pruned positions stay zero.
    const MASKED: bool;

    /// From its factors.
    fn of(parts: LoraParts) -> Self;
    /// Its factors.
    fn parts(&self) -> &LoraParts;
    /// As [`Update::form`].
    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor;

    /// Reads it from a file.
    fn read_boxed(
        settings: &Value,
        part: &mut dyn FnMut(&'static str) -> Result<Tensor, String>,
    ) -> Result<Box<dyn Update>, String> {
        Ok(Box::new(Self::of(LoraParts::read_named(settings, ["lora_A", "lora_B"], part)?)))
    }
}

impl<U: LowRank> Update for U {
    fn kind(&self) -> &'static str {
        U::KIND
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        let LoraParts { a, b, .. } = self.parts();
        vec![("lora_A", a), ("lora_B", b)]
    }

    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update> {
        let [a, b] = parameters.try_into().expect("both factors");
        Box::new(U::of(LoraParts { a, b, scale: self.parts().scale }))
    }

    fn settings(&self) -> Value {
        json!({ "scale": self.parts().scale, "masked": U::MASKED })
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        self.parts().fits(weight, shape)
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        LowRank::form(self, base, keep, kind)
    }

    fn respects_mask(&self) -> bool {
        U::MASKED
    }
}

/// `W∘M + sBA`.
#[derive(Debug)]
pub struct Lora(pub LoraParts);

impl LowRank for Lora {
    const KIND: &'static str = "lora";
    const MASKED: bool = false;

    fn of(parts: LoraParts) -> Self {
        Self(parts)
    }

    fn parts(&self) -> &LoraParts {
        &self.0
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        match keep {
            Some(keep) => self.0.add_to(&base.masked_fill(&keep.remove(), 0.0), kind),
            None => self.0.add_to(base, kind),
        }
    }
}

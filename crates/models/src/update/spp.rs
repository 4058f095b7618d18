//! SPP: every weight changes by a share of itself, a product of one factor for its row and one for its column.
//!
//! Paper: Lu et al., "SPP: sparsity-preserved parameter-efficient fine-tuning for large language models", ICML 2024. Reference: Lucky-Lance/SPP, whose factor of the
//! columns has sixteen rows, each for a sixteenth of the outputs. A weight that is zero stays zero, with a mask or without. [`SppLora`] is the reading of the "Free Lunch" study
//! (ZIB-IOL/Free-Lunch-in-LLM-Compression), with a low-rank product in place of the two factors; its layers merge another function than they train, ours the same.

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{
    LoraParts, Update, fitting,
    lora::{LowRank, pruned},
};
use crate::{KeepMask, ModelError};

/// `(W∘M)∘(1 + s b a)`, with the rows of `a` spread over the outputs.
#[derive(Debug)]
pub struct Spp {
    /// `[rows, inputs]`: each row is for as many outputs that follow each other, the last one for what is left.
    pub a: Tensor,
    /// `[outputs, 1]`.
    pub b: Tensor,
    /// Factor on the change.
    pub scale: f64,
}

impl Spp {
    /// Its name in files and settings.
    pub const KIND: &'static str = "spp";

    pub(super) fn read_boxed(
        settings: &Value,
        part: &mut dyn FnMut(&'static str) -> Result<Tensor, String>,
    ) -> Result<Box<dyn Update>, String> {
        let LoraParts { a, b, scale } = LoraParts::read_named(settings, ["spp_A", "spp_B"], part)?;
        Ok(Box::new(Self { a, b, scale }))
    }
}

impl Update for Spp {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("spp_A", &self.a), ("spp_B", &self.b)]
    }

    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update> {
        let [a, b] = parameters.try_into().expect("both factors");
        Box::new(Self { a, b, scale: self.scale })
    }

    fn settings(&self) -> Value {
        json!({ "scale": self.scale })
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        let &[outputs, inputs] = shape else {
            return Err(ModelError::Shape { name: weight.to_owned(), found: shape.to_vec(), wanted: vec![-1, -1] });
        };
        // More rows than outputs would leave some without an output.
        let rows = self.a.size().first().copied().unwrap_or(0).clamp(1, outputs.max(1));
        fitting(weight, "spp_A", &self.a, &[rows, inputs])?;
        fitting(weight, "spp_B", &self.b, &[outputs, 1])
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        let (outputs, rows, inputs) = (self.b.size()[0], self.a.size()[0], self.a.size()[1]);
        let each = (outputs + rows - 1) / rows;
        let spread = self.a.to_kind(kind).unsqueeze(1).expand([rows, each, inputs], true);
        let columns = spread.reshape([rows * each, inputs]).narrow(0, 0, outputs);
        let base = pruned(base, keep, kind);
        let change = columns * (&self.b * self.scale).to_kind(kind);
        change * &base + base
    }

    fn respects_mask(&self) -> bool {
        true
    }
}

/// `(W∘M)∘(1 + s B A)`.
#[derive(Debug)]
pub struct SppLora(pub LoraParts);

impl LowRank for SppLora {
    const KIND: &'static str = "spp-lora";
    const MASKED: bool = true;

    fn of(parts: LoraParts) -> Self {
        Self(parts)
    }

    fn parts(&self) -> &LoraParts {
        &self.0
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        let base = pruned(base, keep, kind);
        self.0.product(kind) * &base + base
    }
}

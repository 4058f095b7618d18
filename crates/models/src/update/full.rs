//! A change of every element: for tensors so small that a low-rank product would save nothing, such as biases and the gains of norms.
//!
//! Papers: Ben Zaken et al., "BitFit", arXiv 2106.10199 (biases alone); Zhao et al., "Tuning LayerNorm in Attention", arXiv 2312.11420 (norms).

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Update, fitting};
use crate::{KeepMask, ModelError};

/// `(W + D)∘M`.
#[derive(Debug)]
pub struct Full {
    /// The change, f32, of the shape of the weight.
    pub delta: Tensor,
}

impl Full {
    /// Its name in files and settings.
    pub const KIND: &'static str = "full";

    pub(super) fn read_boxed(
        _settings: &Value,
        part: &mut dyn FnMut(&'static str) -> Result<Tensor, String>,
    ) -> Result<Box<dyn Update>, String> {
        Ok(Box::new(Self { delta: part("delta")? }))
    }
}

impl Update for Full {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("delta", &self.delta)]
    }

    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update> {
        let [delta] = parameters.try_into().expect("the change alone");
        Box::new(Self { delta })
    }

    fn settings(&self) -> Value {
        json!({})
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        fitting(weight, "delta", &self.delta, shape)
    }

    /// The sum is formed in f32: changes are smaller than the steps of half precision.
    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        let formed = (base.to_kind(Kind::Float) + &self.delta).to_kind(kind);
        match keep {
            Some(keep) => formed.masked_fill(&keep.remove().view_as(&formed), 0.0),
            None => formed,
        }
    }

    fn respects_mask(&self) -> bool {
        true
    }
}

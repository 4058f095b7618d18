//! What trains on top of a weight that is left as it is.
//!
//! An update is any function of a weight, its keep mask and some parameters of its own that gives the weight's effective value. A new kind of
//! update is a file with an implementation of [`Update`] and a line in [`KINDS`]; where it may sit (a linear's weight or bias, a norm) is a
//! matter of the shapes that it accepts.

mod full;
mod lora;
mod scale_lora;
mod set;
mod sparse_lora;
mod spp;

use std::fmt::Debug;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

pub use full::Full;
use lora::LowRank;
pub use lora::{Lora, LoraParts};
pub use scale_lora::ScaleLora;
pub use set::UpdateSet;
pub use sparse_lora::SparseLora;
pub use spp::{Spp, SppLora};

use crate::{KeepMask, ModelError};

/// A trained change of one weight.
pub trait Update: Debug + Send {
    /// Its kind, as in [`KINDS`].
    fn kind(&self) -> &'static str;

    /// What trains, by the names in a file, in a fixed order.
    fn parameters(&self) -> Vec<(&'static str, &Tensor)>;

    /// The same update with other parameters, in the order of [`Update::parameters`]: detached ones, ones on another device.
    fn with(&self, parameters: Vec<Tensor>) -> Box<dyn Update>;

    /// Settings beside the parameters, as JSON.
    fn settings(&self) -> Value;

    /// Whether it can sit on a weight of this shape.
    ///
    /// # Errors
    /// Which parameter does not fit.
    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError>;

    /// The effective weight, differentiable in the parameters, computed in `kind`; exactly zero where `keep` removes, if the update
    /// [`respects masks`](Update::respects_mask). `base` may be stored in another type.
    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor;

    /// Whether pruned positions stay zero under the update.
    fn respects_mask(&self) -> bool;
}

/// Reads an update of a kind from its settings and parameters.
type Read = fn(&Value, &mut dyn FnMut(&'static str) -> Result<Tensor, String>) -> Result<Box<dyn Update>, String>;

/// Every kind of update with what reads it from a file.
const KINDS: [(&str, Read); 6] = [
    (Lora::KIND, Lora::read_boxed),
    (SparseLora::KIND, SparseLora::read_boxed),
    (ScaleLora::KIND, ScaleLora::read_boxed),
    (Spp::KIND, Spp::read_boxed),
    (SppLora::KIND, SppLora::read_boxed),
    (Full::KIND, Full::read_boxed),
];

impl dyn Update + '_ {
    /// A second handle on the same parameters.
    pub fn shallow_clone(&self) -> Box<dyn Update> {
        self.with(self.parameters().into_iter().map(|(_, tensor)| tensor.shallow_clone()).collect())
    }

    /// The same values without their autograd graph.
    pub fn detached(&self) -> Box<dyn Update> {
        self.with(self.parameters().into_iter().map(|(_, tensor)| tensor.detach()).collect())
    }

    /// The update on another device; a second handle where it is there already.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn to_device(&self, device: Device) -> Result<Box<dyn Update>, ModelError> {
        let moved = self.parameters().into_iter().map(|(_, tensor)| tensor.f_to_device(device));
        Ok(self.with(moved.collect::<Result<_, _>>()?))
    }
}

/// Checks the shape of a parameter.
fn fitting(weight: &str, part: &str, tensor: &Tensor, wanted: &[i64]) -> Result<(), ModelError> {
    let found = tensor.size();
    if found == wanted {
        return Ok(());
    }
    Err(ModelError::Shape { name: format!("{weight}.{part}"), found, wanted: wanted.to_vec() })
}

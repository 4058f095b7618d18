//! The gradient of a loss with respect to effective weights, pruned ones among them.

use ressa_models::{KeepMask, ModelError, Update};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// An update to which a matrix of zeros is added that requires a gradient: the dense gradient of the effective weight, in every way to compute a step.
#[derive(Debug)]
pub(crate) struct Probed {
    inner: Box<dyn Update>,
    probe: Tensor,
}

impl Probed {
    /// On the update of a weight of this shape.
    pub fn new(inner: &dyn Update, shape: &[i64], device: Device) -> Self {
        // One zero that stands for all.
        let probe = Tensor::zeros([1, 1], (Kind::Float, device)).expand(shape, false).detach().set_requires_grad(true);
        Self { inner: inner.shallow_clone(), probe }
    }

    /// What the gradient is taken of.
    pub fn probe(&self) -> &Tensor {
        &self.probe
    }
}

impl Update for Probed {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn parameters(&self) -> Vec<(&'static str, &Tensor)> {
        let mut parameters = self.inner.parameters();
        parameters.push(("probe", &self.probe));
        parameters
    }

    fn with(&self, mut parameters: Vec<Tensor>) -> Box<dyn Update> {
        let probe = parameters.pop().expect("the probe comes last");
        Box::new(Self { inner: self.inner.with(parameters), probe })
    }

    fn settings(&self) -> Value {
        self.inner.settings()
    }

    fn fits(&self, weight: &str, shape: &[i64]) -> Result<(), ModelError> {
        self.inner.fits(weight, shape)
    }

    fn form(&self, base: &Tensor, keep: Option<&KeepMask>, kind: Kind) -> Tensor {
        self.inner.form(base, keep, kind) + self.probe.to_kind(kind)
    }

    fn respects_mask(&self) -> bool {
        false
    }
}

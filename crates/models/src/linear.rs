//! A linear layer that can be tapped.

use std::sync::{Arc, Mutex};

use tch::Tensor;

use crate::{KeepMask, ModelError, Scope, Tower, Weight, update::Update};

/// Where a linear sits. Ordered by execution: tower, block, then declaration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId {
    /// The tower.
    pub tower: Tower,
    /// Block within the tower, counted in the order of execution.
    pub block: usize,
    /// Last part of the module's name, such as `qkv`, `fc1`, `wi_0`, `q_proj`.
    pub role: String,
    /// Module path in the checkpoint, such as `vision_model.encoder.layers.0.self_attn.qkv`.
    pub name: String,
}

/// Sees the inputs of a linear while a tap lives.
pub trait Observer: Send {
    /// One call per forward; `input` is `[..., in]`.
    fn observe(&mut self, input: &Tensor);
}

type Tap = Arc<Mutex<Option<Arc<Mutex<dyn Observer>>>>>;

/// `y = x W^T + b`. What `W` and `b` are is a matter of their [`Weight`]s.
pub struct Linear {
    name: String,
    weight: Weight,
    bias: Option<Weight>,
    tap: Tap,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and, if there is to be one, `bias` `[outputs]`.
    pub fn load(scope: &Scope<'_>, outputs: i64, inputs: i64, bias: bool) -> Result<Self, ModelError> {
        Ok(Self {
            name: scope.path().to_owned(),
            weight: Weight::load_matrix(scope, "weight", &[outputs, inputs])?,
            bias: if bias { Some(Weight::load(scope, "bias", &[outputs])?) } else { None },
            tap: Tap::default(),
        })
    }

    /// A layer on its own, for tests and tools.
    pub fn new(name: impl Into<String>, weight: Tensor, bias: Option<Tensor>) -> Self {
        let name = name.into();
        let weight = Weight::new(format!("{name}.weight"), weight);
        let bias = bias.map(|bias| Weight::new(format!("{name}.bias"), bias));
        Self { name, weight, bias, tap: Tap::default() }
    }

    /// Module path in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> (i64, i64) {
        let size = self.weight.base().size();
        (size[0], size[1])
    }

    /// How the weight `[out, in]` comes about.
    pub fn matrix(&self) -> &Weight {
        &self.weight
    }

    /// The same, to change.
    pub fn matrix_mut(&mut self) -> &mut Weight {
        &mut self.weight
    }

    /// The weights of this layer: matrix, then bias.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// The same, to change.
    pub fn weights_mut(&mut self) -> impl Iterator<Item = &mut Weight> {
        std::iter::once(&mut self.weight).chain(&mut self.bias)
    }

    /// The stored weight `[out, in]`, without mask and update.
    pub fn weight(&self) -> &Tensor {
        self.weight.base()
    }

    /// The stored bias `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(Weight::base)
    }

    /// The keep mask, bool `[out, in]`, where the weight is.
    pub fn mask(&self) -> Option<Tensor> {
        self.weight.keep().map(KeepMask::keep)
    }

    /// `x W^T + b` for `x` `[..., in]`, with the effective weight, in the type of `x`. Shows `x` to a live tap.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        /// A weight of more elements than this is converted in pieces.
        const PIECE: i64 = 1 << 25;
        self.show(x);
        let kind = x.kind();
        let bias = self.bias.as_ref().map(|bias| bias.effective(kind));
        let (outputs, inputs) = self.shape();
        let stored = self
            .weight
            .stored()
            .filter(|weight| weight.kind() != kind && !weight.requires_grad() && outputs * inputs > PIECE);
        let Some(weight) = stored else {
            return x.linear(&self.weight.effective(kind), bias);
        };
        // The copy lives only as long as its product.
        let rows = (PIECE / inputs).max(1);
        let piece = |from: i64| {
            let count = rows.min(outputs - from);
            let bias = bias.as_ref().map(|bias| bias.narrow(0, from, count));
            x.linear(&weight.narrow(0, from, count).to_kind(kind), bias)
        };
        Tensor::cat(&(0..outputs).step_by(rows as usize).map(piece).collect::<Vec<_>>(), -1)
    }

    /// What [`Linear::forward`] multiplies with, as it is written: [`Weight::exact`].
    pub fn effective_weight(&self) -> Tensor {
        self.weight.exact()
    }

    /// Replaces the weight; shape as before. Mask and update stay.
    pub fn set_weight(&mut self, weight: Tensor) -> Result<(), ModelError> {
        self.weight.set_base(weight)
    }

    /// Sets or removes the keep mask, bool `[out, in]`, true where a weight survives.
    pub fn set_mask(&mut self, keep: Option<Tensor>) -> Result<(), ModelError> {
        self.weight.set_keep(keep.as_ref())
    }

    /// Sets or removes the update of the weight.
    pub fn set_update(&mut self, update: Option<Box<dyn Update>>) -> Result<(), ModelError> {
        self.weight.set_update(update)
    }

    /// Shows every input of this layer to `observer` until the guard is dropped. A second tap replaces the first.
    #[must_use = "the tap ends when the guard is dropped"]
    pub fn tap(&self, observer: Arc<Mutex<dyn Observer>>) -> TapGuard {
        if let Ok(mut slot) = self.tap.lock() {
            *slot = Some(observer);
        }
        TapGuard { tap: Arc::clone(&self.tap) }
    }

    fn show(&self, x: &Tensor) {
        let observer = self.tap.lock().ok().and_then(|slot| slot.clone());
        if let Some(observer) = observer
            && let Ok(mut observer) = observer.lock()
        {
            observer.observe(x);
        }
    }
}

/// Ends the observation when dropped.
pub struct TapGuard {
    tap: Tap,
}

impl Drop for TapGuard {
    fn drop(&mut self) {
        if let Ok(mut slot) = self.tap.lock() {
            *slot = None;
        }
    }
}

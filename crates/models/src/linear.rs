//! A linear layer that can be masked, adapted and tapped.

use std::sync::{Arc, Mutex};

use tch::{Kind, Tensor};

use crate::{ModelError, Scope, Tower};

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

/// A low-rank update `scale * b @ a`.
#[derive(Debug)]
pub struct Adapter {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// Factor on the product.
    pub scale: f64,
    /// Whether the keep mask also covers the update (SparseLoRA) or only the weight (LoRA on a sparse base).
    pub masked: bool,
}

impl Adapter {
    /// A second handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        Self { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, masked: self.masked }
    }

    /// Rank of the update.
    pub fn rank(&self) -> i64 {
        self.a.size()[0]
    }
}

/// Sees the inputs of a linear while a tap lives.
pub trait Observer: Send {
    /// One call per forward; `input` is `[..., in]`.
    fn observe(&mut self, input: &Tensor);
}

type Tap = Arc<Mutex<Option<Arc<Mutex<dyn Observer>>>>>;

/// `y = x W^T + b` with an optional keep mask and an optional low-rank adapter on `W`.
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    mask: Option<Mask>,
    adapter: Option<Adapter>,
    tap: Tap,
}

/// A keep mask with what every forward would otherwise compute again.
struct Mask {
    /// True where the weight survives.
    keep: Tensor,
    /// Its complement.
    remove: Tensor,
    /// The masked weight, unless the weight is being trained.
    sparse: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]` and, if there is to be one, `bias` `[outputs]`.
    pub fn load(scope: &Scope<'_>, outputs: i64, inputs: i64, bias: bool) -> Result<Self, ModelError> {
        Ok(Self {
            name: scope.path().to_owned(),
            weight: scope.matrix("weight", &[outputs, inputs])?,
            bias: if bias { Some(scope.tensor("bias", &[outputs])?) } else { None },
            mask: None,
            adapter: None,
            tap: Tap::default(),
        })
    }

    /// A layer on its own, for tests and tools.
    pub fn new(name: impl Into<String>, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { name: name.into(), weight, bias, mask: None, adapter: None, tap: Tap::default() }
    }

    /// Module path in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Outputs and inputs.
    pub fn shape(&self) -> (i64, i64) {
        let size = self.weight.size();
        (size[0], size[1])
    }

    /// The weight itself `[out, in]`, without mask and adapter.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias `[out]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The keep mask, bool `[out, in]`.
    pub fn mask(&self) -> Option<&Tensor> {
        self.mask.as_ref().map(|mask| &mask.keep)
    }

    /// The adapter.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// `x W^T + b` for `x` `[..., in]`, with the effective weight, in the type of `x`. Shows `x` to a live tap.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        /// A weight of more elements than this is converted in pieces.
        const PIECE: i64 = 1 << 25;
        self.show(x);
        let (weight, kind) = (self.effective_weight(), x.kind());
        let bias = self.bias.as_ref().map(|bias| bias.to_kind(kind));
        let (outputs, inputs) = self.shape();
        if weight.kind() == kind || weight.requires_grad() || outputs * inputs <= PIECE {
            return x.linear(&weight.to_kind(kind), bias);
        }
        // The copy lives only as long as its product.
        let rows = (PIECE / inputs).max(1);
        let piece = |from: i64| {
            let count = rows.min(outputs - from);
            let bias = bias.as_ref().map(|bias| bias.narrow(0, from, count));
            x.linear(&weight.narrow(0, from, count).to_kind(kind), bias)
        };
        Tensor::cat(&(0..outputs).step_by(rows as usize).map(piece).collect::<Vec<_>>(), -1)
    }

    /// What [`Linear::forward`] multiplies with: `W`, `W∘M`, and with an adapter `(W + sBA)∘M` or `W∘M + sBA`. Exactly zero wherever a
    /// mask covers all of it. Differentiable in the adapter, and in the weight if that is being trained. In the weight's type; with an
    /// adapter in f32, so that what is written is rounded once.
    pub fn effective_weight(&self) -> Tensor {
        let Some(adapter) = &self.adapter else {
            return self.masked_weight();
        };
        let weight = self.masked_weight().to_kind(adapter.a.kind());
        let update = &adapter.b * adapter.scale;
        match &self.mask {
            Some(mask) if adapter.masked => weight.addmm(&update, &adapter.a).masked_fill(&mask.remove, 0.0),
            _ => weight.addmm(&update, &adapter.a),
        }
    }

    fn masked_weight(&self) -> Tensor {
        match &self.mask {
            None => self.weight.shallow_clone(),
            Some(Mask { sparse: Some(sparse), .. }) => sparse.shallow_clone(),
            Some(mask) => self.weight.masked_fill(&mask.remove, 0.0),
        }
    }

    /// Replaces the weight; shape as before. Mask and adapter stay.
    pub fn set_weight(&mut self, weight: Tensor) -> Result<(), ModelError> {
        self.weight = crate::scope::shaped(&self.name, weight, &self.weight.size())?;
        if let Some(mask) = self.mask.take() {
            self.set_mask(Some(mask.keep))?;
        }
        Ok(())
    }

    /// Sets or removes the keep mask, bool `[out, in]`, true where a weight survives.
    pub fn set_mask(&mut self, keep: Option<Tensor>) -> Result<(), ModelError> {
        let Some(keep) = keep else {
            self.mask = None;
            return Ok(());
        };
        let keep = crate::scope::shaped(&self.name, keep, &self.weight.size())?
            .f_to_kind(Kind::Bool)?
            .f_to_device(self.weight.device())?;
        let remove = keep.f_logical_not()?;
        let sparse = if self.weight.requires_grad() { None } else { Some(self.weight.f_masked_fill(&remove, 0.0)?) };
        self.mask = Some(Mask { keep, remove, sparse });
        Ok(())
    }

    /// Sets or removes the adapter; it moves to the weight's device.
    pub fn set_adapter(&mut self, adapter: Option<Adapter>) -> Result<(), ModelError> {
        if let Some(adapter) = &adapter {
            let (outputs, inputs) = self.shape();
            let rank = adapter.a.size().first().copied().unwrap_or(0);
            for (part, tensor, wanted) in [("a", &adapter.a, [rank, inputs]), ("b", &adapter.b, [outputs, rank])] {
                if tensor.size() != wanted {
                    let name = format!("{}.{part}", self.name);
                    return Err(ModelError::Shape { name, found: tensor.size(), wanted: wanted.to_vec() });
                }
            }
        }
        let device = self.weight.device();
        self.adapter = match adapter {
            Some(Adapter { a, b, scale, masked }) => {
                Some(Adapter { a: a.f_to_device(device)?, b: b.f_to_device(device)?, scale, masked })
            }
            None => None,
        };
        Ok(())
    }

    /// Makes the effective weight the weight and drops the adapter. Computed in f32; the mask stays, so that what it covers stays zero.
    pub fn bake(&mut self) -> Result<(), ModelError> {
        let weight = tch::no_grad(|| self.effective_weight().detach());
        // A weight that shares storage with another model must not be written to, hence the replacement.
        let densified = self.adapter.take().is_some_and(|adapter| !adapter.masked);
        if densified {
            self.mask = None;
        }
        self.set_weight(weight)
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

//! A linear layer that can be masked, adapted and tapped.

use std::sync::{Arc, Mutex};

use tch::Tensor;

use crate::Tower;

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

/// Sees the inputs of a linear while a tap lives.
pub trait Observer: Send {
    /// One call per forward; `input` is `[..., in]`.
    fn observe(&mut self, input: &Tensor);
}

type Tap = Arc<Mutex<Option<Arc<Mutex<dyn Observer>>>>>;

/// `y = x W^T + b` with an optional keep mask and an optional low-rank adapter on `W`.
#[derive(Default)]
pub struct Linear {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    mask: Option<Tensor>,
    adapter: Option<Adapter>,
    tap: Tap,
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

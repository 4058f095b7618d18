//! The next block on its way to a GPU: its pages are copied into pinned memory on a thread of their own while the block before it is worked on. From there
//! the device fetches them itself, and nobody waits.

use std::thread::{self, JoinHandle};

use ressa_prune::walk::Place;
use ressa_runtime::Device;
use tch::{TchError, Tensor};

/// One block's weights, or as many of them as pinned memory could be had for.
pub(super) struct Ahead {
    place: Place,
    /// Until it was joined.
    copying: Option<JoinHandle<Vec<Tensor>>>,
}

impl Ahead {
    /// Begins to copy weights that lie in a map. `None` where a device does not fetch from pinned memory, or no thread can be had.
    pub fn begin(place: Place, weights: Vec<Tensor>, device: Device) -> Option<Self> {
        if !matches!(device, Device::Cuda(_)) {
            return None;
        }
        let copy = move || weights.iter().map_while(|weight| weight.f_pin_memory(device).ok()).collect();
        let copying = thread::Builder::new().name("block ahead".to_owned()).spawn(copy).ok()?;
        Some(Self { place, copying: Some(copying) })
    }

    /// The first weights of a block, in pinned memory; none where it was not begun. Copies of blocks before it are given up, the one of the
    /// block after it stays.
    pub fn take(begun: &mut Vec<Self>, place: Place) -> Vec<Tensor> {
        let Some(at) = begun.iter().position(|ahead| ahead.place == place) else { return Vec::new() };
        let mut taken = begun.drain(..=at).next_back();
        let copying = taken.as_mut().and_then(|ahead| ahead.copying.take());
        copying.and_then(|copying| copying.join().ok()).unwrap_or_default()
    }
}

impl Drop for Ahead {
    /// The map must not go while it is read.
    fn drop(&mut self) {
        if let Some(copying) = self.copying.take() {
            let _ = copying.join();
        }
    }
}

/// A copy on the device of a tensor in pinned memory, which the host does not wait for. libtorch keeps the memory until the device has read it.
pub(super) fn fetch(pinned: &Tensor, device: Device) -> Result<Tensor, TchError> {
    pinned.f_to_device_(device, pinned.kind(), true, false)
}

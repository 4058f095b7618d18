//! Work on the rows of a matrix that lies in memory, shared among threads.
//!
//! Rows do not see each other, so what comes out does not depend on how many threads there are.

use tch::{Device, Kind, Tensor};

/// Below so many elements, starting a thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 16;

/// Threads for `elements` elements: libtorch's own setting, fewer where there is little to do.
pub(crate) fn threads(elements: usize) -> usize {
    let allowed = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
    allowed.min(elements / WORTH_A_THREAD).max(1)
}

/// Rows that each thread gets, at least one.
pub(crate) fn rows_per_part(rows: usize, width: usize) -> usize {
    rows.div_ceil(threads(rows.saturating_mul(width))).max(1)
}

/// Does `work` on every part, one thread each; a single part stays on this thread.
pub(crate) fn each_part<P: Send>(parts: impl IntoIterator<Item = P>, work: impl Fn(P) + Sync) {
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return };
    std::thread::scope(|scope| {
        let work = &work;
        for part in parts {
            scope.spawn(move || work(part));
        }
        work(first);
    });
}

/// The elements of a tensor in row order, as f32 on the host.
pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    with_floats(tensor, <[f32]>::to_vec)
}

/// The elements of a bool tensor in row order, on the host.
pub(crate) fn flags(tensor: &Tensor) -> Vec<bool> {
    let flat = tensor.to_device(Device::Cpu).contiguous().view([-1]);
    let mut flags = vec![false; flat.numel()];
    flat.copy_data(&mut flags, flat.numel());
    flags
}

/// Shows the elements of a tensor in row order, as f32 on the host, without a copy where they lie like that already.
pub(crate) fn with_floats<R>(tensor: &Tensor, look: impl FnOnce(&[f32]) -> R) -> R {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    if flat.numel() == 0 {
        return look(&[]);
    }
    // SAFETY: a contiguous f32 tensor on the host is `numel` floats at `data_ptr`. `flat` keeps them alive, and `look` can reach no tensor
    // through which they could be written meanwhile: this crate never writes into a tensor that it has shown.
    look(unsafe { std::slice::from_raw_parts(flat.data_ptr().cast::<f32>(), flat.numel()) })
}

/// A new bool tensor on the host, all true, after `write` has been at its elements.
pub(crate) fn new_mask(size: &[i64], write: impl FnOnce(&mut [bool])) -> Tensor {
    let mask = Tensor::ones(size, (Kind::Bool, Device::Cpu));
    if mask.numel() > 0 {
        // SAFETY: a new bool tensor on the host is `numel` bytes at `data_ptr`, all 1, and nobody else knows of it.
        write(unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<bool>(), mask.numel()) });
    }
    mask
}

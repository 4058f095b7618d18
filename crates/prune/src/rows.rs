//! Work on the rows of a matrix that lies in memory, shared among threads.
//!
//! Rows do not see each other, so what comes out does not depend on how many threads there are.

use tch::{Kind, Tensor};

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
    let flat = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous().view([-1]);
    let mut values = vec![0.0; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}

//! Algorithms that repeat their results to the bit, for which tch has no binding.

unsafe extern "C" {
    /// In `deterministic.cpp`.
    fn ressa_deterministic(on: bool);
}

/// Switches deterministic algorithms on or off for this process.
///
/// On a GPU the backward passes of attention and of `index_select` otherwise add up in the order in which threads arrive, so that equal trainings
/// agree up to rounding only. An operation that has no deterministic algorithm fails while this is on. On a CPU nothing changes. cuBLAS
/// needs `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the environment from the start of the process as well.
pub fn set_deterministic(on: bool) {
    // SAFETY: sets two flags of libtorch's context, which may be done at any time; nothing is handed over.
    unsafe { ressa_deterministic(on) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    /// `kthvalue` has no deterministic algorithm on a GPU; on a CPU all of it goes on.
    #[test]
    fn a_cpu_computes_the_same_with_and_without() {
        let x = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
        let rows = Tensor::from_slice(&[0i64, 2, 2]);
        let compute = || {
            let leaf = x.copy().set_requires_grad(true);
            leaf.index_select(0, &rows).square().sum(Kind::Float).backward();
            leaf.grad()
        };
        let without = compute();
        set_deterministic(true);
        let with = compute();
        set_deterministic(false);
        assert!(with.equal(&without));
    }
}

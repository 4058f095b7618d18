//! One selection over many matrices, of which one is in memory at a time.
//!
//! Two passes count the values by the upper and then by the lower half of their ordered bits; a third compares with the threshold that is
//! found so. Each asks for every matrix again, so nothing but one matrix and two tables of 65,536 numbers is held.

use tch::{Device, Tensor};

use super::{device, host, pruned_count};
use crate::rows::{new_mask, with_floats};

/// Keep masks of `matrices` that compete with each other: `pruned_count` over all of them goes, among equals the earlier matrix, then the lower row,
/// then the lower column. `importance` gives the matrix of a number, f32, the same whenever it is asked, and `each` takes its mask, bool; both in order.
///
/// # Errors
/// Those of `importance`.
pub fn keep_across_with<E>(
    matrices: usize,
    sparsity: f64,
    importance: &mut dyn FnMut(usize) -> Result<Tensor, E>,
    each: &mut dyn FnMut(usize, Tensor),
) -> Result<(), E> {
    let mut upper = vec![0; host::BUCKETS];
    let mut total = 0;
    for at in 0..matrices {
        let values = importance(at)?;
        total += values.numel() as i64;
        add(&mut upper, &values, None);
    }
    let count = usize::try_from(pruned_count(total, sparsity)).unwrap_or_default();
    let mut cut = host::Cut::default();
    if count > 0 {
        let (high, below) = host::bucket(&upper, count);
        let mut lower = vec![0; host::BUCKETS];
        for at in 0..matrices {
            add(&mut lower, &importance(at)?, Some(high));
        }
        cut = host::Cut::new((high, below), &lower, count);
    }
    for at in 0..matrices {
        let values = importance(at)?;
        let keep = match values.device() {
            Device::Cpu => {
                with_floats(&values, |values_in| new_mask(&values.size(), |keep| cut.apply(values_in, keep)))
            }
            _ => device::apply(&mut cut, &values),
        };
        each(at, keep);
    }
    Ok(())
}

/// Adds how many values fall into each bucket: of all by their upper halves, or, of those in a bucket, by their lower ones.
fn add(counts: &mut [u64], values: &Tensor, within: Option<usize>) {
    let found = match values.device() {
        Device::Cpu => with_floats(values, |values| host::count(values, within)),
        _ => device::count(values, within),
    };
    counts.iter_mut().zip(found).for_each(|(count, found)| *count += found);
}

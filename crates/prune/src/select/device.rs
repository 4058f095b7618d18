//! Selection in tensor operations, for devices other than the host; the same result.
//!
//! Few members of a group are compared with each other, a row's threshold comes from `kthvalue`, a matrix is sorted, and what is too large for that
//! is counted by its ordered bits as on the host.

use tch::{Device, Kind, Tensor};

use super::host;

/// Groups of at most so many members are ranked by comparing all with all.
const RANKED: i64 = 16;
/// Groups of more members than this are sorted.
const SORTED: i64 = 1 << 16;
/// Groups of more members than this are counted: a sorted one takes sixteen bytes for each.
const COUNTED: i64 = 1 << 22;

/// True but for the `count` smallest values of each row of `[groups, members]`; the lower index goes first among equals.
pub(crate) fn keep(groups: &Tensor, count: i64) -> Tensor {
    let members = groups.size()[1];
    if count == 0 {
        return groups.ones_like().to_kind(Kind::Bool);
    }
    if members <= RANKED {
        return keep_ranked(groups, count);
    }
    if members > COUNTED {
        let rows: Vec<Tensor> = (0..groups.size()[0]).map(|row| keep_counted(&groups.get(row), count)).collect();
        return Tensor::stack(&rows, 0);
    }
    if members > SORTED {
        // Negative zero equals zero, and equals stay in their order.
        let (_, order) = (groups + 0.0).sort_stable(true, 1, false);
        let mut keep = groups.ones_like().to_kind(Kind::Bool);
        return keep.scatter_value_(1, &order.narrow(1, 0, count), 0);
    }
    let (threshold, _) = groups.kthvalue(count, 1, true);
    let below = groups.lt_tensor(&threshold);
    let missing = count - below.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
    let equal = groups.eq_tensor(&threshold);
    let settled = equal.cumsum(1, Kind::Int).le_tensor(&missing).logical_and(&equal);
    below.logical_or(&settled).logical_not()
}

/// Compares all members of a group with each other: one goes if fewer than `count` go before it.
fn keep_ranked(groups: &Tensor, count: i64) -> Tensor {
    let members = groups.size()[1];
    let (own, other) = (groups.unsqueeze(2), groups.unsqueeze(1));
    let earlier = Tensor::ones([members, members], (Kind::Bool, groups.device())).tril(-1);
    let before = other.lt_tensor(&own).logical_or(&other.eq_tensor(&own).logical_and(&earlier));
    before.sum_dim_intlist([2i64].as_slice(), false, Kind::Int).ge(count)
}

/// [`keep`] of one group of any size, flat.
pub(super) fn keep_counted(values: &Tensor, count: i64) -> Tensor {
    let count = usize::try_from(count).unwrap_or_default();
    let mut cut = host::Cut::default();
    if count > 0 {
        let (high, below) = host::bucket(&self::count(values, None), count);
        cut = host::Cut::new((high, below), &self::count(values, Some(high)), count);
    }
    apply(&mut cut, values)
}

/// Numbers that sort as the values do, i32. Negative zero equals zero.
pub(crate) fn order(values: &Tensor) -> Tensor {
    let bits = (values + 0.0).contiguous().view_dtype(Kind::Int);
    let flipped = bits.bitwise_right_shift_tensor_scalar(31).bitwise_and(0x7fff_ffff_i64);
    bits.bitwise_xor_tensor(&flipped)
}

/// How many values have each upper half of their orders; with `within`, of those with that upper half how many have each lower one.
pub(super) fn count(values: &Tensor, within: Option<usize>) -> Vec<u64> {
    let order = order(&values.reshape([-1]));
    let upper = order.bitwise_right_shift_tensor_scalar(16) + (host::BUCKETS / 2) as i64;
    let buckets = match within {
        None => upper,
        // What is in another bucket is counted behind the last one.
        Some(high) => order.bitwise_and(0xffff_i64).masked_fill(&upper.ne(high as i64), host::BUCKETS as i64),
    };
    let counts = buckets.bincount::<Tensor>(None, host::BUCKETS as i64 + 1).to_device(Device::Cpu);
    let counts = Vec::<i64>::try_from(counts).unwrap_or_default();
    counts.into_iter().take(host::BUCKETS).map(i64::unsigned_abs).collect()
}

/// The mask of the next values under a cut.
pub(super) fn apply(cut: &mut host::Cut, values: &Tensor) -> Tensor {
    let Some(threshold) = cut.threshold() else { return values.ones_like().to_kind(Kind::Bool) };
    let order = order(values);
    let keep = order.ge(i64::from(threshold));
    if cut.missing() == 0 {
        return keep;
    }
    let equal = order.eq(i64::from(threshold)).reshape([-1]);
    let settled = equal.cumsum(0, Kind::Int).le(cut.missing() as i64).logical_and(&equal);
    cut.settle(usize::try_from(settled.sum(Kind::Int64).int64_value(&[])).unwrap_or_default());
    keep.logical_and(&settled.logical_not().reshape(values.size()))
}

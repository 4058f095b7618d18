//! Selection in memory: order statistics instead of sorting.
//!
//! Three sizes of group, three ways. The members of an N:M group count who is smaller. A row's threshold comes from `select_nth_unstable`.
//! A matrix or a tower is counted twice by the upper and then the lower half of its bits, which needs no copy of the values.

use crate::rows::{each_part, rows_per_part, threads};

/// Groups of more members than this are counted instead of partitioned.
const COUNTED: usize = 1 << 16;
/// Halves of the orders that there are.
pub(super) const BUCKETS: usize = 1 << 16;

/// Groups that are ranked side by side.
const LANES: usize = 8;

/// A number that sorts as the value does. Negative zero equals zero.
fn order(value: f32) -> i32 {
    let bits = (value + 0.0).to_bits().cast_signed();
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

/// The upper half of an order, counted from zero.
fn upper_half(key: i32) -> usize {
    (key.cast_unsigned() ^ 0x8000_0000) as usize >> 16
}

/// Sets false where a value is among the `count` smallest of its `members` consecutive values; the lower index goes first among equals.
/// `keep` comes with all true.
pub(crate) fn prune(values: &[f32], members: usize, count: usize, keep: &mut [bool]) {
    if members == 0 || count == 0 {
        return;
    }
    if members > COUNTED {
        for (values, keep) in values.chunks(members).zip(keep.chunks_mut(members)) {
            prune_counted(values, keep, count);
        }
        return;
    }
    let part = rows_per_part(values.len() / members, members) * members;
    each_part(values.chunks(part).zip(keep.chunks_mut(part)), |(values, keep)| match members {
        2 => prune_ranked::<2>(values, keep, count),
        4 => prune_ranked::<4>(values, keep, count),
        8 => prune_ranked::<8>(values, keep, count),
        16 => prune_ranked::<16>(values, keep, count),
        _ => prune_partitioned(values, keep, members, count),
    });
}

/// The value with `below` others before it in sorted order, `below` at most the last index. Empty slices answer with infinity.
pub(crate) fn nth(values: &[f32], below: usize) -> f32 {
    let mut keys: Vec<i32> = values.iter().map(|&value| order(value)).collect();
    let Some(last) = keys.len().checked_sub(1) else { return f32::INFINITY };
    let &mut key = keys.select_nth_unstable(below.min(last)).1;
    f32::from_bits((key ^ ((key >> 31).cast_unsigned() >> 1).cast_signed()).cast_unsigned())
}

fn prune_ranked<const M: usize>(values: &[f32], keep: &mut [bool], count: usize) {
    let whole = values.len() / (M * LANES) * (M * LANES);
    let (many, few) = values.split_at(whole);
    let (keep_many, keep_few) = keep.split_at_mut(whole);
    for (values, keep) in many.chunks_exact(M * LANES).zip(keep_many.chunks_exact_mut(M * LANES)) {
        rank::<M, LANES>(values, keep, count);
    }
    for (values, keep) in few.chunks_exact(M).zip(keep_few.chunks_exact_mut(M)) {
        rank::<M, 1>(values, keep, count);
    }
}

/// Counts for each member of `L` groups how many members of its group go before it. Additions are declared wrapping because a checked one
/// would keep the compiler from doing all groups at once.
fn rank<const M: usize, const L: usize>(values: &[f32], keep: &mut [bool], count: usize) {
    let mut keys = [[0i32; L]; M];
    for (lane, values) in values.chunks_exact(M).enumerate() {
        for (member, &value) in values.iter().enumerate() {
            keys[member][lane] = order(value);
        }
    }
    let mut ranks = [[0i32; L]; M];
    for later in 1..M {
        for earlier in 0..later {
            for lane in 0..L {
                let first = i32::from(keys[earlier][lane] <= keys[later][lane]);
                ranks[later][lane] = ranks[later][lane].wrapping_add(first);
                ranks[earlier][lane] = ranks[earlier][lane].wrapping_add(1 - first);
            }
        }
    }
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    for (lane, keep) in keep.chunks_exact_mut(M).enumerate() {
        for (member, keep) in keep.iter_mut().enumerate() {
            *keep = ranks[member][lane] >= count;
        }
    }
}

fn prune_partitioned(values: &[f32], keep: &mut [bool], members: usize, count: usize) {
    let mut keys = Vec::with_capacity(members);
    for (values, keep) in values.chunks_exact(members).zip(keep.chunks_exact_mut(members)) {
        keys.clear();
        keys.extend(values.iter().map(|&value| order(value)));
        let (below, &mut threshold, _) = keys.select_nth_unstable(count - 1);
        let mut missing = count - below.iter().filter(|&&key| key < threshold).count();
        for (keep, &value) in keep.iter_mut().zip(values) {
            let key = order(value);
            if key == threshold && missing > 0 {
                missing -= 1;
                *keep = false;
            } else {
                *keep = key >= threshold;
            }
        }
    }
}

fn prune_counted(values: &[f32], keep: &mut [bool], count: usize) {
    let (high, below) = bucket(&self::count(values, None), count);
    Cut::new((high, below), &self::count(values, Some(high)), count).apply(values, keep);
}

/// Where values are cut: what lies below a threshold goes, and of what equals it as many as are still missing. The default cuts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cut {
    threshold: Option<i32>,
    missing: usize,
}

impl Cut {
    /// From the bucket of upper halves that holds the last of `count` values, how many lie before it, and the counts of lower halves in it.
    pub(super) fn new((high, below): (usize, usize), lower: &[u64], count: usize) -> Self {
        let (low, below_in_bucket) = bucket(lower, count - below);
        let threshold = (((high << 16 | low) as u32) ^ 0x8000_0000).cast_signed();
        Self { threshold: Some(threshold), missing: count - below - below_in_bucket }
    }

    /// The order of the first value that may stay; `None` where all do.
    pub(super) fn threshold(&self) -> Option<i32> {
        self.threshold
    }

    /// How many of the values at the threshold still have to go.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// So many of them have gone.
    pub(super) fn settle(&mut self, gone: usize) {
        self.missing -= gone.min(self.missing);
    }

    /// Sets false where one of the next values goes. `keep` comes with all true.
    pub(super) fn apply(&mut self, values: &[f32], keep: &mut [bool]) {
        let Some(threshold) = self.threshold else { return };
        let part = values.len().div_ceil(threads(values.len())).max(1);
        each_part(values.chunks(part).zip(keep.chunks_mut(part)), |(values, keep)| {
            for (keep, &value) in keep.iter_mut().zip(values) {
                *keep = order(value) >= threshold;
            }
        });
        if self.missing > 0 {
            let equal = |(_, value): &(_, &f32)| order(**value) == threshold;
            for (keep, _) in keep.iter_mut().zip(values).filter(equal).take(self.missing) {
                *keep = false;
                self.missing -= 1;
            }
        }
    }
}

/// How many values have each upper half of their orders; with `within`, of those with that upper half how many have each lower one.
pub(super) fn count(values: &[f32], within: Option<usize>) -> Vec<u64> {
    match within {
        None => count_keys(values, |key| Some(upper_half(key))),
        Some(high) => count_keys(values, |key| (upper_half(key) == high).then_some((key & 0xffff) as usize)),
    }
}

/// How many values fall into each bucket.
fn count_keys(values: &[f32], bucket_of: impl Fn(i32) -> Option<usize> + Sync) -> Vec<u64> {
    let mut total = vec![0u64; BUCKETS];
    let part = values.len().div_ceil(threads(values.len())).max(1);
    let mut counts: Vec<Vec<u64>> = values.chunks(part).map(|_| vec![0; BUCKETS]).collect();
    each_part(values.chunks(part).zip(counts.iter_mut()), |(values, counts)| {
        for &value in values {
            if let Some(bucket) = bucket_of(order(value)) {
                counts[bucket] += 1;
            }
        }
    });
    for counts in counts {
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    total
}

/// The bucket that holds the `count`-th value, and how many values lie in the buckets before it.
pub(super) fn bucket(counts: &[u64], count: usize) -> (usize, usize) {
    let mut below = 0;
    for (bucket, &here) in counts.iter().enumerate() {
        if below + here as usize >= count {
            return (bucket, below);
        }
        below += here as usize;
    }
    (counts.len() - 1, below)
}

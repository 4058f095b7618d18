//! Selection in memory: order statistics instead of sorting.
//!
//! Three sizes of group, three ways. The members of an N:M group count who is smaller. A row's threshold comes from `select_nth_unstable`.
//! A matrix or a tower is counted twice by the upper and then the lower half of its bits, which needs no copy of the values.

use crate::rows::{each_part, rows_per_part, threads};

/// Groups of more members than this are counted instead of partitioned.
const COUNTED: usize = 1 << 16;
const BUCKETS: usize = 1 << 16;

/// A number that sorts as the value does. Negative zero equals zero.
fn order(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 0x8000_0000 } else { !bits }
}

/// True but for the `count` smallest of every `members` consecutive values; the lower index goes first among equals.
pub(crate) fn keep(values: &[f32], members: usize, count: usize) -> Vec<bool> {
    let mut keep = vec![true; values.len()];
    if members == 0 || count == 0 {
        return keep;
    }
    if members > COUNTED {
        for (values, keep) in values.chunks(members).zip(keep.chunks_mut(members)) {
            prune_counted(&[values], vec![keep], count);
        }
        return keep;
    }
    let part = rows_per_part(values.len() / members, members) * members;
    each_part(values.chunks(part).zip(keep.chunks_mut(part)), |(values, keep)| match members {
        2 => prune_ranked::<2>(values, keep, count),
        4 => prune_ranked::<4>(values, keep, count),
        8 => prune_ranked::<8>(values, keep, count),
        16 => prune_ranked::<16>(values, keep, count),
        _ => prune_partitioned(values, keep, members, count),
    });
    keep
}

/// Masks of several runs of values that compete with each other; the earlier run goes first among equals.
pub(crate) fn keep_across(runs: &[&[f32]], count: usize) -> Vec<Vec<bool>> {
    let mut keeps: Vec<Vec<bool>> = runs.iter().map(|run| vec![true; run.len()]).collect();
    if count > 0 {
        prune_counted(runs, keeps.iter_mut().map(Vec::as_mut_slice).collect(), count);
    }
    keeps
}

/// The value with `below` others before it in sorted order, `below` at most the last index. Empty slices answer with infinity.
pub(crate) fn nth(values: &[f32], below: usize) -> f32 {
    let mut sorted: Vec<(u32, f32)> = values.iter().map(|&value| (order(value), value)).collect();
    let Some(last) = sorted.len().checked_sub(1) else { return f32::INFINITY };
    sorted.select_nth_unstable_by_key(below.min(last), |&(key, _)| key).1.1
}

fn prune_ranked<const M: usize>(values: &[f32], keep: &mut [bool], count: usize) {
    for (values, keep) in values.chunks_exact(M).zip(keep.chunks_exact_mut(M)) {
        let mut keys = [0u32; M];
        for (key, &value) in keys.iter_mut().zip(values) {
            *key = order(value);
        }
        for (at, keep) in keep.iter_mut().enumerate() {
            let before = keys[..at].iter().filter(|&&other| other <= keys[at]).count();
            let after = keys[at + 1..].iter().filter(|&&other| other < keys[at]).count();
            *keep = before + after >= count;
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

fn prune_counted(runs: &[&[f32]], keeps: Vec<&mut [bool]>, count: usize) {
    let (high, below) = bucket(&count_keys(runs, |key| Some((key >> 16) as usize)), count);
    let low = |key: u32| (key >> 16 == high as u32).then_some((key & 0xffff) as usize);
    let (low, below_in_bucket) = bucket(&count_keys(runs, low), count - below);
    let threshold = ((high as u32) << 16) | low as u32;
    let mut missing = count - below - below_in_bucket;
    for (run, keep) in runs.iter().zip(keeps) {
        let part = run.len().div_ceil(threads(run.len())).max(1);
        each_part(run.chunks(part).zip(keep.chunks_mut(part)), |(values, keep)| {
            for (keep, &value) in keep.iter_mut().zip(values) {
                *keep = order(value) >= threshold;
            }
        });
        if missing > 0 {
            for (keep, _) in keep.iter_mut().zip(*run).filter(|(_, value)| order(**value) == threshold).take(missing) {
                *keep = false;
                missing -= 1;
            }
        }
    }
}

/// How many values fall into each bucket.
fn count_keys(runs: &[&[f32]], bucket_of: impl Fn(u32) -> Option<usize> + Sync) -> Vec<u64> {
    let mut total = vec![0u64; BUCKETS];
    for run in runs {
        let part = run.len().div_ceil(threads(run.len())).max(1);
        let mut counts: Vec<Vec<u64>> = run.chunks(part).map(|_| vec![0; BUCKETS]).collect();
        each_part(run.chunks(part).zip(counts.iter_mut()), |(values, counts)| {
            for &value in values {
                if let Some(bucket) = bucket_of(order(value)) {
                    counts[bucket] += 1;
                }
            }
        });
        for counts in counts {
            total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
    }
    total
}

/// The bucket that holds the `count`-th value, and how many values lie in the buckets before it.
fn bucket(counts: &[u64], count: usize) -> (usize, usize) {
    let mut below = 0;
    for (bucket, &here) in counts.iter().enumerate() {
        if below + here as usize >= count {
            return (bucket, below);
        }
        below += here as usize;
    }
    (counts.len() - 1, below)
}

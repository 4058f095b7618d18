//! How many workers the memory of this machine holds.

use std::{fs, path::Path};

use ressa_checkpoint::{File, WeightFiles};
use ressa_experiment::Stage;
use ressa_sweep::{Graph, Options};

/// What a worker needs beside its models, in bytes.
const WORKER: u64 = 500_000_000;

/// Models of a checkpoint's size that a worker holds at once: the dense one, and what a stage makes of it.
const MODELS: u64 = 2;

/// Bounds the workers of a sweep by memory, where nobody said how many there should be: those of a CPU by the machine's, those that share a GPU
/// by what `on_gpu` says that it holds. Returns their number where that is fewer.
pub fn bound(
    options: &mut Options,
    graph: &Graph,
    root: &Path,
    on_gpu: impl FnOnce() -> Option<usize>,
) -> Option<usize> {
    if options.devices.slots.is_some() {
        return None;
    }
    if options.devices.is_gpu() {
        let fitting = if options.devices.per_gpu > 1 { on_gpu()? } else { return None };
        if fitting >= options.devices.per_gpu {
            return None;
        }
        options.devices.per_gpu = fitting;
        return Some(options.workers().len());
    }
    let bytes = largest_checkpoint(graph, root).filter(|&bytes| bytes > 0)?;
    let fitting = workers(available()?, bytes);
    if fitting >= options.workers().len() {
        return None;
    }
    options.devices.slots = Some(fitting);
    Some(fitting)
}

/// Workers with a model of so many bytes each that memory holds; at least one, which may still try.
fn workers(available: u64, model: u64) -> usize {
    let each = WORKER.saturating_add(model.saturating_mul(MODELS));
    usize::try_from(available / each).unwrap_or(usize::MAX).max(1)
}

/// Bytes of weights of the largest checkpoint folder that the stages start from.
fn largest_checkpoint(graph: &Graph, root: &Path) -> Option<u64> {
    let folders = graph.stages.iter().filter_map(|stage| match &*stage.node.stage {
        Stage::Dense { checkpoint: Some(folder), .. } => Some(root.join(folder)),
        _ => None,
    });
    folders.map(|folder| weights(&folder)).max()
}

fn weights(folder: &Path) -> u64 {
    let files = match WeightFiles::find(folder) {
        Ok(WeightFiles::Whole(file)) => vec![file],
        Ok(WeightFiles::Pieces { files, .. }) => files,
        Err(_) => Vec::new(),
    };
    // Packed linears are unpacked in memory.
    files.iter().filter_map(|path| File::open(path).ok()).map(|file| file.map().len() as u64).sum()
}

/// Bytes that can be had now: the machine's, or what is left of this container's limit. `None` where the system does not say.
fn available() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        // Pages of files that were read count as used and are given back when they are needed.
        .map(|(most, used)| most.saturating_sub(used.saturating_sub(inactive_files())));
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    match (machine, limit) {
        (Some(machine), Some(limit)) => Some(machine.min(limit)),
        (machine, limit) => machine.or(limit),
    }
}

/// Bytes of this container's page cache that nothing uses.
fn inactive_files() -> u64 {
    let text = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("inactive_file "));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::workers;

    #[test]
    fn as_many_workers_as_memory_holds_and_one_in_any_case() {
        const GB: u64 = 1_000_000_000;
        assert_eq!(workers(64 * GB, 8 * GB), 3);
        assert_eq!(workers(8 * GB, 8 * GB), 1);
        assert_eq!(workers(0, u64::MAX), 1);
        assert_eq!(workers(10 * GB, 0), 20);
    }
}

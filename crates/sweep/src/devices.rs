//! Which devices the workers of a sweep hold.

use std::{fmt, fs, path::Path, str::FromStr};

/// Where workers run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Every visible GPU, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One GPU.
    Cuda(u32),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// Why a text is no device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a device: use `auto`, `cpu` or `cuda:N`")]
pub struct DeviceError(pub String);

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| DeviceError(text.to_owned())),
        }
    }
}

/// GPUs that a process may use: those of `visible` (the value of `CUDA_VISIBLE_DEVICES`) when given, else the device files.
pub fn visible_gpus(visible: Option<&str>) -> u32 {
    let devices = gpu_files(Path::new("/dev"));
    visible.map_or(devices, |list| visible_of(list, devices))
}

/// How many of `devices` GPUs a value of `CUDA_VISIBLE_DEVICES` shows, as the CUDA runtime reads it: a list of indices, or of identifiers
/// (`GPU-...`, `MIG-...`; several processes cannot share a `MIG` list, one sees its first). What is neither, and an index that no GPU has,
/// hides itself and everything behind it, so `NoDevFiles` shows none; an item twice hides all.
fn visible_of(list: &str, devices: u32) -> u32 {
    let items: Vec<&str> = list.split(',').map(str::trim).collect();
    if let Some(prefix) = ["GPU-", "MIG-"].into_iter().find(|prefix| items[0].starts_with(prefix)) {
        let ids: Vec<&str> = items.into_iter().take_while(|item| item.starts_with(prefix)).collect();
        let most = if prefix == "MIG-" { devices.min(1) } else { devices };
        return if is_distinct(&ids) { most.min(ids.len() as u32) } else { 0 };
    }
    let indices: Vec<u32> = items.into_iter().map_while(leading_number).collect();
    if !is_distinct(&indices) {
        return 0;
    }
    indices.into_iter().take_while(|&index| index < devices).count() as u32
}

/// The number that a text begins with, as C's `strtoul` finds it: `1gpu` is 1. A sign of its own is none.
fn leading_number(text: &str) -> Option<u32> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

fn is_distinct<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().all(|(at, item)| !items[..at].contains(item))
}

/// Devices of a machine, and how workers share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// What was asked for.
    pub asked: Vec<DeviceChoice>,
    /// GPUs that `auto` may use, as [`visible_gpus`] counts them.
    pub gpus: u32,
    /// Workers that share a GPU, where nobody says how many workers there are.
    pub per_gpu: usize,
    /// Number of workers; where absent, so many per GPU, or one per core. 0: none.
    pub slots: Option<usize>,
}

impl Devices {
    /// The CPU, with a number of workers.
    pub fn cpu(slots: usize) -> Self {
        Self { asked: vec![DeviceChoice::Cpu], gpus: 0, per_gpu: 1, slots: Some(slots) }
    }

    /// One device argument per worker, in turns.
    pub fn workers(&self, threads: u32) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.workers_of(threads, cores)
    }

    fn workers_of(&self, threads: u32, cores: usize) -> Vec<String> {
        let listed = self.listed();
        let count = match self.slots {
            Some(slots) => slots,
            None if self.is_gpu() => listed.len() * self.per_gpu.max(1),
            None => listed.len().max(cores / threads.max(1) as usize),
        };
        listed.iter().cycle().take(count).cloned().collect()
    }

    /// The devices in the order in which they were asked for.
    fn listed(&self) -> Vec<String> {
        let of = |choice: &DeviceChoice| match choice {
            DeviceChoice::Cuda(index) => vec![format!("cuda:{index}")],
            // The worker decides: its libtorch may have been built without CUDA.
            DeviceChoice::Auto if self.gpus == 1 => vec!["auto".to_owned()],
            DeviceChoice::Auto if self.gpus > 1 => (0..self.gpus).map(|index| format!("cuda:{index}")).collect(),
            DeviceChoice::Auto | DeviceChoice::Cpu => vec!["cpu".to_owned()],
        };
        self.asked.iter().flat_map(of).collect()
    }

    /// Whether a worker holds a GPU.
    pub fn is_gpu(&self) -> bool {
        let is_gpu = |choice: &DeviceChoice| match choice {
            DeviceChoice::Cuda(_) => true,
            DeviceChoice::Auto => self.gpus > 0,
            DeviceChoice::Cpu => false,
        };
        self.asked.iter().any(is_gpu)
    }

    /// Threads of one worker: as asked for; else 1 on a CPU, where workers share the cores, and on a GPU the cores divided among its workers,
    /// which need them to decode images and to walk what is small.
    pub fn threads(&self, asked: Option<u32>) -> u32 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads_of(asked, cores)
    }

    fn threads_of(&self, asked: Option<u32>, cores: usize) -> u32 {
        let workers = if self.is_gpu() { self.workers_of(1, cores).len().max(1) } else { cores };
        asked.unwrap_or((cores / workers).max(1) as u32)
    }

    /// What times of workers are comparable on: `cpu`, or the name of the first GPU that they hold, `cuda` where no driver says it.
    pub fn machine_name(&self) -> String {
        let index = match self.asked.first() {
            Some(DeviceChoice::Cuda(index)) => *index as usize,
            Some(DeviceChoice::Auto) if self.gpus > 0 => 0,
            _ => return "cpu".to_owned(),
        };
        ressa_store::accelerator(index).unwrap_or_else(|| "cuda".to_owned())
    }
}

fn gpu_files(folder: &Path) -> u32 {
    let is_gpu = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
    };
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter(|item| item.as_ref().is_ok_and(|item| item.file_name().to_str().is_some_and(is_gpu)))
        .count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(asked: &[DeviceChoice], gpus: u32, slots: Option<usize>) -> Devices {
        Devices { asked: asked.to_vec(), gpus, per_gpu: 1, slots }
    }

    #[test]
    fn gpu_workers_share_the_cores_and_cpu_workers_have_one_each() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let threads = |choice, gpus, slots, asked| devices(&[choice], gpus, slots).threads_of(asked, 16);
        assert_eq!(threads(Cpu, 0, None, None), 1);
        assert_eq!(threads(Auto, 0, Some(2), None), 1);
        assert_eq!(threads(Auto, 2, None, None), 8);
        assert_eq!(threads(Cuda(1), 0, None, None), 16);
        assert_eq!(threads(Cuda(1), 0, Some(4), None), 4);
        assert_eq!(threads(Cuda(1), 0, Some(64), None), 1);
        assert_eq!(threads(Auto, 2, None, Some(3)), 3);
        assert_eq!(Devices { per_gpu: 2, ..devices(&[Auto], 2, None) }.threads_of(None, 16), 4);
        assert_eq!(devices(&[Auto], 0, None).machine_name(), "cpu");
    }

    #[test]
    fn visible_gpus_are_those_that_cuda_shows() {
        for (list, visible) in [
            ("0,1", 2),
            ("3", 1),
            ("1,0,3,2", 4),
            (" 0 , 1 ", 2),
            ("", 0),
            ("-1", 0),
            ("0,-1,1", 1),
            ("NoDevFiles", 0),
            ("none", 0),
            ("void", 0),
            ("0,x,1", 1),
            ("0,,1", 1),
            ("4", 0),
            ("0,7,1", 1),
            ("99999999999999999999", 0),
            ("1gpu2,2ampere", 2),
            ("0,0", 0),
            ("0,1,1", 0),
            ("GPU-8932f937,GPU-5ab3", 2),
            ("GPU-8932f937,0", 1),
            ("GPU-8932f937,GPU-8932f937", 0),
            ("MIG-GPU-1/0/0,MIG-GPU-1/1/0", 1),
        ] {
            assert_eq!(visible_of(list, 4), visible, "{list}");
            assert_eq!(visible_of(list, 0), 0, "{list}");
        }
    }

    #[test]
    fn workers_follow_gpus_then_cores() {
        use DeviceChoice::{Auto, Cpu, Cuda};
        let workers = |asked: &[DeviceChoice], gpus, slots| devices(asked, gpus, slots).workers_of(1, 3);
        assert_eq!(workers(&[Auto], 2, None), ["cuda:0", "cuda:1"]);
        assert_eq!(workers(&[Auto], 2, Some(3)), ["cuda:0", "cuda:1", "cuda:0"]);
        assert_eq!(workers(&[Auto], 1, Some(2)), ["auto", "auto"]);
        assert_eq!(workers(&[Cuda(1)], 2, None), ["cuda:1"]);
        assert_eq!(workers(&[Cuda(3), Cuda(1)], 0, None), ["cuda:3", "cuda:1"]);
        assert_eq!(workers(&[Auto], 0, None), ["cpu", "cpu", "cpu"]);
        assert_eq!(workers(&[Cpu], 2, Some(2)), ["cpu", "cpu"]);
        assert_eq!(workers(&[Auto], 2, Some(0)), [""; 0]);
        let shared = Devices { per_gpu: 2, ..devices(&[Cuda(0), Cuda(1)], 0, None) };
        assert_eq!(shared.workers_of(1, 3), ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]);
        assert_eq!("gpu".parse::<DeviceChoice>(), Err(DeviceError("gpu".to_owned())));
        assert_eq!("cuda:3".parse(), Ok(Cuda(3)));
    }
}

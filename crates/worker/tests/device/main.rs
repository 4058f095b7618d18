//! Everything that a device is used for, on devices that are not there: the same results as on the CPU, and no tensor on the wrong device.
//!
//! The stand-in computes with the CPU's kernels, so results are compared exactly where the program does the same on both. What differs between
//! a real device and a CPU by rounding is compared on real hardware, by `make device-check`.

#![cfg(target_os = "linux")]

mod experiment;
mod jobs;
mod memory;
mod published;
#[path = "../it/worker.rs"]
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Dtype, File};
use ressa_experiment::{
    Stage, StageKey, StageNode,
    job::Compute,
    protocol::{Event, Request},
    record::Certificate,
};
use ressa_store::{Entry, Store};
use ressa_testkit::stand_in::{StandIn, reports};

use crate::worker::{Worker, program};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where stages are executed.
enum Machine<'a> {
    Cpu,
    /// Device number, and where the process reports what it did to it.
    Lent(&'a StandIn, u32, &'a Path),
}

impl Machine<'_> {
    fn worker(&self, store: &Path) -> Worker {
        let mut command = match self {
            Machine::Cpu => program("serve", "cpu"),
            Machine::Lent(stand_in, device, report) => {
                let mut command = program("serve", &format!("cuda:{device}"));
                stand_in.lend(&mut command, report);
                command
            }
        };
        command.arg("--shipped").arg(repository().join("experiments/store"));
        Worker::spawn(command, store)
    }

    /// Executes the stages that are not shipped, in their order, and recounts what is certified.
    fn execute(&self, store: &Path, nodes: &[StageNode]) {
        let mut worker = self.worker(store);
        let published = Store::open(store, vec![repository().join("experiments/store")]).unwrap();
        for node in nodes.iter().filter(|node| !published.contains(&node.key.hex())) {
            let event = worker.make(&published, node);
            assert!(matches!(event, Event::Done { .. }), "{}: {event:?}", label(node));
        }
        for node in nodes.iter().filter(|node| node.stage.is_certified()) {
            let event = worker.ask(&Request::Verify { node: Box::new(node.clone()) });
            assert!(matches!(&event, Event::Verified { violations, .. } if violations.is_empty()), "{event:?}");
        }
        worker.finish();
    }
}

fn label(node: &StageNode) -> String {
    format!("{} {}", node.stage.kind(), serde_json::to_string(&*node.stage).unwrap())
}

/// Stages of two stores whose files or results differ, and where they may differ by rounding, are not near each other.
///
/// A device collects Gram matrices from several samples at once, and SparseGPT's column loop runs there in another order: sums are rounded
/// otherwise, and with the few samples of a test some of its choices follow. In bf16 the attention kernels of the two round otherwise. What such a
/// stage hands on makes later ones differ.
fn differences(one: &Path, two: &Path, nodes: &[StageNode]) -> Vec<String> {
    let shipped = || vec![repository().join("experiments/store")];
    let open = |folder: &Path| Store::open(folder, shipped()).unwrap();
    let stores = (open(one), open(two));
    let rounded = rounded_otherwise(nodes);
    let differs = |node: &&StageNode| {
        let of = |store: &Store| store.require(&node.key.hex()).unwrap();
        let (one, two) = (of(&stores.0), of(&stores.1));
        let same = one.manifest.files == two.manifest.files && one.manifest.result == two.manifest.result;
        // What was measured under masks that rounding has turned over has other values; under the same masks it is close.
        let are_turned = |key: &StageKey| {
            let files = |store: &Store| store.require(&key.hex()).unwrap().manifest.files;
            rounded.contains(key) && files(&stores.0) != files(&stores.1)
        };
        let is_measured = matches!(*node.stage, Stage::Statistics { .. });
        let is_elsewhere = || is_measured && node.inputs.iter().any(are_turned);
        let is_near = || rounded.contains(&node.key) && (is_elsewhere() || near(&one, &two, node));
        !same && !is_near()
    };
    nodes.iter().filter(differs).map(label).collect()
}

/// Stages that round otherwise on a device than on the CPU, and those that read them.
fn rounded_otherwise(nodes: &[StageNode]) -> BTreeSet<StageKey> {
    let mut rounded = BTreeSet::new();
    for node in nodes {
        let half = node.stage.compute() == Some(Compute::Bfloat16);
        let own = match &*node.stage {
            Stage::Prune { metric, .. } => metric.changes_weights(),
            Stage::Refine { .. } | Stage::Reconstruct { .. } => true,
            Stage::Statistics { needs, .. } => needs.gram,
            // Noise that is made on a device has another logarithm and sine.
            Stage::Adapt { training, .. } => training.perturb.is_on(),
            _ => false,
        };
        if own || half || node.inputs.iter().any(|key| rounded.contains(key)) {
            rounded.insert(node.key);
        }
    }
    rounded
}

/// Whether two executions of a stage agree but for rounding: as many weights of every layer pruned, nearly all of them the same; statistics
/// equal to four digits. Trainings and scores of such masks are only compared in that both exist.
fn near(one: &Entry, two: &Entry, node: &StageNode) -> bool {
    /// Share of mask bits that rounding may turn over.
    const TURNED: f64 = 0.15;
    match &*node.stage {
        Stage::Prune { .. } | Stage::Refine { .. } | Stage::Reconstruct { .. } => {
            let zeros = |entry: &Entry| -> BTreeMap<String, u64> {
                let certificate: Certificate = entry.result().unwrap();
                certificate.tensors.into_iter().map(|(name, tensor)| (name, tensor.zeros)).collect()
            };
            let bits = |entry: &Entry| tensors(&entry.file("masks.safetensors").unwrap());
            let (left, right) = (bits(one), bits(two));
            let all: usize = left.values().map(|tensor| tensor.1.len() * 8).sum();
            let turned: u32 = left
                .iter()
                .flat_map(|(name, tensor)| tensor.1.iter().zip(&right[name].1))
                .map(|(left, right)| (left ^ right).count_ones())
                .sum();
            zeros(one) == zeros(two) && f64::from(turned) <= TURNED * all as f64
        }
        Stage::Statistics { .. } => {
            let tensors = |entry: &Entry, file: &str| tensors(&entry.file(file).unwrap());
            one.manifest.files.keys().all(|file| all_close(&tensors(one, file), &tensors(two, file)))
        }
        _ => true,
    }
}

/// A tensor of a file: its type and its bytes.
#[derive(PartialEq)]
struct Stored(Dtype, Vec<u8>);

impl Stored {
    /// Its values, where they are f32 or f64.
    fn values(&self) -> Option<Vec<f64>> {
        let Stored(dtype, bytes) = self;
        match dtype {
            Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()),
            Dtype::F64 => Some(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
            _ => None,
        }
    }

    /// Whether two tensors are the same, or equal to four digits of their largest value.
    fn is_close(&self, other: &Stored) -> bool {
        if self == other {
            return true;
        }
        let (Some(left), Some(right)) = (self.values(), other.values()) else { return false };
        let largest = left.iter().fold(0f64, |most, value| most.max(value.abs()));
        left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| (l - r).abs() <= 1e-4 * largest)
    }
}

/// Every tensor of a file.
fn tensors(path: &Path) -> BTreeMap<String, Stored> {
    let file = File::open(path).unwrap();
    file.entries().iter().map(|entry| (entry.name.clone(), Stored(entry.dtype, file.bytes(entry).to_vec()))).collect()
}

/// Whether two files hold the same tensors, but for rounding.
fn all_close(left: &BTreeMap<String, Stored>, right: &BTreeMap<String, Stored>) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, tensor)| right.get(name).is_some_and(|other| tensor.is_close(other)))
}

/// Every process used its device, and none had a tensor elsewhere.
fn assert_used_well(report: &Path, processes: usize) {
    let reports = reports(report);
    assert_eq!(reports.len(), processes);
    for report in reports {
        assert!(report.violations == 0 && report.launches > 0, "{report:?}");
    }
}

/// The bytes of every file below a folder, by name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()) {
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

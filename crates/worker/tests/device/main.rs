//! Everything that a device is used for, on devices that are not there: the same results as on the CPU, and no tensor on the wrong device.
//!
//! The stand-in computes with the CPU's kernels, so results are compared exactly. What differs between a real device and a CPU by rounding
//! is compared on real hardware, by `make device-check`.

#![cfg(target_os = "linux")]

mod experiment;
mod jobs;
mod published;
#[path = "../it/worker.rs"]
mod worker;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_experiment::{
    Stage, StageNode,
    protocol::{Event, Request},
};
use ressa_store::Store;
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

    /// Executes stages in their order and recounts what is certified.
    fn execute(&self, store: &Path, nodes: &[StageNode]) {
        let mut worker = self.worker(store);
        for node in nodes {
            let event = worker.execute(node);
            assert!(matches!(event, Event::Done { .. }), "{}: {event:?}", label(node));
        }
        for node in nodes.iter().filter(|node| matches!(*node.stage, Stage::Prune { .. } | Stage::Merge { .. })) {
            let event = worker.ask(&Request::Verify { node: Box::new(node.clone()) });
            assert!(matches!(&event, Event::Verified { violations, .. } if violations.is_empty()), "{event:?}");
        }
        worker.finish();
    }
}

fn label(node: &StageNode) -> String {
    format!("{} {}", node.stage.kind(), serde_json::to_string(&*node.stage).unwrap())
}

/// Files and results that differ between two stores.
fn differences(one: &Path, two: &Path, nodes: &[StageNode]) -> Vec<String> {
    let shipped = || vec![repository().join("experiments/store")];
    let open = |folder: &Path| Store::open(folder, shipped()).unwrap();
    let (one, two) = (open(one), open(two));
    let differs = |node: &&StageNode| {
        let of = |store: &Store| {
            let manifest = store.require(&node.key.0).unwrap().manifest;
            (manifest.files, manifest.result)
        };
        of(&one) != of(&two)
    };
    nodes.iter().filter(differs).map(label).collect()
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

//! A results folder, a few runs and the fake worker.

use std::{fs, path::PathBuf, time::Duration};

use ressa_experiment::{
    Cell, Pattern, RunConfig, Task,
    config::{Metric, RestoreMethod},
    model::{ModelConfig, Preset},
};
use ressa_runlog::{FailureRecord, Log, LogEvent};
use ressa_store::Store;
use ressa_sweep::{Devices, Graph, Options, Recruiter, Stop, Summary, SweepError, SweepEvent, WorkerCommand, execute};
use tempfile::TempDir;

/// A results folder that goes with the test.
pub struct Bench {
    pub folder: TempDir,
    pub store: Store,
    pub options: Options,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store"), vec![folder.path().join("shipped")]).unwrap();
        let options = Options {
            results: folder.path().to_owned(),
            worker: WorkerCommand {
                program: fake_worker(),
                folder: folder.path().to_owned(),
                threads: 1,
                environment: Vec::new(),
                deterministic: false,
                arguments: Vec::new(),
            },
            devices: Devices::cpu(2),
            machine: "cpu".to_owned(),
            max_failures: None,
            retries: ressa_sweep::RetryPolicy::default(),
            timeout: Some(Duration::from_secs(60)),
            lease: Duration::from_secs(2),
            idle: ressa_sweep::DEFAULT_IDLE,
            is_followed: false,
            title: "test".to_owned(),
            program: "a test".to_owned(),
        };
        Self { folder, store, options }
    }

    /// Tells the fake worker what to do from now on.
    pub fn instruct(&self, instructions: serde_json::Value) {
        fs::write(self.folder.path().join("fake.json"), instructions.to_string()).unwrap();
    }

    /// A sweep over a graph.
    pub fn sweep(&self, graph: &Graph) -> Summary {
        self.listen(graph, &Stop::new(), &mut |_| {}).unwrap()
    }

    /// A sweep with a listener.
    pub fn listen(
        &self,
        graph: &Graph,
        stop: &Stop,
        events: &mut dyn FnMut(SweepEvent),
    ) -> Result<Summary, SweepError> {
        self.recruit(graph, stop, None, events)
    }

    /// A sweep for which somebody has workers started.
    pub fn recruit(
        &self,
        graph: &Graph,
        stop: &Stop,
        recruiter: Option<&mut dyn Recruiter>,
        events: &mut dyn FnMut(SweepEvent),
    ) -> Result<Summary, SweepError> {
        execute(graph, &self.store, &self.options, stop, recruiter, events)
    }

    /// Keys in the order of publication.
    pub fn published(&self) -> Vec<String> {
        let (entries, _) = ressa_runlog::history(&self.store).unwrap();
        let key = |event| match event {
            LogEvent::Published { key, .. } => Some(key.to_string()),
            _ => None,
        };
        entries.into_iter().filter_map(|entry| key(entry.event)).collect()
    }

    /// What failed and was not made since.
    pub fn failures(&self) -> Vec<FailureRecord> {
        let index = ressa_runlog::read(&self.store).unwrap().index;
        ressa_sweep::failures(index.failures(), &self.store).into_iter().cloned().collect()
    }

    /// Forgets every failure, as `ressa retry` does.
    pub fn retry(&self) {
        let failures = self.failures();
        let mut log = Log::begin(&self.store, "a test").unwrap();
        failures.iter().for_each(|record| log.write(LogEvent::Retried { key: record.key }).unwrap());
    }
}

/// The example `fake-worker`, which cargo builds beside the tests.
fn fake_worker() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/fake-worker");
    assert!(program.is_file(), "`{}` is not built", program.display());
    program
}

/// A run with two tasks at 50 %.
pub fn run(metric: Metric, method: RestoreMethod, seed: u64) -> RunConfig {
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    run.seed = seed;
    run.prune.metric = metric;
    run.prune.pattern = Pattern::Unstructured;
    run.prune.vision.sparsity = 0.5;
    run.prune.language.sparsity = 0.5;
    run.restore.method = method;
    run.evaluate.tasks = vec![Task::Vqav2, Task::Flickr30k];
    run
}

/// The cell of a run.
pub fn cell(run: RunConfig) -> Cell {
    let coordinates = [
        ("metric".to_owned(), run.prune.metric.name().to_owned()),
        ("restoration".to_owned(), run.restore.method.name().to_owned()),
    ]
    .into();
    let stages = ressa_experiment::chain::stages(&run).into_iter().map(Into::into).collect();
    let run_id = serde_json::to_string(&run).unwrap().into();
    Cell { coordinates, seed: run.seed, run_id, point: None, stages, run: run.into() }
}

/// Wanda at two seeds, alone and restored: 1 dense, 4 prune, 2 adapt, 2 merge, 8 evaluate.
pub fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for method in [RestoreMethod::None, RestoreMethod::SparseLora] {
        for seed in 0..2 {
            cells.push(cell(run(Metric::Wanda, method, seed)));
        }
    }
    cells
}

/// The graph of `cells`.
pub fn graph(cells: &[Cell]) -> Graph {
    Graph::new("test", cells, &[])
}

//! The executor: runs a stage into a draft, which its coordinator publishes.

use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use ressa_contents::Contents;
use ressa_experiment::{Stage, StageNode, record::Certificate};
use ressa_runtime::Device;
use ressa_store::{Draft, Environment, Manifest, Store};
use serde_json::Value;

use crate::{
    Loading, PipelineError, adapt, dense, evaluate, merge, prune, reconstruct, refine, rescale, resident::Resident,
    resumed, sensitivity, statistics, structure,
};

/// Executes stages on one device. Keeps the dense model, masks and benchmarks it has used in memory.
pub struct Executor {
    pub(crate) store: Store,
    pub(crate) device: Device,
    pub(crate) resident: Resident,
    pub(crate) loading: Loading,
    pub(crate) loss: Rc<Cell<Option<f64>>>,
    environment: Environment,
}

/// Called with the share done and what is going on.
pub type Progress<'a> = &'a mut dyn FnMut(f64, &str);

impl Executor {
    /// An executor on `device` that reads from and writes into `store`.
    pub fn new(store: Store, device: Device, environment: Environment) -> Self {
        let (resident, loading, loss) = Default::default();
        Self { store, device, resident, loading, loss, environment }
    }

    /// Where a training leaves the loss of a step before it reports progress. Whoever hears of the progress takes it from there.
    pub fn loss(&self) -> Rc<Cell<Option<f64>>> {
        Rc::clone(&self.loss)
    }

    /// The same with other settings of loading than the device's usual ones.
    pub fn with_loading(mut self, loading: Loading) -> Self {
        self.loading = loading;
        self
    }

    /// The store it reads from and writes into.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What decides how an operation rounds beside its inputs: outputs that are kept for other runs serve only runs that round alike.
    pub(crate) fn arithmetic(&self) -> Value {
        let Environment { libtorch, accelerator, tf32, .. } = &self.environment;
        let device = if self.device.is_cuda() { accelerator.as_str() } else { "cpu" };
        serde_json::json!({ "libtorch": libtorch, "cuda": self.device.is_cuda(), "device": device, "tf32": tf32 })
    }

    /// Executes one stage whose inputs are in the store. Its output is finished under its attempt then, for the coordinator to publish.
    /// Returns the wall seconds it took, with those of interrupted attempts that it resumed.
    pub fn execute(&mut self, node: &StageNode, attempt: u32, progress: Progress<'_>) -> Result<f64, PipelineError> {
        let start = Instant::now();
        if node.stage.trains() {
            resumed::settle(&self.store, node)?;
        }
        let earlier = Spent::of(&self.store, node);
        let cpu = ressa_runtime::cpu_seconds();
        let store = self.store.clone();
        let draft = store.draft(&node.key.hex(), attempt)?;
        self.check_contents(node)?;
        let mut written = Instant::now();
        let result = self.run(node, &draft, &mut |share, message| {
            if written.elapsed() >= SPENT_INTERVAL {
                written = Instant::now();
                earlier.write(start.elapsed().as_secs_f64());
            }
            progress(share, message);
        });
        if result.is_err() {
            earlier.write(start.elapsed().as_secs_f64());
        }
        let result = result?;
        // What was read may have changed under the stage's hands.
        self.check_contents(node)?;
        let seconds = earlier.seconds + start.elapsed().as_secs_f64();
        draft.finish(Manifest {
            key: node.key.to_string(),
            kind: node.stage.kind().to_owned(),
            version: node.stage.version(),
            configuration: plain(&node.stage.by_content(&node.readings))?,
            inputs: plain(&*node.inputs)?,
            readings: if node.readings.is_empty() { Value::Null } else { plain(&node.readings)? },
            result,
            files: Default::default(),
            seconds,
            cpu_seconds: ressa_runtime::cpu_seconds() - cpu,
            environment: self.environment.clone(),
        })?;
        Ok(seconds)
    }

    /// Proves that what a stage reads from outside the store is what its key was made from.
    fn check_contents(&self, node: &StageNode) -> Result<(), PipelineError> {
        // Places are relative to the working folder of the process, as everything that a stage names.
        Ok(Contents::new(&self.store, "").check(node)?)
    }

    fn run(&mut self, node: &StageNode, draft: &Draft<'_>, progress: Progress<'_>) -> Result<Value, PipelineError> {
        let _no_grad = tch::no_grad_guard();
        if !matches!(*node.stage, Stage::Evaluate { .. }) {
            self.release_evaluations();
        }
        match &*node.stage {
            Stage::Dense { .. } => dense::run(self, node, draft, progress),
            Stage::Rescale { .. } => rescale::run(self, node, draft, progress),
            Stage::Sensitivity { .. } => sensitivity::run(self, node, progress),
            Stage::Statistics { .. } => statistics::run(self, node, draft, progress),
            Stage::Prune { .. } => prune::run(self, node, draft, progress),
            Stage::Refine { .. } => refine::run(self, node, draft, progress),
            Stage::Structure { .. } => structure::run(self, node, draft, progress),
            Stage::Reconstruct { .. } => reconstruct::run(self, node, draft, progress),
            Stage::Adapt { .. } => adapt::run(self, node, draft, progress),
            Stage::Merge { .. } => merge::run(self, node, draft, progress),
            Stage::Evaluate { .. } => evaluate::run(self, node, draft, progress),
        }
    }

    /// Recounts the weights behind a published certificate, or scores published predictions again. Returns what does not hold; nothing when all
    /// holds.
    pub fn verify(&mut self, node: &StageNode) -> Result<Vec<String>, PipelineError> {
        let entry = self.store.require(&node.key.hex())?;
        if let Err(damage) = entry.check() {
            return Ok(vec![damage.to_string()]);
        }
        let _no_grad = tch::no_grad_guard();
        let found = match &*node.stage {
            Stage::Prune { .. } => prune::recounted(self, node, &entry)?,
            Stage::Refine { .. } => refine::recounted(self, node, &entry)?,
            Stage::Structure { .. } => structure::recounted(self, node, &entry)?,
            Stage::Reconstruct { .. } => reconstruct::recounted(self, node, &entry)?,
            Stage::Merge { .. } => merge::recounted(self, node)?,
            Stage::Evaluate { .. } => return evaluate::verify(node, &entry),
            Stage::Dense { .. }
            | Stage::Rescale { .. }
            | Stage::Sensitivity { .. }
            | Stage::Statistics { .. }
            | Stage::Adapt { .. } => return Ok(Vec::new()),
        };
        let published: Certificate = entry.result()?;
        let mut violations = found.violations;
        if found.tensors != published.tensors {
            violations.push("a recount differs from the published certificate".to_owned());
        }
        Ok(violations)
    }
}

/// Least time between two notes of what a stage has taken.
const SPENT_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds that interrupted attempts spent on a stage that resumes; the note lies beside its checkpoint.
struct Spent {
    seconds: f64,
    /// Where the note is; none for a stage that begins anew.
    folder: Option<PathBuf>,
}

impl Spent {
    fn of(store: &Store, node: &StageNode) -> Self {
        let folder = node.stage.trains().then(|| store.scratch_folder(&node.key.hex()));
        let noted = folder.as_ref().and_then(|folder| fs::read_to_string(folder.join("seconds")).ok());
        let seconds = noted.and_then(|text| text.trim().parse().ok());
        Self { seconds: seconds.filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0).unwrap_or(0.0), folder }
    }

    /// Notes what was spent with `more` seconds of this attempt. One that cannot be written is a number that is too small, no failure.
    fn write(&self, more: f64) {
        if let Some(folder) = self.folder.as_ref().filter(|folder| folder.is_dir()) {
            let _ = ressa_store::replace(&folder.join("seconds"), format!("{:.3}", self.seconds + more).as_bytes());
        }
    }
}

/// A typed record as plain JSON.
pub(crate) fn plain<T: serde::Serialize>(value: &T) -> Result<Value, PipelineError> {
    serde_json::to_value(value).map_err(|e| PipelineError::Internal(e.to_string()))
}

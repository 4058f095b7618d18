//! Where things are: experiments, results, shipped models, the worker program.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ressa_store::Store;
use ressa_sweep::{
    DEFAULT_IDLE, DEFAULT_LEASE, DeviceChoice, Devices, Options, RetryPolicy, WorkerCommand, visible_gpus,
};

use crate::{
    arguments::{Global, MachineOptions, SweepOptions},
    build_id::build,
    exit::{Exit, Failure},
};

/// What the numeric libraries of a worker read before anything runs, as far as the caller's environment does not say it.
pub fn worker_environment(tf32: bool, deterministic: bool) -> Vec<(String, String)> {
    let mut settings = vec![
        // Idle threads of libgomp must not spin on a shared machine.
        ("OMP_WAIT_POLICY", "passive"),
        // MKL divides a product by the number of threads, and its last bits with it, unless it is told not to. Results are to be the
        // same on any number.
        ("MKL_CBWR", "AUTO,STRICT"),
    ];
    if tf32 {
        settings.push(("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "1"));
    }
    if deterministic {
        // cuBLAS repeats its sums only with a workspace of its own for each stream.
        settings.push(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"));
    }
    let missing = settings.into_iter().filter(|(name, _)| env::var_os(name).is_none());
    missing.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The folders a command works with; all paths are absolute.
#[derive(Debug)]
pub struct Workspace {
    /// Parent of the experiments; relative paths in experiments (checkpoints, benchmarks) start here.
    pub root: PathBuf,
    /// Experiment files.
    pub experiments: PathBuf,
    /// What sweeps write.
    pub results: PathBuf,
    worker: PathBuf,
}

impl Workspace {
    /// Finds the folders: options first, then upwards from the current folder, then upwards from the program.
    pub fn find(global: &Global) -> Result<Self, Failure> {
        let here = env::current_dir().map_err(|e| Failure::new(Exit::Other, format!("no current folder: {e}")))?;
        let program = env::current_exe().unwrap_or_default();
        let experiments = match &global.experiments {
            Some(folder) => {
                let folder = here.join(folder);
                if !folder.is_dir() {
                    let message = format!("`{}` is not a folder; --experiments expects one", folder.display());
                    return Err(Failure::new(Exit::Usage, message));
                }
                folder
            }
            None => upwards(&here).or_else(|| upwards(&program)).ok_or_else(|| {
                let message = format!(
                    "no folder `experiments` in `{}` or above; go into the repository or use --experiments",
                    here.display()
                );
                Failure::new(Exit::Usage, message)
            })?,
        };
        let experiments = fs::canonicalize(&experiments).unwrap_or(experiments);
        let root = experiments.parent().unwrap_or(&here).to_owned();
        let results = global.results.as_ref().map_or_else(|| root.join("results"), |folder| here.join(folder));
        let worker = worker(global);
        named([&root, &experiments, &results, &worker].map(Clone::clone))?;
        Ok(Self { root, experiments, results, worker })
    }

    /// Read-only store entries that come with the repository.
    pub fn shipped(&self) -> PathBuf {
        self.experiments.join("store")
    }

    /// The store of this results folder, with the shipped entries behind it.
    pub fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(self.results.join("store"), vec![self.shipped()])?)
    }

    /// The same store for commands that only read: no folder is made, so results may lie on a disk that cannot be written.
    pub fn reading(&self) -> Store {
        Store::reading(self.results.join("store"), vec![self.shipped()])
    }

    /// The worker program.
    pub fn worker(&self) -> &Path {
        &self.worker
    }

    /// The devices that are asked for; `auto` means the GPUs that this process may use.
    pub fn devices(&self, asked: &[DeviceChoice], per_gpu: Option<u16>, slots: Option<u16>) -> Devices {
        let visible = env::var_os("CUDA_VISIBLE_DEVICES").map(|list| list.to_string_lossy().into_owned());
        Devices {
            asked: asked.to_vec(),
            gpus: visible_gpus(visible.as_deref()),
            per_gpu: per_gpu.map_or(1, usize::from),
            slots: slots.map(usize::from),
        }
    }

    /// Options of a sweep on this machine.
    pub fn sweep_options(&self, machine: &MachineOptions) -> Options {
        let devices = self.devices(&machine.device, machine.workers_per_gpu, machine.slots);
        Options {
            results: self.results.clone(),
            worker: WorkerCommand {
                program: self.worker.clone(),
                folder: self.root.clone(),
                threads: devices.threads(machine.threads),
                environment: worker_environment(machine.tf32, machine.deterministic),
                deterministic: machine.deterministic,
                arguments: machine.loading.worker_arguments(&self.results),
            },
            machine: devices.machine_name(),
            devices,
            max_failures: None,
            timeout: None,
            lease: DEFAULT_LEASE,
            idle: DEFAULT_IDLE,
            is_followed: false,
            title: String::new(),
            program: String::new(),
            retries: RetryPolicy::default(),
        }
    }

    /// The same with the limits of a sweep.
    pub fn limited(&self, options: &SweepOptions) -> Options {
        Options {
            max_failures: options.max_failures.map(|most| most as usize),
            timeout: options.timeout.map(Duration::from_secs),
            retries: RetryPolicy::new(options.retries),
            ..self.sweep_options(&options.machine)
        }
    }

    /// The table of published numbers.
    pub fn published(&self) -> PathBuf {
        self.experiments.join("paper/expected.csv")
    }

    /// A path as people know it: relative to the root where it is below.
    pub fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// Sees that paths are UTF-8: they are written into records and read by programs that know no other names.
pub fn named(paths: impl IntoIterator<Item = PathBuf>) -> Result<(), Failure> {
    match paths.into_iter().find(|path| path.to_str().is_none()) {
        None => Ok(()),
        Some(path) => {
            let message = format!("the path `{}` is not UTF-8; rename it, or reach it through a link", path.display());
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Version and build of this program. A coordinator and its pilots must be of one build: what they say to each other has no version.
pub fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("ressa {version} (build {})", build().unwrap_or_else(|| "unknown".to_owned()))
}

/// The worker program: the option's, or the one beside this program.
pub fn worker(global: &Global) -> PathBuf {
    match &global.worker {
        Some(file) => env::current_dir().unwrap_or_default().join(file),
        None => env::current_exe().unwrap_or_default().with_file_name("ressa-worker"),
    }
}

fn upwards(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|folder| folder.join("experiments")).find(|folder| folder.is_dir())
}

//! Profiles: what a site's engine is asked for. They belong to a machine and a user, never to an experiment, and no result depends on them.

mod grammar;
mod read;
mod units;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use units::slurm_time;

/// Name of the class that takes what no other class takes.
pub const DEFAULT_CLASS: &str = "default";

/// Slurm may send the signal so many seconds early.
const EARLY: u64 = 60;

/// A profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Name of its file, without `.yaml`.
    pub name: String,
    /// What starts the jobs.
    pub engine: Engine,
    /// When a node is no longer used.
    pub bad_node: BadNode,
    /// In the order in which they are asked; the last one is `default`.
    pub classes: Vec<Class>,
}

/// What starts jobs. It is never ours: it runs before a sweep and after it.
#[derive(Clone, Debug, PartialEq)]
pub enum Engine {
    /// Arrays, submitted with `sbatch`.
    Slurm,
    /// An Indexed Job.
    Kubernetes(Kubernetes),
    /// A task array of a HyperQueue server.
    HyperQueue {
        /// What the server calls its GPUs.
        gpu_resource: String,
    },
}

/// Where pods find program and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Kubernetes {
    /// Image with both programs and libtorch.
    pub image: String,
    /// PersistentVolumeClaim that holds the results folder.
    pub claim: String,
    /// Where pods mount it.
    pub mount: String,
    /// The results folder as pods see it; the same path as here where absent.
    pub results: Option<String>,
    /// Folder of the experiments in the image.
    pub folder: Option<String>,
    /// The program in the image.
    pub program: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// What the cluster calls its GPUs.
    pub gpu_resource: String,
    /// Starts of a pod that failed by itself.
    pub retries: u32,
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
}

/// When a node is no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNode {
    /// Failed stages in a row.
    pub failures: u32,
    /// A stage that failed within so many seconds counts.
    pub faster_than: u64,
}

/// A resource class: stages that need the same of a node, and what that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name, which pilots are started with.
    pub name: String,
    /// Kinds of stages that it takes; of the class `default`, none by name.
    pub takes: Vec<String>,
    /// Of which models.
    pub models: Models,
    /// What a job asks for.
    pub resources: Resources,
}

/// Whose stages a class takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Models {
    /// Every model's.
    Any,
    /// Those of the embedded world.
    Embedded,
    /// Those of published checkpoints.
    Published,
}

impl Models {
    fn include(self, embedded: bool) -> bool {
        match self {
            Models::Any => true,
            Models::Embedded => embedded,
            Models::Published => !embedded,
        }
    }
}

/// What a job asks for, and how many jobs there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// Partition, or several with commas between; the site's default where absent.
    pub partition: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Quality of service.
    pub qos: Option<String>,
    /// Generic resources as Slurm writes them.
    pub gres: Option<String>,
    /// GPUs, also those of `gres`.
    pub gpus: u32,
    /// CPU cores.
    pub cpus: Option<u32>,
    /// Memory; the site's default where absent.
    pub memory: Option<Memory>,
    /// Time limit in minutes, Slurm's own unit; a profile for Slurm has one.
    pub minutes: Option<u64>,
    /// Features that nodes must have.
    pub constraint: Option<String>,
    /// Nodes that are not used.
    pub exclude: Vec<String>,
    /// Jobs of the class that run at once.
    pub array_limit: Option<u32>,
    /// Jobs of the class at once, waiting or running.
    pub max_jobs: u32,
    /// Seconds of one worker's work that justify a job; all the time it has where absent.
    pub work_per_job: Option<u64>,
    /// Lines of the script before the pilot.
    pub setup: Vec<String>,
    /// Further options of the engine's command.
    pub options: Vec<String>,
    /// What announces the time limit.
    pub signal: Signal,
    /// Seconds between the signal and the time limit.
    pub lead: u64,
    /// Whether Slurm starts a job again after a preemption or the loss of its node.
    pub requeue: bool,
    /// Workers of a job without GPUs.
    pub workers: Option<u32>,
    /// Workers that share a GPU.
    pub workers_per_gpu: u32,
    /// GPUs set aside for each worker.
    pub devices_per_worker: u32,
}

/// Memory in MiB. Slurm takes exactly one of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Of a job.
    Job(u64),
    /// For each core.
    PerCpu(u64),
    /// For each GPU.
    PerGpu(u64),
}

/// Signals that a pilot takes as the announcement of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Signal {
    /// `SIGUSR2`; the libraries of GPUs use `SIGUSR1` themselves.
    Usr2,
    /// `SIGTERM`.
    Term,
}

impl Signal {
    /// As Slurm writes it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Usr2 => "USR2",
            Signal::Term => "TERM",
        }
    }
}

impl Profile {
    /// The class that takes stages of a kind, of the embedded world or of a published checkpoint.
    pub fn class_of(&self, kind: &str, embedded: bool) -> &Class {
        let takes = |class: &&Class| class.takes.iter().any(|taken| taken == kind) && class.models.include(embedded);
        self.classes.iter().find(takes).unwrap_or(&self.classes[self.classes.len() - 1])
    }

    /// The class of a name.
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.name == name)
    }
}

impl Resources {
    /// Workers of a job, where the profile decides it; else the pilot goes by the cores it finds.
    pub fn slots(&self) -> Option<u32> {
        match self.gpus {
            0 => self.workers,
            gpus => Some(gpus * self.workers_per_gpu / self.devices_per_worker),
        }
    }

    /// Workers of a job to reckon with.
    pub fn expected_slots(&self) -> u32 {
        self.slots().or(self.cpus).unwrap_or(1).max(1)
    }

    /// Seconds in which a job can work: its time less the announcement, which may be early. `None` without a time limit.
    pub fn usable_seconds(&self) -> Option<u64> {
        self.minutes.map(|minutes| (minutes * 60).saturating_sub(self.lead + EARLY).max(1))
    }

    /// MiB of a job's memory, as far as the profile says.
    pub fn mebibytes(&self) -> Option<u64> {
        Some(match self.memory? {
            Memory::Job(size) => size,
            Memory::PerCpu(size) => size * u64::from(self.cpus.unwrap_or(1)),
            Memory::PerGpu(size) => size * u64::from(self.gpus),
        })
    }
}

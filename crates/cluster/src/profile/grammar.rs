//! The keys of a profile, as data: the validator walks it.

use ressa_experiment::{
    Stage,
    strict::{Field, Need, Shape, Sort},
};

/// What a profile is, for messages.
pub(super) const PROFILE: Sort = Sort {
    word: "profile",
    name: "a profile",
    smallest: "a profile needs at least `engine: slurm` and `defaults: { time: 4h }`; `profiles/slurm.yaml` explains every key",
    sharing: "what several classes share stands under `defaults:`",
};

/// Kinds of stages, in the order of a run.
const KINDS: [&str; Stage::VERSIONS.len()] = {
    let mut kinds = [""; Stage::VERSIONS.len()];
    let mut at = 0;
    while at < kinds.len() {
        kinds[at] = Stage::VERSIONS[at].0;
        at += 1;
    }
    kinds
};

const COUNT: Shape = Shape::Integer { min: 1, max: 100_000 };
const TIME: Shape = Shape::Form("4h");
const MEMORY: Shape = Shape::Form("64G");

const fn may(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { key, need: Need::May, shape, doc }
}

const fn must(key: &'static str, shape: Shape, doc: &'static str) -> Field {
    Field { key, need: Need::Must, shape, doc }
}

/// Keys of the top level.
pub(super) const TOP: &[Field] = &[
    must("engine", Shape::Choice(&["slurm", "kubernetes", "hyperqueue"]), "What starts the jobs."),
    may("defaults", Shape::Object(RESOURCES), "What a job asks for, where its class does not say otherwise."),
    may(
        "classes",
        Shape::Named(CLASS),
        "Resource classes: the first one that takes a stage gets it, `default` the rest.",
    ),
    may("bad-node", Shape::Object(BAD_NODE), "When a node is no longer used."),
    may("kubernetes", Shape::Object(KUBERNETES), "Where pods find program and results."),
    may("hyperqueue", Shape::Object(HYPERQUEUE), "How HyperQueue names GPUs."),
];

/// Keys of a class: which stages it takes, then all those of `defaults`.
const CLASS: &[Field] = &[
    must("takes", Shape::Set { of: &Shape::Choice(&KINDS), min: 1 }, "Kinds of stages that run in this class."),
    may(
        "models",
        Shape::Choice(&["any", "embedded", "published"]),
        "Stages of every model, of the embedded world only, or of published checkpoints only.",
    ),
    may("partition", Shape::Form("gpu"), "Partition, or several with commas between."),
    may("account", Shape::Form("my-project"), "Account that is charged."),
    may("qos", Shape::Form("normal"), "Quality of service."),
    may("gres", Shape::Form("gpu:a100:1"), "Generic resources as Slurm writes them."),
    may("gpus", Shape::Integer { min: 0, max: 64 }, "GPUs of a job, of any type."),
    may("cpus", Shape::Integer { min: 1, max: 4096 }, "CPU cores of a job."),
    may("mem", MEMORY, "Memory of a job."),
    may("mem-per-cpu", MEMORY, "Memory for each core."),
    may("mem-per-gpu", MEMORY, "Memory for each GPU."),
    may("time", TIME, "Time limit of a job."),
    may("constraint", Shape::Form("a100|h100"), "Features that nodes must have."),
    may("exclude", Shape::List(&Shape::Form("node12")), "Nodes that are not used."),
    may("array-limit", COUNT, "Jobs of a class that run at once: the K of `--array=0-N%K`."),
    may("max-jobs", COUNT, "Jobs of a class at once, waiting or running."),
    may("work-per-job", TIME, "Work of one worker that justifies a job."),
    may("setup", Shape::List(&Shape::Form("module load cuda")), "Lines of the script before the pilot."),
    may("options", Shape::List(&Shape::Form("--exclusive")), "Further options of the engine's command."),
    may("signal", Shape::Form("USR2@300"), "Signal, and seconds between it and the time limit."),
    may("requeue", Shape::Flag, "Whether Slurm starts a job again after a preemption or the loss of its node."),
    may("workers", Shape::Integer { min: 1, max: 1024 }, "Workers of a job without GPUs."),
    may("workers-per-gpu", Shape::Integer { min: 1, max: 64 }, "Workers that share a GPU."),
    may("devices-per-worker", Shape::Integer { min: 1, max: 64 }, "GPUs set aside for each worker."),
];

/// Keys of `defaults`.
const RESOURCES: &[Field] = CLASS.split_at(2).1;

const BAD_NODE: &[Field] = &[
    may("failures", Shape::Integer { min: 1, max: 1000 }, "Failed stages in a row, as many of which exclude a node."),
    may("faster-than", TIME, "A stage that failed within this time counts."),
];

const KUBERNETES: &[Field] = &[
    must("image", Shape::Form("registry.example.org/ressa:1"), "Image with both programs and libtorch."),
    must("claim", Shape::Form("results"), "PersistentVolumeClaim that holds the results folder."),
    must("mount", Shape::Form("/mnt/results"), "Where pods mount it."),
    may(
        "results",
        Shape::Form("/mnt/results/study"),
        "The results folder as pods see it; the same path as here where absent.",
    ),
    may("folder", Shape::Form("/opt/ressa"), "Folder of the experiments in the image."),
    may("program", Shape::Form("/opt/ressa/bin/ressa"), "The program in the image."),
    may("namespace", Shape::Form("default"), "Namespace."),
    may("gpu-resource", Shape::Form("nvidia.com/gpu"), "What the cluster calls its GPUs."),
    may("retries", Shape::Integer { min: 0, max: 100 }, "Starts of a pod that failed by itself."),
    may("node-selector", Shape::Texts, "Labels that nodes must have."),
];

const HYPERQUEUE: &[Field] = &[may("gpu-resource", Shape::Form("gpus/nvidia"), "What the server calls its GPUs.")];

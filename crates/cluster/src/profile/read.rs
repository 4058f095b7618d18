//! From a profile's file to typed values, with every mistake pointed at.

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::{ExperimentError, strict::StrictFile};
use serde::Deserialize;

use super::{
    BadNode, Class, DEFAULT_CLASS, EARLY, Engine, Kubernetes, Memory, Models, Profile, Resources, Signal,
    grammar::{PROFILE, TOP},
    units,
};

/// Jobs of a class where the profile says nothing: few enough for any queue.
const MAX_JOBS: u32 = 16;
/// Seconds between the signal and the time limit.
const LEAD: u64 = 300;
const BAD_NODE: BadNode = BadNode { failures: 3, faster_than: 30 };

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    engine: String,
    #[serde(default)]
    defaults: Keys,
    #[serde(default)]
    classes: BTreeMap<String, Keys>,
    #[serde(default)]
    bad_node: WrittenBadNode,
    kubernetes: Option<WrittenKubernetes>,
    hyperqueue: Option<WrittenHyperQueue>,
}

/// Keys of `defaults` and of a class.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    takes: Vec<String>,
    models: Option<String>,
    partition: Option<String>,
    account: Option<String>,
    qos: Option<String>,
    gres: Option<String>,
    gpus: Option<u32>,
    cpus: Option<u32>,
    mem: Option<String>,
    mem_per_cpu: Option<String>,
    mem_per_gpu: Option<String>,
    time: Option<String>,
    constraint: Option<String>,
    exclude: Option<Vec<String>>,
    array_limit: Option<u32>,
    max_jobs: Option<u32>,
    work_per_job: Option<String>,
    setup: Option<Vec<String>>,
    options: Option<Vec<String>>,
    signal: Option<String>,
    requeue: Option<bool>,
    workers: Option<u32>,
    workers_per_gpu: Option<u32>,
    devices_per_worker: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenBadNode {
    failures: Option<u32>,
    faster_than: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenKubernetes {
    image: String,
    claim: String,
    mount: String,
    results: Option<String>,
    folder: Option<String>,
    program: Option<String>,
    namespace: Option<String>,
    gpu_resource: Option<String>,
    retries: Option<u32>,
    #[serde(default)]
    node_selector: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct WrittenHyperQueue {
    gpu_resource: Option<String>,
}

/// Options of sbatch that the script has already, or that would make it another script.
const OURS: [&str; 24] = [
    "account",
    "array",
    "chdir",
    "constraint",
    "cpus-per-task",
    "error",
    "exclude",
    "gres",
    "job-name",
    "mem",
    "mem-per-cpu",
    "mem-per-gpu",
    "no-requeue",
    "nodes",
    "ntasks",
    "open-mode",
    "output",
    "parsable",
    "partition",
    "qos",
    "requeue",
    "signal",
    "time",
    "wrap",
];

impl Profile {
    /// Reads a profile; `shown` is its path as people wrote it.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn read(path: &Path, shown: &str) -> Result<Self, ExperimentError> {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Self::of(&StrictFile::read(path, shown, PROFILE, TOP)?, name)
    }

    /// The same of a text.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(text: &str, name: &str) -> Result<Self, ExperimentError> {
        Self::of(&StrictFile::parse(text, &format!("{name}.yaml"), PROFILE, TOP)?, name.to_owned())
    }

    fn of(file: &StrictFile, name: String) -> Result<Self, ExperimentError> {
        let written: Written = file.values()?;
        let engine = engine(file, &written)?;
        let defaults = Place { file, path: vec!["defaults"], engine: &engine };
        let mut classes: Vec<Class> = Vec::new();
        for class in file.keys(&["classes"]) {
            let place = Place { file, path: vec!["classes", class], engine: &engine };
            let Some(keys) = written.classes.get(class) else { continue };
            if class == DEFAULT_CLASS {
                let message = format!("the class `{DEFAULT_CLASS}` is what no other class takes");
                return Err(place.mistake(
                    "",
                    message,
                    "a name of its own",
                    "choose another name; what it asks for stands under `defaults:`",
                ));
            }
            let models = match keys.models.as_deref() {
                Some("embedded") => Models::Embedded,
                Some("published") => Models::Published,
                _ => Models::Any,
            };
            for kind in &keys.takes {
                let earlier = classes.iter().find(|other| {
                    other.takes.contains(kind) && (other.models == Models::Any || other.models == models)
                });
                if let Some(earlier) = earlier {
                    let message =
                        format!("class `{class}` gets no `{kind}`: class `{}` takes them first", earlier.name);
                    return Err(place.mistake(
                        "takes",
                        message,
                        "never reached",
                        "take the kind out of one of the two",
                    ));
                }
            }
            let resources = place.resources(&overlaid(&written.defaults, keys))?;
            classes.push(Class { name: class.to_owned(), takes: keys.takes.clone(), models, resources });
        }
        let resources = defaults.resources(&written.defaults)?;
        classes.push(Class { name: DEFAULT_CLASS.to_owned(), takes: Vec::new(), models: Models::Any, resources });
        let within = written.bad_node.faster_than.as_deref();
        let place = Place { file, path: vec!["bad-node"], engine: &engine };
        let bad_node = BadNode {
            failures: written.bad_node.failures.unwrap_or(BAD_NODE.failures),
            faster_than: within.map_or(Ok(BAD_NODE.faster_than), |text| place.seconds("faster-than", text))?,
        };
        Ok(Self { name, engine, bad_node, classes })
    }
}

fn engine(file: &StrictFile, written: &Written) -> Result<Engine, ExperimentError> {
    let foreign = [
        ("kubernetes", written.kubernetes.is_some() && written.engine != "kubernetes"),
        ("hyperqueue", written.hyperqueue.is_some() && written.engine != "hyperqueue"),
    ];
    if let Some((section, _)) = foreign.iter().find(|(_, is_foreign)| *is_foreign) {
        let message = format!("`{section}` says nothing to `engine: {}`", written.engine);
        return Err(file.mistake(&[section], message, "not used", format!("remove it, or write `engine: {section}`")));
    }
    match (written.engine.as_str(), &written.kubernetes) {
        ("kubernetes", None) => {
            let help =
                "kubernetes: image, claim and mount at least; `profiles/kubernetes.yaml` is an example".to_owned();
            Err(file.mistake(
                &["engine"],
                "`engine: kubernetes` needs `kubernetes`".to_owned(),
                "where are the results?",
                help,
            ))
        }
        ("kubernetes", Some(found)) => {
            for (key, path) in
                [("mount", Some(&found.mount)), ("results", found.results.as_ref()), ("folder", found.folder.as_ref())]
            {
                if path.is_some_and(|path| !path.starts_with('/')) {
                    let message = format!("`kubernetes.{key}` is a path in a pod");
                    return Err(file.mistake(
                        &["kubernetes", key],
                        message,
                        "not absolute",
                        "begin it with `/`".to_owned(),
                    ));
                }
            }
            Ok(Engine::Kubernetes(Kubernetes {
                image: found.image.clone(),
                claim: found.claim.clone(),
                mount: found.mount.clone(),
                results: found.results.clone(),
                folder: found.folder.clone(),
                program: found.program.clone().unwrap_or_else(|| "ressa".to_owned()),
                namespace: found.namespace.clone(),
                gpu_resource: found.gpu_resource.clone().unwrap_or_else(|| "nvidia.com/gpu".to_owned()),
                retries: found.retries.unwrap_or(3),
                node_selector: found.node_selector.clone(),
            }))
        }
        ("hyperqueue", _) => {
            let named = written.hyperqueue.as_ref().and_then(|found| found.gpu_resource.clone());
            Ok(Engine::HyperQueue { gpu_resource: named.unwrap_or_else(|| "gpus/nvidia".to_owned()) })
        }
        _ => Ok(Engine::Slurm),
    }
}

/// A class's keys over the defaults. Ways to say the same thing replace each other: one memory, one number of GPUs, one of workers.
fn overlaid(defaults: &Keys, class: &Keys) -> Keys {
    let mut keys = defaults.clone();
    if class.mem.is_some() || class.mem_per_cpu.is_some() || class.mem_per_gpu.is_some() {
        (keys.mem, keys.mem_per_cpu, keys.mem_per_gpu) = (None, None, None);
    }
    if class.gres.is_some() || class.gpus.is_some() {
        (keys.gres, keys.gpus) = (None, None);
    }
    if class.gpus == Some(0) {
        (keys.workers_per_gpu, keys.devices_per_worker) = (None, None);
        // Memory of GPUs that are not there.
        keys.mem_per_gpu = None;
    } else if class.gres.is_some() || class.gpus.is_some() {
        keys.workers = None;
    }
    macro_rules! lay {
        ($($key:ident)*) => { $(if class.$key.is_some() { keys.$key.clone_from(&class.$key); })* };
    }
    lay!(partition account qos gres gpus cpus mem mem_per_cpu mem_per_gpu time constraint exclude array_limit max_jobs
        work_per_job setup options signal requeue workers workers_per_gpu devices_per_worker);
    keys
}

/// Where in the file a set of keys stands.
struct Place<'a> {
    file: &'a StrictFile,
    path: Vec<&'a str>,
    engine: &'a Engine,
}

impl Place<'_> {
    /// An error at a key of this place; where the key is inherited, at this place or at `defaults`.
    fn mistake(&self, key: &str, message: String, label: &str, help: impl Into<String>) -> ExperimentError {
        let mut path = self.path.clone();
        if !key.is_empty() {
            if !self.file.keys(&path).contains(&key) && self.file.keys(&["defaults"]).contains(&key) {
                path = vec!["defaults"];
            }
            path.push(key);
        }
        self.file.mistake(&path, message, label, help.into())
    }

    /// How messages call a key.
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.path.join("."))
    }

    fn seconds(&self, key: &str, text: &str) -> Result<u64, ExperimentError> {
        units::seconds(text).filter(|&seconds| seconds > 0).ok_or_else(|| {
            let message = format!("`{}`: `{text}` is not a time", self.name(key));
            self.mistake(
                key,
                message,
                "expected a number with its unit",
                "write `90s`, `45min`, `4h`, `1h30min`, `2d` or `04:00:00`",
            )
        })
    }

    fn mebibytes(&self, key: &str, text: &str) -> Result<u64, ExperimentError> {
        units::mebibytes(text).ok_or_else(|| {
            let message = format!("`{}`: `{text}` is not a size of memory", self.name(key));
            self.mistake(
                key,
                message,
                "expected a whole number with its unit",
                "write `1500M`, `64G` or `1T`; as in Slurm, these are powers of 1024",
            )
        })
    }

    fn resources(&self, keys: &Keys) -> Result<Resources, ExperimentError> {
        self.check_texts(keys)?;
        let gpus = self.gpus(keys)?;
        let memory = self.memory(keys, gpus)?;
        let (signal, lead) = self.signal(keys)?;
        let minutes = match &keys.time {
            Some(text) => Some(self.seconds("time", text)?.div_ceil(60)),
            None => None,
        };
        match minutes {
            None if *self.engine == Engine::Slurm => {
                let message =
                    "jobs need a time limit: it says how many there must be, and when a training is saved".to_owned();
                return Err(self.mistake("time", message, "`time` is missing", "add `time: 4h`"));
            }
            Some(minutes) if minutes * 60 <= lead + EARLY => {
                let message = format!(
                    "a job of {minutes} min ends before it begins: {lead} s of it are for saving, and Slurm may be {EARLY} s early"
                );
                return Err(self.mistake(
                    "time",
                    message,
                    "too short",
                    format!("more than {} s, or a shorter `signal`", lead + EARLY),
                ));
            }
            _ => {}
        }
        let work_per_job = keys.work_per_job.as_deref().map(|text| self.seconds("work-per-job", text)).transpose()?;
        self.workers(keys, gpus)?;
        let resources = Resources {
            partition: keys.partition.clone(),
            account: keys.account.clone(),
            qos: keys.qos.clone(),
            gres: keys.gres.clone(),
            gpus,
            cpus: keys.cpus,
            memory,
            minutes,
            constraint: keys.constraint.clone(),
            exclude: keys.exclude.clone().unwrap_or_default(),
            array_limit: keys.array_limit,
            max_jobs: keys.max_jobs.unwrap_or(MAX_JOBS),
            work_per_job,
            setup: keys.setup.clone().unwrap_or_default(),
            options: keys.options.clone().unwrap_or_default(),
            signal,
            lead,
            requeue: keys.requeue.unwrap_or(true),
            workers: keys.workers,
            workers_per_gpu: keys.workers_per_gpu.unwrap_or(1),
            devices_per_worker: keys.devices_per_worker.unwrap_or(1),
        };
        self.check_engine(&resources)?;
        Ok(resources)
    }

    /// Texts become lines of a script: one line each, without anything that would end it.
    fn check_texts(&self, keys: &Keys) -> Result<(), ExperimentError> {
        let single = [
            ("partition", &keys.partition),
            ("account", &keys.account),
            ("qos", &keys.qos),
            ("gres", &keys.gres),
            ("constraint", &keys.constraint),
        ];
        let single = single.into_iter().flat_map(|(key, text)| text.iter().map(move |text| (key, text)));
        let nodes = keys.exclude.iter().flatten().map(|node| ("exclude", node));
        for (key, text) in single.chain(nodes) {
            if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control() || "'\"\\`$".contains(c)) {
                let message = format!("`{}`: `{}` is not a word that Slurm takes", self.name(key), text.escape_debug());
                return Err(self.mistake(key, message, "one word", "remove blanks and quotes"));
            }
        }
        for (key, lines) in [("setup", &keys.setup), ("options", &keys.options)] {
            if let Some(line) = lines.iter().flatten().find(|line| line.contains(['\n', '\r', '\0'])) {
                let message = format!("`{}`: `{}` is more than one line", self.name(key), line.escape_debug());
                return Err(self.mistake(key, message, "one line for each item", "write several items"));
            }
        }
        for option in keys.options.iter().flatten() {
            let name = option.strip_prefix("--").map(|rest| rest.split(['=', ' ']).next().unwrap_or_default());
            match name {
                Some(name) if !name.is_empty() && !OURS.contains(&name) => {}
                Some(name) if OURS.contains(&name) => {
                    let message = format!("`{}`: `--{name}` is set by the script itself", self.name("options"));
                    return Err(self.mistake(
                        "options",
                        message,
                        "set elsewhere",
                        "use the profile's own key; the script decides the rest",
                    ));
                }
                _ => {
                    let message = format!("`{}`: `{option}` is not an option", self.name("options"));
                    return Err(self.mistake(
                        "options",
                        message,
                        "begins with `--`",
                        "write it in full, such as `--exclusive`",
                    ));
                }
            }
        }
        Ok(())
    }

    fn gpus(&self, keys: &Keys) -> Result<u32, ExperimentError> {
        let Some(gres) = &keys.gres else { return Ok(keys.gpus.unwrap_or(0)) };
        if keys.gpus.is_some() {
            let message = "`gres` and `gpus` both say how many GPUs a job has".to_owned();
            return Err(self.mistake("gpus", message, "said twice", "keep `gres` where the type matters, else `gpus`"));
        }
        let mut found = 0;
        for resource in gres.split(',') {
            let parts: Vec<&str> = resource.split(':').collect();
            let count = match parts[..] {
                ["gpu"] => 1,
                ["gpu", last] => last.parse().unwrap_or(1),
                ["gpu", _, count] => count.parse().map_err(|_| {
                    let message = format!("`{}`: `{resource}` is not a number of GPUs", self.name("gres"));
                    self.mistake(
                        "gres",
                        message,
                        "expected `gpu:TYPE:NUMBER`",
                        "write it as for `sbatch --gres`, such as `gpu:a100:1`",
                    )
                })?,
                _ => 0,
            };
            found += count;
        }
        Ok(found)
    }

    fn memory(&self, keys: &Keys, gpus: u32) -> Result<Option<Memory>, ExperimentError> {
        let written = [("mem", &keys.mem), ("mem-per-cpu", &keys.mem_per_cpu), ("mem-per-gpu", &keys.mem_per_gpu)];
        let mut given = written.into_iter().filter_map(|(key, text)| text.as_ref().map(|text| (key, text)));
        let Some((key, text)) = given.next() else { return Ok(None) };
        if let Some((second, _)) = given.next() {
            let message = format!("`{key}` and `{second}` exclude each other: Slurm takes one of them");
            return Err(self.mistake(
                second,
                message,
                "a second one",
                "keep one of `mem`, `mem-per-cpu`, `mem-per-gpu`",
            ));
        }
        let size = self.mebibytes(key, text)?;
        Ok(Some(match key {
            "mem" => Memory::Job(size),
            "mem-per-cpu" => Memory::PerCpu(size),
            _ if gpus == 0 => {
                let message = "`mem-per-gpu` of a job without GPUs".to_owned();
                return Err(self.mistake(
                    key,
                    message,
                    "nothing to multiply with",
                    "add `gpus` or `gres`, or write `mem`",
                ));
            }
            _ => Memory::PerGpu(size),
        }))
    }

    fn signal(&self, keys: &Keys) -> Result<(Signal, u64), ExperimentError> {
        let Some(text) = &keys.signal else { return Ok((Signal::Usr2, LEAD)) };
        let (name, lead) = text.split_once('@').unwrap_or((text, "300"));
        let signal = match name.trim_start_matches("SIG") {
            "USR2" => Some(Signal::Usr2),
            "TERM" => Some(Signal::Term),
            _ => None,
        };
        match (signal, lead.parse()) {
            (Some(signal), Ok(lead)) if (5..=65535).contains(&lead) => Ok((signal, lead)),
            _ => {
                let message = format!("`{}` cannot be `{text}`", self.name("signal"));
                let help = "write `USR2@300` or `TERM@300`: what a pilot listens to, and 5 to 65535 seconds before the time limit";
                Err(self.mistake("signal", message, "expected a signal and seconds", help))
            }
        }
    }

    fn workers(&self, keys: &Keys, gpus: u32) -> Result<(), ExperimentError> {
        let (shared, apart) = (keys.workers_per_gpu.unwrap_or(1), keys.devices_per_worker.unwrap_or(1));
        if gpus == 0 {
            let of_gpus = [("workers-per-gpu", keys.workers_per_gpu), ("devices-per-worker", keys.devices_per_worker)];
            if let Some((key, _)) = of_gpus.into_iter().find(|(_, value)| value.is_some()) {
                let message = format!("`{}` of a job without GPUs", self.name(key));
                return Err(self.mistake(key, message, "says nothing", "add `gpus` or `gres`, or write `workers`"));
            }
        } else if keys.workers.is_some() {
            let message = format!("`{}` of a job with GPUs", self.name("workers"));
            return Err(self.mistake(
                "workers",
                message,
                "says nothing",
                "write `workers-per-gpu` or `devices-per-worker`",
            ));
        } else if shared > 1 && apart > 1 {
            let message = "a worker either shares a GPU or has several".to_owned();
            return Err(self.mistake(
                "devices-per-worker",
                message,
                "contradicts `workers-per-gpu`",
                "keep one of the two",
            ));
        } else if !gpus.is_multiple_of(apart) {
            let message = format!("{gpus} GPUs cannot be divided into groups of {apart}");
            return Err(self.mistake(
                "devices-per-worker",
                message,
                "does not divide the GPUs",
                "choose a divisor of the number of GPUs",
            ));
        }
        Ok(())
    }

    /// Refuses what an engine other than Slurm would silently not do.
    fn check_engine(&self, resources: &Resources) -> Result<(), ExperimentError> {
        let engine = match self.engine {
            Engine::Slurm => return Ok(()),
            Engine::Kubernetes(_) => "kubernetes",
            Engine::HyperQueue { .. } => "hyperqueue",
        };
        let is_kubernetes = engine == "kubernetes";
        let found = [
            ("partition", resources.partition.is_some()),
            ("account", resources.account.is_some()),
            ("qos", resources.qos.is_some()),
            ("gres", resources.gres.is_some()),
            ("constraint", resources.constraint.is_some()),
            ("exclude", !resources.exclude.is_empty()),
            ("array-limit", resources.array_limit.is_some() && !is_kubernetes),
            ("options", !resources.options.is_empty() && is_kubernetes),
        ];
        match found.into_iter().find(|(_, is_said)| *is_said) {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("`{}` says nothing to `engine: {engine}`", self.name(key));
                Err(self.mistake(
                    key,
                    message,
                    "not used",
                    "remove it; `gpus`, `cpus`, `mem` and `time` are what every engine takes",
                ))
            }
        }
    }
}

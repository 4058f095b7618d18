//! `ressa work`: workers of this machine for a sweep that somebody coordinates elsewhere.

use std::{
    env,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ressa_sweep::{DeviceChoice, PilotEnd, PilotOptions, WorkerCommand, pilot, visible_gpus};

use crate::{
    arguments::{Global, WorkOptions},
    exit::{Exit, Failure, Outcome},
    signals,
    text::note,
    workspace::{Workspace, program},
};

/// Works until the sweep ends or this is asked to.
pub fn run(global: &Global, options: &WorkOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let granted = granted_gpus();
    let mut devices = workspace.devices(&options.device, options.workers_per_gpu, options.slots);
    match &granted {
        Granted::ByEnvironment => {}
        Granted::Listed(list) => devices.gpus = visible_gpus(Some(list)),
        Granted::Unknown if devices.gpus > 0 && devices.asked.contains(&DeviceChoice::Auto) => {
            devices.gpus = 1;
            if !global.quiet {
                note("Slurm does not say which GPUs are this job's; one is used");
            }
        }
        Granted::Unknown => {}
    }
    let threads = devices.threads(options.threads);
    let pilot_options = PilotOptions {
        results: workspace.results.clone(),
        worker: WorkerCommand {
            program: workspace.worker().to_owned(),
            folder: PathBuf::new(),
            threads,
            environment: match granted {
                Granted::Listed(list) => vec![("CUDA_VISIBLE_DEVICES".to_owned(), list)],
                Granted::ByEnvironment | Granted::Unknown => Vec::new(),
            },
            deterministic: false,
            arguments: Vec::new(),
        },
        devices: devices.workers(threads),
        machine: devices.machine_name(),
        name: options.name.clone().or_else(name_of_job),
        job: job().unwrap_or_default(),
        class: options.class.clone(),
        node: variable("SLURMD_NODENAME"),
        time_limit: [options.time_limit.map(Duration::from_secs), time_left()].into_iter().flatten().min(),
        grace: Duration::from_secs(options.grace),
        wait: Duration::from_secs(options.wait),
        program: program(),
    };
    let mut say = |line: &str| {
        if !global.quiet {
            note(line);
        }
    };
    match pilot(&pilot_options, &signals::stop(), &mut say).map_err(Failure::from)? {
        PilotEnd::NoSweep => {
            let message =
                format!("no sweep came in `{}`; --wait SECONDS waits longer", workspace.show(&workspace.results));
            Err(Failure::new(Exit::NothingSelected, message))
        }
        PilotEnd::Done(why) => {
            say(&format!("ended: {why}"));
            Ok(Exit::Done)
        }
        PilotEnd::GaveBack(why) => {
            say(&format!("ended: {why}; what was not finished is given back"));
            Ok(Exit::Busy)
        }
    }
}

/// How GPUs are granted to this process.
enum Granted {
    /// `CUDA_VISIBLE_DEVICES` says it, or nothing divides them.
    ByEnvironment,
    /// Slurm's list, where it does not set that variable.
    Listed(String),
    /// A job of Slurm that says nothing.
    Unknown,
}

fn granted_gpus() -> Granted {
    if env::var_os("CUDA_VISIBLE_DEVICES").is_some() || variable("SLURM_JOB_ID").is_none() {
        return Granted::ByEnvironment;
    }
    let list = variable("SLURM_STEP_GPUS").or_else(|| variable("SLURM_JOB_GPUS"));
    list.map_or(Granted::Unknown, Granted::Listed)
}

/// The job of Slurm, Kubernetes or HyperQueue that this runs in, with how often it was started again.
fn job() -> Option<String> {
    if let Some(job) = variable("SLURM_ARRAY_JOB_ID") {
        return Some(format!("{job}_{}", variable("SLURM_ARRAY_TASK_ID").unwrap_or_default()));
    }
    variable("SLURM_JOB_ID")
        .or_else(|| Some(format!("{}_{}", variable("HQ_JOB_ID")?, variable("HQ_TASK_ID")?)))
        .or_else(|| variable("JOB_COMPLETION_INDEX"))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A name made of the job's: the same job started again is another worker.
fn name_of_job() -> Option<String> {
    let node = variable("SLURMD_NODENAME").unwrap_or_else(ressa_runlog::host);
    let restarts = variable("SLURM_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
    let name = format!("{}-{node}-{restarts}-{}", job()?, &ressa_runlog::nonce()[..6]);
    Some(name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect())
}

/// Time until the job ends, where Slurm says it.
fn time_left() -> Option<Duration> {
    let end: u64 = env::var("SLURM_JOB_END_TIME").ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    end.checked_sub(now).map(Duration::from_secs)
}

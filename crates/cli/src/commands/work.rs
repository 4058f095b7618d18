//! `ressa work`: workers of this machine for a sweep that somebody coordinates elsewhere.

use std::{
    env,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ressa_sweep::{DeviceChoice, PilotEnd, PilotOptions, WorkerCommand, machine_name, pilot, threads};

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
    let first = options.device.first().copied().unwrap_or(DeviceChoice::Auto);
    let gpus = workspace.gpus(first);
    let slots = options.slots.map(usize::from);
    let devices = devices(options, &workspace, slots);
    let threads = match options.threads {
        Some(threads) => threads,
        None => threads(first, gpus, Some(devices.len()), None),
    };
    let pilot_options = PilotOptions {
        results: workspace.results.clone(),
        worker: WorkerCommand {
            program: workspace.worker().to_owned(),
            folder: PathBuf::new(),
            threads,
            environment: Vec::new(),
            deterministic: false,
            arguments: Vec::new(),
        },
        devices,
        machine: machine_name(first, gpus),
        name: options.name.clone().or_else(name_of_job),
        job: job().unwrap_or_default(),
        time_limit: options.time_limit.map(Duration::from_secs).or_else(time_left),
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

/// One device argument per worker.
fn devices(options: &WorkOptions, workspace: &Workspace, slots: Option<usize>) -> Vec<String> {
    if let [one] = options.device[..] {
        return ressa_sweep::devices_of(one, workspace.gpus(one), slots, options.threads.unwrap_or(1));
    }
    let listed: Vec<String> = options.device.iter().map(ToString::to_string).collect();
    let count = slots.unwrap_or(listed.len()).max(1);
    listed.iter().cycle().take(count).cloned().collect()
}

/// The job of Slurm, Kubernetes or HyperQueue that this runs in, with how often it was started again.
fn job() -> Option<String> {
    let get = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(job) = get("SLURM_ARRAY_JOB_ID") {
        return Some(format!("{job}_{}", get("SLURM_ARRAY_TASK_ID").unwrap_or_default()));
    }
    get("SLURM_JOB_ID")
        .or_else(|| Some(format!("{}_{}", get("HQ_JOB_ID")?, get("HQ_TASK_ID")?)))
        .or_else(|| get("JOB_COMPLETION_INDEX"))
}

/// A name made of the job's: the same job started again is another worker.
fn name_of_job() -> Option<String> {
    let node = env::var("SLURMD_NODENAME").unwrap_or_else(|_| ressa_runlog::host());
    let restarts = env::var("SLURM_RESTART_COUNT").unwrap_or_else(|_| "0".to_owned());
    let name = format!("{}-{node}-{restarts}-{}", job()?, &ressa_runlog::nonce()[..6]);
    Some(name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect())
}

/// Time until the job ends, where Slurm says it.
fn time_left() -> Option<Duration> {
    let end: u64 = env::var("SLURM_JOB_END_TIME").ok()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    end.checked_sub(now).map(Duration::from_secs)
}

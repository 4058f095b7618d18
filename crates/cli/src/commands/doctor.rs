//! `ressa doctor`: what keeps a sweep from running on this machine, or on a cluster, with what to do about it.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use ressa_cluster::{
    Engine,
    doctor::{Check, folder_checks, slurm_checks, try_job},
    slurm::Programs,
};
use serde_json::json;

use crate::{
    arguments::{DoctorOptions, Global, MachineOptions},
    cluster::Cluster,
    exit::{Exit, Outcome},
    study::Study,
    text::{say, say_json},
    workspace::Workspace,
};

/// Looks at everything and prints a line each.
pub fn run(global: &Global, options: &DoctorOptions) -> Outcome {
    let workspace = Workspace::find(global)?;
    let cluster = options.profile.as_ref().map(|name| Cluster::find(&workspace, global, name)).transpose()?;
    let mut findings = vec![
        Check::new("experiments", true, workspace.show(&workspace.experiments)),
        study(&workspace),
        results(&workspace),
        worker(&workspace),
    ];
    findings.extend(libtorch(&workspace, &options.machine));
    findings.push(shipped(&workspace));
    if let Some(cluster) = &cluster {
        findings.extend(site(&workspace, cluster, options.try_job));
    }
    let well = findings.iter().all(|finding| finding.good);
    if global.json {
        say_json(&json!(findings));
    } else {
        let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default().max(12);
        for finding in &findings {
            let mark = if finding.good { "ok   " } else { "WRONG" };
            say(format_args!("{mark}  {:<width$} {}", finding.what, finding.found));
        }
    }
    Ok(if well { Exit::Done } else { Exit::Other })
}

/// A cluster: the folder that its machines share, and what a profile asks for.
fn site(workspace: &Workspace, cluster: &Cluster, try_jobs: Option<u64>) -> Vec<Check> {
    let (profile, pilot, programs) = (cluster.profile(), cluster.pilot(), Programs::default());
    let mut checks = folder_checks(&workspace.results);
    match &profile.engine {
        Engine::Slurm => {
            checks.extend(slurm_checks(profile, pilot, &programs));
            let version = concat!("ressa ", env!("CARGO_PKG_VERSION"));
            if let Some(limit) = try_jobs.map(Duration::from_secs) {
                checks.extend(profile.classes.iter().map(|class| try_job(class, pilot, &programs, version, limit)));
            }
        }
        Engine::Kubernetes(_) | Engine::HyperQueue { .. } => {
            checks.push(match try_jobs {
                None => Check::new(
                    "engine",
                    true,
                    "not asked; submit what `ressa sweep --dry-run` prints to have it checked",
                ),
                Some(_) => {
                    Check::new("engine", false, "jobs are submitted by you, so --try-job has none to try; leave it out")
                }
            });
        }
    }
    checks
}

fn study(workspace: &Workspace) -> Check {
    let (good, found) = match Study::load(workspace, &Default::default()) {
        Ok(study) => (true, format!("{} experiments load", study.experiments.len())),
        Err(failure) => (false, failure.message()),
    };
    Check::new("study", good, found)
}

fn results(workspace: &Workspace) -> Check {
    let probe = workspace.results.join(".doctor");
    let attempt = fs::create_dir_all(&workspace.results).and_then(|()| fs::write(&probe, b"x"));
    let _ = fs::remove_file(&probe);
    let shown = workspace.show(&workspace.results);
    let (good, found) = match attempt {
        Ok(()) => match workspace.store() {
            Ok(_) => (true, format!("{shown} can be written")),
            Err(failure) => (false, failure.message()),
        },
        Err(e) => (false, format!("cannot write {shown}: {e}; choose another folder with --results")),
    };
    Check::new("results", good, found)
}

fn worker(workspace: &Workspace) -> Check {
    let good = workspace.worker().is_file();
    let hint = if good { "" } else { " is not there; build it with `make build`" };
    Check::new("worker", good, format!("{}{hint}", workspace.show(workspace.worker())))
}

/// What a worker would use, on each of the devices.
fn libtorch(workspace: &Workspace, machine: &MachineOptions) -> impl Iterator<Item = Check> {
    let devices: BTreeSet<String> = workspace.devices(&machine.device, None, None).workers(1).into_iter().collect();
    devices.into_iter().map(|device| probe(workspace, &device))
}

fn probe(workspace: &Workspace, device: &str) -> Check {
    let answer = Command::new(workspace.worker()).args(["probe", "--device", device]).stdin(Stdio::null()).output();
    let (good, found) = match answer {
        Err(e) => (false, format!("the worker cannot be asked: {e}")),
        Ok(output) if !output.status.success() => {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            (false, format!("{message}; `make setup` finds or fetches libtorch"))
        }
        Ok(output) => match serde_json::from_slice::<serde_json::Value>(&output.stdout) {
            Err(_) => {
                (false, "the worker does not answer as expected; build both programs with `make build`".to_owned())
            }
            Ok(found) if found["device"] == "cpu" && device != "cpu" => {
                let message = "there is a GPU, but the worker's libtorch does not use it: it was set up for a CPU, or the driver does not \
                               answer (`nvidia-smi`); remove .torch and .libtorch, then `make setup build`";
                (false, message.to_owned())
            }
            Ok(found) => {
                let field = |name: &str| found[name].as_str().unwrap_or("?").to_owned();
                (true, format!("{} on {}, built from {}", field("libtorch"), field("device"), field("revision")))
            }
        },
    };
    Check::new("libtorch", good, found)
}

/// Shipped dense models: each must be what was published, or it is trained again.
fn shipped(workspace: &Workspace) -> Check {
    // Looked at without the results folder, which may be at fault itself and has a line of its own.
    let store = workspace.reading();
    let keys: BTreeSet<String> = store.shipped_entries().map(|(key, _)| key).collect();
    let damage: Vec<String> = keys
        .iter()
        .filter_map(|key| store.entry(key).and_then(|entry| entry.map_or(Ok(()), |e| e.check())).err())
        .map(|error| error.to_string())
        .collect();
    let found = match (damage.is_empty(), keys.len()) {
        (false, _) => format!("{}; restore it from the repository, or `ressa pretrain`", damage.join("; ")),
        (true, 0) => "none: the first sweep trains a dense model (`make pretrain` ships one)".to_owned(),
        (true, many) => format!("{many} dense model entries, intact"),
    };
    Check::new("shipped", damage.is_empty(), found)
}

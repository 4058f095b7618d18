//! Calls of real programs: fakes on a PATH of their own.

use std::io::Write as _;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use ressa_cluster::slurm::{Call, CallError, Commands, Programs};
use tempfile::TempDir;

fn fake(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn programs(folder: &TempDir) -> Programs {
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    Programs { path: Some(path.into()) }
}

#[test]
fn an_answer_is_what_the_program_says() {
    let folder = tempfile::tempdir().unwrap();
    fake(folder.path(), "sbatch", "echo \"$1 $2\"; echo 'sbatch: error: no such thing' >&2; exit 3");
    let answer = programs(&folder).call(&Call::new("sbatch", ["--a", "b c"])).unwrap();
    assert_eq!(
        (answer.code, answer.output.as_str(), answer.message().as_str()),
        (Some(3), "--a b c\n", "no such thing")
    );
}

#[test]
fn a_program_that_does_not_answer_is_ended_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    // The child keeps the pipe open; only its end lets the call return.
    fake(folder.path(), "squeue", "sleep 600 & echo $! > \"$(dirname \"$0\")/child\"; wait");
    let mut call = Call::new("squeue", [""; 0]);
    let start = Instant::now();
    let child = || fs::read_to_string(folder.path().join("child")).ok().filter(|pid| pid.ends_with('\n'));
    // On a busy machine the program may be ended before it has begun.
    for milliseconds in [300, 3_000, 30_000] {
        call.limit = Duration::from_millis(milliseconds);
        assert!(matches!(programs(&folder).call(&call), Err(CallError::TimedOut { .. })));
        if child().is_some() {
            break;
        }
    }
    assert!(start.elapsed() < Duration::from_secs(300), "it was not waited for");
    let child = child().expect("it began");
    // The kernel takes its time to bury it.
    let lives = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).is_ok_and(|stat| !stat.contains(") Z"));
    while lives() && start.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!lives());
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = programs(&folder).call(&Call::new("scancel", ["1"])).unwrap_err();
    assert_eq!(error.to_string(), "`scancel` is not on the PATH");
}

/// Rust looks programs up on the PATH that the child gets; variables of a job around this process must not reach it.
#[test]
fn variables_of_an_outer_job_do_not_leak() {
    let folder = tempfile::tempdir().unwrap();
    fake(folder.path(), "sbatch", "env");
    let outer = [
        ("SLURM_MEM_PER_CPU", "7"),
        ("SLURM_CPUS_PER_TASK", "7"),
        ("SBATCH_PARTITION", "x"),
        ("SLURM_JOB_ID", "7"),
        ("CUDA_VISIBLE_DEVICES", "7"),
        ("SQUEUE_FORMAT", "x"),
        ("SLURM_CONF", "/etc/kept"),
        ("HOME_OF_TEST", "kept"),
    ];
    // The test's own environment belongs to all its threads: a process of its own asks.
    let probe = std::env::current_exe().unwrap();
    let output = std::process::Command::new(probe)
        .args(["--exact", "programs::asks_for_the_environment", "--nocapture", "--ignored"])
        .envs(outer)
        .env("FAKES_OF_TEST", folder.path())
        .output()
        .unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    for (name, _) in outer {
        assert_eq!(
            seen.contains(&format!("{name}=")),
            ["SLURM_CONF", "HOME_OF_TEST"].contains(&name),
            "{name}\n{seen}"
        );
    }
}

#[test]
#[ignore = "a part of the test above"]
fn asks_for_the_environment() {
    let folder = std::env::var("FAKES_OF_TEST").unwrap();
    let programs = Programs { path: Some(format!("{folder}:/usr/bin:/bin").into()) };
    let output = programs.call(&Call::new("sbatch", [""; 0])).unwrap().output;
    std::io::stdout().write_all(output.as_bytes()).unwrap();
}

//! Single jobs: a worker process that is started for one step and ends with it.

use std::{
    io::{IsTerminal, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use indicatif::{ProgressBar, ProgressStyle};
use ressa_experiment::{
    job::{Job, Reply},
    protocol::{Failure as Reason, FailureKind},
};
use ressa_sweep::read_messages;
use serde_json::Value;

use crate::{
    arguments::{Global, model::JobMachine},
    exit::{Exit, Failure},
    workspace,
};

/// Has a job done and gives its answer. Progress is shown on a terminal; the worker's own words go to standard error.
pub fn run(global: &Global, machine: &JobMachine, job: &Job) -> Result<Value, Failure> {
    let program = workspace::worker(global);
    // A path that is not UTF-8 may be found below a folder whose own name is.
    let text = serde_json::to_vec(job).map_err(|e| {
        Failure::new(
            Exit::Usage,
            format!("the job cannot be handed over: {e}; rename the folder, or work in another one"),
        )
    })?;
    let mut command = Command::new(&program);
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = machine.threads.map_or_else(cores, |threads| threads as usize);
    command.arg("job").args(["--device", &machine.device.to_string(), "--threads", &threads.to_string()]);
    command.envs(workspace::worker_environment(machine.tf32, false));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| {
        let program = program.display();
        Failure::new(Exit::Other, format!("cannot start the worker `{program}`: {e}; build it or use --worker"))
    })?;
    // Dropping the pipe ends the worker's input. A worker that has died does not take it; its end is reported below.
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(&text);
    }
    let bar = bar(global);
    let mut answer = None;
    let mut take = |reply| {
        match reply {
            Reply::Progress { fraction, message } => {
                bar.set_position((fraction * 1000.0) as u64);
                bar.set_message(message);
            }
            Reply::Done { output } => answer = Some(Ok(output)),
            Reply::Failed { failure } => answer = Some(Err(failure)),
        }
        true
    };
    // What libraries write there goes where the worker's other words go.
    let mut pass_on = |bytes: &[u8]| {
        let _ = std::io::stderr().write_all(bytes);
    };
    if let Some(output) = child.stdout.take() {
        read_messages(output, "{\"reply\":", &mut take, &mut pass_on);
    }
    bar.finish_and_clear();
    let status =
        child.wait().map_err(|e| Failure::new(Exit::Other, format!("the worker cannot be waited for: {e}")))?;
    match answer {
        Some(Ok(output)) => Ok(output),
        Some(Err(reason)) => Err(failure(&reason)),
        None => {
            let how = match (status.signal(), status.code()) {
                (Some(9), _) => "was killed, probably for memory".to_owned(),
                (Some(signal), _) => format!("was ended by signal {signal}"),
                (None, code) => format!("ended with exit code {} and no answer", code.unwrap_or_default()),
            };
            Err(Failure::new(Exit::Other, format!("the worker {how}")))
        }
    }
}

fn failure(reason: &Reason) -> Failure {
    match reason.kind {
        FailureKind::Data | FailureKind::Nan => Failure::new(Exit::Unusable, reason.message.clone()),
        FailureKind::Storage => Failure::new(Exit::CannotWrite, reason.message.clone()),
        FailureKind::Bug => {
            Failure::new(Exit::Other, format!("a defect of this program, please report it: {}", reason.message))
        }
        FailureKind::Oom | FailureKind::Timeout | FailureKind::Killed => {
            Failure::new(Exit::Other, reason.message.clone())
        }
    }
}

fn bar(global: &Global) -> ProgressBar {
    if global.quiet || global.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {msg}").expect("the template is well-formed");
    ProgressBar::new(1000).with_style(style)
}

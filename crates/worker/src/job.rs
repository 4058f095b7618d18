//! One job outside any sweep: read from standard input, answered on standard output, then the process ends.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use ressa_experiment::{
    job::{Job, Reply},
    protocol::{Failure, FailureKind},
};
use ressa_runtime::RuntimeOptions;

use crate::{
    exhausted::{advised, of_job},
    serve::{guarded, send},
};

/// Minimum time between two progress replies.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Largest job that is read; a list of a million requests stays below.
const LIMIT: u64 = 1 << 30;

/// A job's standard error is its caller's terminal, and its failure says what a panic said; the C++ trace behind it is shown with
/// `RUST_BACKTRACE=full` only.
fn quieten() {
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value != "full") {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Does the job that standard input holds.
pub fn run(options: RuntimeOptions) -> Result<(), String> {
    let mut text = String::new();
    std::io::stdin().take(LIMIT).read_to_string(&mut text).map_err(|e| format!("cannot read the job: {e}"))?;
    let job: Job = serde_json::from_str(&text)
        .map_err(|e| format!("standard input is not a job ({e}); ressa and ressa-worker must be of one build"))?;
    let device = match ressa_runtime::init(&options) {
        Ok(device) => device,
        Err(error) => {
            let failure = Failure { kind: FailureKind::Data, message: error.to_string(), log: None };
            send(&Reply::Failed { failure });
            return Ok(());
        }
    };
    quieten();
    let mut last = Instant::now();
    let mut at = String::new();
    let mut progress = |fraction: f64, message: &str| {
        message.clone_into(&mut at);
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            send(&Reply::Progress { fraction, message: message.to_owned() });
        }
    };
    let done = guarded(|| ressa_lab::run(&job, device, &mut progress), |error| (error.kind(), error.to_string()));
    let done = done.map_err(|failure| advised(failure, &at, of_job(&job)));
    send(&match done {
        Ok(output) => Reply::Done { output },
        Err(failure) => Reply::Failed { failure },
    });
    Ok(())
}

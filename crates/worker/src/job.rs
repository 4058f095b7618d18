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

use crate::serve::{guarded, send};

/// Shortest time between two progress replies.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Largest job that is read; a list of a million requests stays below.
const LIMIT: u64 = 1 << 30;

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
    let mut last = Instant::now();
    let mut progress = |fraction: f64, message: &str| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            send(&Reply::Progress { fraction, message: message.to_owned() });
        }
    };
    let done = guarded(|| ressa_lab::run(&job, device, &mut progress), |error| (error.kind(), error.to_string()));
    send(&match done {
        Ok(output) => Reply::Done { output },
        Err(failure) => Reply::Failed { failure },
    });
    Ok(())
}

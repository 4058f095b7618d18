//! The request loop.

use std::{
    io::{BufRead, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use ressa_experiment::{
    StageKey,
    protocol::{Event, Failure, FailureKind, Request},
};
use ressa_pipeline::{Executor, Loading, PipelineError};
use ressa_runtime::{Device, RuntimeOptions};
use ressa_store::{Environment, Store};

use crate::exhausted::{advised, of_stage};

/// Minimum time between two progress events of a stage.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Serves requests until standard input ends or a shutdown is asked for.
///
/// With `deterministic`, stages that train use algorithms that repeat to the bit; the others need none, and some of their operations have none.
pub fn serve(
    store: PathBuf,
    shipped: Vec<PathBuf>,
    options: RuntimeOptions,
    deterministic: bool,
    loading: Loading,
) -> Result<(), String> {
    let threads = options.threads;
    let device = ressa_runtime::init(&options).map_err(|e| e.to_string())?;
    // Whoever writes makes the folders that it writes into; a verification only reads.
    let store = Store::reading(store, shipped);
    let environment = Environment { deterministic, ..environment(device, threads) };
    let mut executor = Executor::new(store, device, environment).with_loading(loading);
    send(&Event::Ready { device: ressa_runtime::device_name(device), threads });

    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| format!("cannot read requests: {e}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let request: Request = serde_json::from_str(&line)
            .map_err(|e| format!("`{line}` is not a request ({e}); ressa and ressa-worker must be of one build"))?;
        match request {
            Request::Execute { node, attempt } => {
                let mut last = Instant::now();
                let key = node.key;
                let mut at = String::new();
                let last_loss = executor.loss();
                let mut progress = |fraction: f64, message: &str| {
                    message.clone_into(&mut at);
                    let loss = last_loss.take();
                    if last.elapsed() >= PROGRESS_INTERVAL {
                        last = Instant::now();
                        send(&Event::Progress { key, fraction, message: message.to_owned(), loss });
                    }
                };
                ressa_runtime::set_deterministic(deterministic && node.stage.trains());
                let mut given_back = false;
                let explain = |error: PipelineError| {
                    given_back = error.is_given_back();
                    explain(error)
                };
                let outcome = guarded(|| executor.execute(&node, attempt, &mut progress), explain);
                let outcome = outcome.map_err(|failure| advised(failure, &at, of_stage(&node.stage)));
                send(&match outcome {
                    Ok(seconds) => Event::Done { key, attempt, seconds },
                    Err(_) if given_back => Event::Returned { key, attempt },
                    Err(failure) => failed(key, attempt, failure),
                });
            }
            Request::Verify { node } => {
                let outcome = guarded(|| executor.verify(&node), explain);
                let outcome = outcome.map_err(|failure| advised(failure, "", of_stage(&node.stage)));
                send(&match outcome {
                    Ok(violations) => Event::Verified { key: node.key, violations },
                    Err(failure) => failed(node.key, 0, failure),
                });
            }
            Request::Shutdown => return Ok(()),
        }
    }
    Ok(())
}

fn explain(error: PipelineError) -> (FailureKind, String) {
    (error.kind(), error.to_string())
}

/// Prints what a worker would run on.
pub fn probe(options: RuntimeOptions) -> Result<(), String> {
    let device = ressa_runtime::init(&options).map_err(|e| e.to_string())?;
    let environment = environment(device, options.threads);
    let mut line = serde_json::to_string(&environment).map_err(|e| e.to_string())?;
    line.push('\n');
    std::io::stdout().write_all(line.as_bytes()).map_err(|e| e.to_string())
}

/// Writes a line to the log.
pub fn log(message: &str) {
    let _ = writeln!(std::io::stderr(), "ressa-worker: {message}");
}

/// What results are recorded to have been made on.
fn environment(device: Device, threads: u32) -> Environment {
    let accelerator = match device {
        Device::Cuda(index) => ressa_store::accelerator(index),
        _ => None,
    };
    // libtorch reads this when it makes its first product; `--tf32` of `ressa` sets it.
    let tf32 = std::env::var_os("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE").is_some_and(|value| value == "1");
    Environment {
        ressa: env!("CARGO_PKG_VERSION").to_owned(),
        revision: env!("RESSA_REVISION").to_owned(),
        libtorch: ressa_runtime::libtorch_version(),
        device: ressa_runtime::device_name(device),
        threads,
        accelerator: accelerator.unwrap_or_default(),
        tf32: tf32 && device.is_cuda(),
        deterministic: false,
    }
}

fn failed(key: StageKey, attempt: u32, failure: Failure) -> Event {
    log(&format!("stage {} failed: {}", key.short(), failure.message));
    if let Some(trace) = ressa_runtime::take_trace() {
        log(&trace);
    }
    Event::Failed { key, attempt, failure }
}

/// Runs a stage or a job; a panic (libtorch's plain operations panic on errors such as memory exhaustion) becomes a failure.
pub fn guarded<T, E>(
    work: impl FnOnce() -> Result<T, E>,
    explain: impl FnOnce(E) -> (FailureKind, String),
) -> Result<T, Failure> {
    let (kind, message) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => explain(error),
        Err(panic) => {
            let message = ressa_runtime::panic_message(&*panic);
            let oom = ressa_runtime::is_out_of_memory(&message);
            (if oom { FailureKind::Oom } else { FailureKind::Bug }, message)
        }
    };
    Err(Failure { kind, message, log: None })
}

/// Writes one line of the protocol.
pub fn send(line: &impl serde::Serialize) {
    let mut line = serde_json::to_string(line).expect("replies are plain data");
    line.push('\n');
    let mut out = std::io::stdout().lock();
    // A closed pipe means that the coordinator is gone; the input ends next.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

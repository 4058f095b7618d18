//! A worker without tensors, for tests: it speaks the protocol, publishes small entries, and misbehaves by instruction.
//!
//! Instructions are read before each stage from `fake.json` beside the store: an object from a stage in words (`evaluate gqa`) or its
//! kind to an [`Instruction`].

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ressa_experiment::{
    Stage, StageNode,
    protocol::{Event, Failure, FailureKind, Request},
    record::{Certificate, Score, TaskScore},
};
use ressa_store::{Environment, Manifest, Store, StoreError};
use serde::Deserialize;

/// What to do at a stage instead of simply publishing it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Instruction {
    /// Sleep this long first.
    sleep: f64,
    /// Then wait until a file of this name stands beside the store.
    until: Option<String>,
    /// What it logs at the beginning, and again half way.
    log: Option<String>,
    /// Die by SIGKILL.
    kill: bool,
    /// Report a failure of this sort.
    fail: Option<FailureKind>,
    /// Score of an evaluation.
    score: Option<f64>,
    /// Version of libtorch that it pretends to have.
    libtorch: Option<String>,
    /// What its output holds.
    output: Option<String>,
    /// Losses that it reports first.
    losses: Vec<f64>,
    /// What a recount finds.
    violation: Option<String>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let values = |name: &str| {
        let mut found = Vec::new();
        for pair in arguments.windows(2).filter(|pair| pair[0] == name) {
            found.push(PathBuf::from(&pair[1]));
        }
        found
    };
    if arguments.get(1).is_some_and(|command| command == "probe") {
        let _ = writeln!(std::io::stdout(), r#"{{"libtorch":"none","device":"cpu","revision":"fake"}}"#);
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::clone(&stop)).expect("the signal can be heard");
    let root = values("--store").remove(0);
    let store = Store::reading(&root, values("--shipped"));
    send(&Event::Ready { device: "cpu".to_owned(), threads: 1 });
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line.expect("requests can be read")).expect("requests are well-formed") {
            Request::Execute { node, attempt } => {
                let instruction = instruction(&root, &node.stage);
                let key = node.key;
                send(&match execute(&store, &node, attempt, &instruction, &stop) {
                    Ok(true) => Event::Done { key, attempt, seconds: instruction.sleep },
                    Ok(false) => Event::Returned { key, attempt },
                    Err(failure) => Event::Failed { key, attempt, failure },
                });
            }
            Request::Verify { node } => {
                let instruction = instruction(&root, &node.stage);
                if instruction.kill {
                    die();
                }
                let violations = instruction.violation.into_iter().collect();
                send(&Event::Verified { key: node.key, violations });
            }
            Request::Shutdown => return,
        }
    }
}

fn execute(
    store: &Store,
    node: &StageNode,
    attempt: u32,
    instruction: &Instruction,
    stop: &AtomicBool,
) -> Result<bool, Failure> {
    let storage = |error: StoreError| {
        let kind = if error.is_storage() { FailureKind::Storage } else { FailureKind::Data };
        Failure { kind, message: error.to_string(), log: None }
    };
    let key = &node.key.hex();
    let draft = store.draft(key, attempt).map_err(storage)?;
    draft.write("data.bin", instruction.output.clone().unwrap_or(key.repeat(20)).as_bytes()).map_err(storage)?;
    let half = Duration::from_secs_f64(instruction.sleep / 2.0);
    let log = || instruction.log.iter().for_each(|text| drop(writeln!(std::io::stderr(), "{text}")));
    log();
    let steps = instruction.losses.len();
    for (step, &loss) in instruction.losses.iter().enumerate() {
        let (fraction, message) = (0.5 * (step + 1) as f64 / steps as f64, format!("loss {loss:.3}"));
        send(&Event::Progress { key: node.key, fraction, message, loss: Some(loss) });
    }
    if !slept(half, stop) {
        return Ok(false);
    }
    log();
    let message = "half way".to_owned();
    send(&Event::Progress { key: node.key, fraction: 0.5, message, loss: None });
    if !slept(half, stop) {
        return Ok(false);
    }
    if let Some(file) = &instruction.until {
        while !store.root().with_file_name(file).exists() {
            if !slept(Duration::from_millis(10), stop) {
                return Ok(false);
            }
        }
    }
    if instruction.kill {
        die();
    }
    if let Some(kind) = instruction.fail {
        let _ = writeln!(std::io::stderr(), "this stage was told to fail");
        return Err(Failure { kind, message: "told to fail".to_owned(), log: None });
    }
    let result = match &*node.stage {
        Stage::Evaluate { task, items, .. } => {
            let value = instruction.score.unwrap_or(75.0);
            let score = Score { metric: "accuracy".to_owned(), value, standard_error: 1.0, items: u64::from(*items) };
            serde_json::to_value(TaskScore { task: *task, score: Some(score), parts: BTreeMap::new() })
        }
        _ => serde_json::to_value(Certificate::default()),
    };
    draft
        .finish(Manifest {
            key: key.to_string(),
            kind: node.stage.kind().to_owned(),
            version: node.stage.version(),
            configuration: serde_json::to_value(node.stage.by_content(&node.readings)).expect("plain data"),
            inputs: serde_json::to_value(&*node.inputs).expect("plain data"),
            readings: serde_json::to_value(&node.readings).expect("plain data"),
            result: result.expect("plain data"),
            files: BTreeMap::new(),
            seconds: instruction.sleep,
            cpu_seconds: 0.0,
            environment: Environment {
                device: "cpu".to_owned(),
                libtorch: instruction.libtorch.clone().unwrap_or("none".to_owned()),
                ..Environment::default()
            },
        })
        .map_err(storage)?;
    Ok(true)
}

/// Sleeps, unless it is asked to give the stage back. Whether it slept to the end.
fn slept(time: Duration, stop: &AtomicBool) -> bool {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if stop.load(Ordering::SeqCst) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5).min(time));
    }
    true
}

fn die() {
    let _ = writeln!(std::io::stderr(), "about to die");
    let pid = std::process::id().to_string();
    let _ = std::process::Command::new("kill").args(["-9", &pid]).status();
    std::thread::sleep(Duration::from_secs(60));
}

fn instruction(root: &Path, stage: &Stage) -> Instruction {
    let Ok(text) = fs::read(root.with_file_name("fake.json")) else { return Instruction::default() };
    let mut all: BTreeMap<String, Instruction> = serde_json::from_slice(&text).expect("instructions are well-formed");
    all.remove(&ressa_sweep::describe(stage)).or_else(|| all.remove(stage.kind())).unwrap_or_default()
}

fn send(event: &Event) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", serde_json::to_string(event).expect("plain data")).and_then(|()| out.flush());
}

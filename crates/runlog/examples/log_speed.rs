//! What a log of many stages costs: writing a line, the index, and reading it again. Prints JSON; `scripts/bench.py` shows it.
//!
//! Usage: `log_speed FOLDER STAGES`

use std::{path::PathBuf, time::Instant};

use ressa_experiment::StageKey;
use ressa_runlog::{Log, LogEvent, Proof, Published, read};
use ressa_store::{Environment, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, stages] = &arguments[..] else { return Err("expected a folder and a number of stages".into()) };
    let (folder, stages): (PathBuf, u32) = (folder.into(), stages.parse()?);
    let store = Store::open(folder.join("store"), Vec::new())?;
    let key = |number: u32| StageKey::from(blake3::hash(&number.to_le_bytes()));
    let result = r#"{"task":"gqa","score":{"metric":"accuracy","value":61.25,"standard-error":0.4872,"items":12578}}"#;
    let environment =
        Environment { device: "cuda:0".to_owned(), libtorch: "2.11.0".to_owned(), ..Environment::default() };

    let start = Instant::now();
    let mut log = Log::begin(&store, "a measurement")?;
    for number in 0..stages {
        let key = key(number);
        let worker = format!("node{}/0", number % 1000);
        let (what, label) = ("evaluate gqa".to_owned(), format!("grid: wanda {number}, seed 0"));
        log.write(LogEvent::Started { key, what, label, attempt: 1, worker: worker.clone(), remote: true, log: None })?;
        let record = Published {
            kind: "evaluate".into(),
            detail: "gqa".into(),
            model: "checkpoints/large".into(),
            seconds: 60.0,
            cpu_seconds: 50.0,
            environment: environment.clone().into(),
            result: serde_json::value::RawValue::from_string(result.to_owned())?.into(),
            files: vec!["predictions.jsonl".to_owned()].into(),
            proof: Proof(u64::from(number)),
        };
        log.write(LogEvent::Published { key, attempt: 1, worker, record, log: None })?;
    }
    let written = start.elapsed().as_secs_f64();
    let start = Instant::now();
    log.settle()?;
    let settled = start.elapsed().as_secs_f64();
    drop(log);
    let start = Instant::now();
    let indexed = read(&store)?.index.len();
    let with_index = start.elapsed().as_secs_f64();
    std::fs::remove_file(ressa_runlog::folder(&store).join("index"))?;
    let start = Instant::now();
    let rebuilt = read(&store)?.index.len();
    let without_index = start.elapsed().as_secs_f64();
    assert_eq!((indexed, rebuilt), (stages as usize, stages as usize));
    let answer = serde_json::json!({
        "stages": stages, "write-two-lines-us": 1e6 * written / f64::from(stages), "write-index-s": settled,
        "read-with-index-s": with_index, "read-log-alone-s": without_index, "peak-mb": peak(),
    });
    use std::io::Write;
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(())
}

/// Maximum megabytes of memory that this process has held.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    peak.unwrap_or_default() * 1024.0 / 1e6
}

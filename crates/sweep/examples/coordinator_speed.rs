//! What a sweep of many stages costs its coordinator: the start where some stages are finished, then time and memory while workers make others.
//! Prints JSON; `scripts/bench.py` shows it.
//!
//! Usage: `coordinator_speed FOLDER STAGES FINISHED MADE PILOTS PLACES [SLEEP]`
//!
//! Of STAGES stages, the first FINISHED are put into a store in FOLDER, with a log, where they are not there yet. Then a sweep over all runs
//! until MADE more are made by PILOTS pilots in a second process, each with PLACES fake workers whose stages take SLEEP seconds. Without pilots,
//! PLACES workers of the coordinator make them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ressa_experiment::{
    Cell, Pattern, RunConfig, Task,
    config::{Metric, RestoreMethod},
    model::{ModelConfig, Preset},
};
use ressa_runlog::{Log, LogEvent, Proof, Published, folder};
use ressa_store::{Environment, MANIFEST, Store};
use ressa_sweep::{
    DEFAULT_LEASE, Devices, Graph, Interruption, Options, PilotOptions, RetryPolicy, Stop, SweepEvent, WorkerCommand,
    execute, pilot,
};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Version of the program that coordinator and pilots say they are of.
const PROGRAM: &str = "a measurement";
/// The one file of a finished stage beside its manifest.
const FILE: &str = "data.bin";

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| -> Outcome<usize> {
        Ok(arguments
            .get(at)
            .ok_or("usage: coordinator_speed FOLDER STAGES FINISHED MADE PILOTS PLACES [SLEEP]")?
            .parse()?)
    };
    if arguments.get(1).is_some_and(|word| word == "pilots") {
        return pilots(Path::new(&arguments[2]), number(3)?, number(4)?);
    }
    let results = PathBuf::from(arguments.get(1).ok_or("expected a folder")?);
    let (stages, finished, made, pilots, places) = (number(2)?, number(3)?, number(4)?, number(5)?, number(6)?);
    let sleep: f64 = arguments.get(7).map_or(Ok(0.0), |text| text.parse())?;
    let store = Store::open(results.join("store"), Vec::new())?;
    let graph = graph(stages);
    finish(&graph, &store, finished.min(graph.stages.len()))?;
    fs::write(results.join("fake.json"), every_stage(sleep).to_string())?;
    let child = if pilots > 0 { Some(start_pilots(&results, pilots, places)?) } else { None };
    let local = if pilots > 0 || made == 0 { 0 } else { places };
    let answer = sweep(&graph, &store, &options(&results, local), made);
    if let Some(mut child) = child {
        child.kill()?;
        child.wait()?;
    }
    writeln!(std::io::stdout(), "{}", answer?)?;
    Ok(())
}

/// The fake worker's instructions for each kind of stage.
fn every_stage(sleep: f64) -> serde_json::Value {
    let kinds = ["dense", "prune", "adapt", "merge", "evaluate"];
    kinds.iter().map(|kind| ((*kind).to_owned(), serde_json::json!({ "sleep": sleep }))).collect()
}

/// Runs that differ in their seeds: six stages each beside the dense model.
fn graph(stages: usize) -> Graph {
    let cells: Vec<Cell> = (0..stages.div_ceil(6) as u64).map(cell).collect();
    Graph::new("grid", &cells, &[])
}

fn cell(seed: u64) -> Cell {
    let mut run = RunConfig::of(ModelConfig { preset: Some(Preset::ShapesFlanT5), ..ModelConfig::default() });
    run.seed = seed;
    run.prune.metric = Metric::Wanda;
    run.prune.pattern = Pattern::Unstructured;
    (run.prune.vision.sparsity, run.prune.language.sparsity) = (0.5, 0.5);
    run.restore.method = RestoreMethod::SparseLora;
    run.evaluate.tasks = vec![Task::Vqav2, Task::Flickr30k];
    let stages = ressa_experiment::chain::stages(&run).into_iter().map(Into::into).collect();
    let coordinates = vec![("metric".to_owned(), "wanda".to_owned())];
    Cell {
        coordinates: coordinates.into(),
        seed,
        run_id: seed.to_string().into(),
        point: None,
        stages,
        run: run.into(),
    }
}

/// Puts stages into the store as they are once they are published: nobody reads their manifests, which are no manifests.
fn finish(graph: &Graph, store: &Store, finished: usize) -> Outcome {
    if folder(store).exists() {
        return Ok(());
    }
    let mut log = Log::begin(store, PROGRAM)?;
    let environment = Environment { device: "cpu".to_owned(), ..Environment::default() };
    for (number, stage) in graph.stages[..finished].iter().enumerate() {
        let key = stage.node.key;
        let output = store.folder(&key.hex());
        fs::create_dir_all(&output)?;
        fs::write(output.join(FILE), "")?;
        fs::write(output.join(MANIFEST), "{}")?;
        let worker = format!("node{}/0", number % 1000);
        let (what, label) = (ressa_sweep::describe(&stage.node.stage), graph.label(number).to_owned());
        log.write(LogEvent::Started { key, what, label, attempt: 1, worker: worker.clone(), remote: true, log: None })?;
        let result =
            r#"{"task":"gqa","score":{"metric":"accuracy","value":61.25,"standard-error":0.4872,"items":12578}}"#;
        let record = Published {
            kind: stage.node.stage.kind().into(),
            detail: "".into(),
            model: stage.model.clone(),
            seconds: 60.0,
            cpu_seconds: 50.0,
            environment: environment.clone().into(),
            result: serde_json::value::RawValue::from_string(result.to_owned())?.into(),
            files: vec![FILE.to_owned()].into(),
            proof: Proof::of(&output, [FILE])?,
        };
        log.write(LogEvent::Published { key, attempt: 1, worker, record, log: None })?;
    }
    Ok(log.settle()?)
}

fn options(results: &Path, slots: usize) -> Options {
    Options {
        results: results.to_owned(),
        worker: worker(results),
        devices: Devices::cpu(slots),
        machine: "cpu".to_owned(),
        max_failures: None,
        timeout: None,
        lease: DEFAULT_LEASE,
        idle: ressa_sweep::DEFAULT_IDLE,
        is_followed: false,
        title: "a measurement".to_owned(),
        program: PROGRAM.to_owned(),
        retries: RetryPolicy::default(),
    }
}

/// The example `fake-worker`, which cargo builds beside this one.
fn worker(results: &Path) -> WorkerCommand {
    let own = std::env::current_exe().unwrap_or_default();
    WorkerCommand {
        program: own.with_file_name("fake-worker"),
        folder: results.to_owned(),
        threads: 1,
        environment: Vec::new(),
        deterministic: false,
        arguments: Vec::new(),
    }
}

/// Sweeps until so many stages are made.
fn sweep(graph: &Graph, store: &Store, options: &Options, made: usize) -> Outcome<serde_json::Value> {
    let stop = Stop::new();
    // The graph and what was needed to make it are not the coordinator's.
    let before = memory("VmRSS:");
    let _ = fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    let (mut begun, mut first, mut last) = (0.0, None, None);
    let mut count = 0;
    let summary = execute(graph, store, options, &stop, None, &mut |event| match event {
        SweepEvent::Started { .. } => {
            begun = start.elapsed().as_secs_f64();
            if made == 0 {
                stop.request(Interruption::Interrupt);
            }
        }
        SweepEvent::StageFinished { .. } => {
            let now = (Instant::now(), cpu(libc::CLOCK_THREAD_CPUTIME_ID), cpu(libc::CLOCK_PROCESS_CPUTIME_ID));
            first.get_or_insert(now);
            last = Some(now);
            count += 1;
            if count == made {
                stop.request(Interruption::Interrupt);
            }
        }
        _ => {}
    })?;
    let mut answer = serde_json::json!({
        "stages": graph.stages.len(), "cached": summary.totals.cached, "damaged": summary.damaged.len(), "start-s": begun,
        "whole-s": start.elapsed().as_secs_f64(),
        "graph-mb": before / 1e6, "peak-mb": memory("VmHWM:") / 1e6, "made": count,
    });
    if let (Some(first), Some(last), true) = (first, last, count > 1) {
        let per_stage = 1e6 / (count - 1) as f64;
        answer["wall-s"] = (last.0 - first.0).as_secs_f64().into();
        answer["wall-us-per-stage"] = ((last.0 - first.0).as_secs_f64() * per_stage).into();
        answer["coordinator-us-per-stage"] = ((last.1 - first.1) * per_stage).into();
        answer["process-us-per-stage"] = ((last.2 - first.2) * per_stage).into();
    }
    Ok(answer)
}

/// CPU seconds by a clock of this thread or process.
fn cpu(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain system call that writes into `time`.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of this process, by a line of `/proc/self/status`.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value =
        status.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    value.unwrap_or_default() * 1024.0
}

/// Starts this program again as the pilots.
fn start_pilots(results: &Path, count: usize, places: usize) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("pilots").arg(results).arg(count.to_string()).arg(places.to_string());
    Ok(command.stdout(Stdio::null()).spawn()?)
}

/// Pilots on threads of this process, until the sweep has ended.
fn pilots(results: &Path, count: usize, places: usize) -> Outcome {
    let run = |number: usize| {
        let options = PilotOptions {
            results: results.to_owned(),
            worker: worker(results),
            devices: vec!["cpu".to_owned(); places],
            machine: "cpu".to_owned(),
            name: Some(format!("pilot-{number}-{}", std::process::id())),
            class: None,
            node: None,
            job: String::new(),
            time_limit: None,
            grace: Duration::from_secs(1),
            wait: Duration::from_secs(600),
            program: PROGRAM.to_owned(),
        };
        pilot(&options, &Stop::new(), &mut |_| {}).map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(end) => end.map(drop).map_err(Into::into),
            Err(_) => Err("a pilot panicked".into()),
        })
    })
}

//! How long a large study takes to report, and in how much memory: `study_speed FOLDER CELLS [no-log]`.
//!
//! The first call fills a store below the folder with made-up results, best in memory (`/dev/shm`): a grid of wanda at 100 seeds. Every cell has
//! stages of its own, so every cell costs results to read. A log speaks of them, as after a sweep. Then the manifests are read, by
//! themselves, and the report is rendered, which takes results from the log. With a third argument, `no-log`, it reads the manifests. CPU seconds are
//! those of rendering alone, with all threads: on a machine that others use, they vary less than the clock.

#![allow(clippy::print_stdout, clippy::print_stderr)]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/it/world.rs"]
mod world;

use std::{
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    time::Instant,
};

use ressa_experiment::Experiment;
use ressa_report::Options;
use ressa_runlog::{Log, LogEvent, Proof, Published};
use ressa_store::Store;

/// Replicate seeds of a point.
const SEEDS: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, cells, is_logged) = match arguments.as_slice() {
        [folder, cells] => (Path::new(folder), cells.parse::<usize>()?, true),
        [folder, cells, word] if word == "no-log" => (Path::new(folder), cells.parse::<usize>()?, false),
        _ => return Err("usage: study_speed FOLDER CELLS [no-log]".into()),
    };
    let experiment = experiment(folder, cells.div_ceil(SEEDS).max(1));
    let store = Store::open(folder.join("store"), Vec::new())?;
    let start = Instant::now();
    if !folder.join("filled").exists() {
        world::fill_with(
            &store,
            &experiment.cells,
            |cell, task| Some(80.0 + world::noise(&format!("{}{task}", cell.run_id))),
            false,
        );
        fs::write(folder.join("filled"), "")?;
        eprintln!("filled in {:.1} s", start.elapsed().as_secs_f64());
    }
    let log = ressa_runlog::folder(&store);
    if !is_logged && log.exists() {
        fs::remove_dir_all(&log)?;
    } else if is_logged && !log.exists() {
        write_log(&store, &experiment)?;
    }
    let start = Instant::now();
    for node in experiment.stages() {
        store.entry(&node.key.hex())?;
    }
    let reading = start.elapsed().as_secs_f64();
    let (start, spent) = (Instant::now(), cpu_seconds());
    let options = Options { results: folder.to_owned(), published: None, strict: true };
    let rendered = ressa_report::render(&experiment, &store, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    let told = serde_json::json!({
        "cells": experiment.cells.len(),
        "records": BufReader::new(File::open(folder.join(&rendered.name).join("records.csv"))?).lines().count() - 1,
        "reading-seconds": reading,
        "seconds": seconds,
        "cpu-seconds": cpu_seconds() - spent,
        "peak-megabytes": peak_megabytes(),
    });
    println!("{told}");
    Ok(())
}

/// Writes down every output, as a sweep does.
fn write_log(store: &Store, experiment: &Experiment) -> Result<(), Box<dyn Error>> {
    let mut log = Log::begin(store, "a measurement")?;
    for node in experiment.stages() {
        let Some(entry) = store.entry(&node.key.hex())? else { continue };
        let proof = Proof::of(entry.folder(), entry.manifest.files.keys().map(String::as_str))?;
        let record = Published::of(&entry.manifest, "shapes-flant5", proof);
        log.write(LogEvent::Found { key: node.key, record })?;
    }
    log.settle()?;
    Ok(())
}

/// A grid of so many points.
fn experiment(folder: &Path, points: usize) -> Experiment {
    let sparsities: Vec<String> =
        (1..=points).map(|point| format!("{:.5}", point as f64 / (points + 1) as f64)).collect();
    let yaml = format!(
        "model.preset: shapes-flant5\n\
         prune: {{ metric: wanda, vision.sparsity: 0.5 }}\n\
         axes: {{ prune.language.sparsity: [{}] }}\n\
         replicate: {{ seed: 0..{} }}\n\
         report: {{ tables: [{{ id: main, caption: All, rows: [prune.language.sparsity], columns: metric, values: [average, vqav2, gqa, nocaps] }}] }}\n",
        sparsities.join(", "),
        SEEDS - 1,
    );
    world::experiment(folder, "speed", &yaml)
}

/// CPU seconds that all threads of this process have used, its system calls among them; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    /// Ticks in a second: what Linux tells programs, whatever it counts in.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Peak resident memory of this process; 0 where the system does not say.
fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1000
}

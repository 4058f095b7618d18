//! `ressa lab`: single steps for those who compare ressa with another implementation.

use std::path::{Path, PathBuf};

use ressa_experiment::job::{self, AnsweredRequest, Job};

use crate::{
    arguments::{
        Global,
        model::{ForwardOptions, Lab, RandomOptions, StatsOptions},
    },
    commands::{model_at, read_requests},
    exit::{Exit, Outcome},
    job::run as work,
    text::{say, say_json, size},
};

/// Does the step.
pub fn run(global: &Global, lab: &Lab) -> Outcome {
    match lab {
        Lab::Forward(options) => forward(global, options),
        Lab::Stats(options) => stats(global, options),
        Lab::RandomCheckpoint(options) => random(global, options),
    }
}

fn forward(global: &Global, options: &ForwardOptions) -> Outcome {
    let (inputs, output) = (options.inputs.clone(), options.output.clone());
    let job = Job::Forward(job::Forward { model: model_at(&options.model)?, inputs, output });
    let summary = work(global, &options.machine, &job)?;
    if global.json {
        say_json(&summary);
        return Ok(Exit::Done);
    }
    if let Some(loss) = summary["loss"].as_f64() {
        say(format_args!("loss {loss:.6}"));
    }
    let (seconds, load) = (summary["seconds"].as_f64(), summary["load_seconds"].as_f64());
    if let (Some(seconds), Some(load), Some(peak)) = (seconds, load, summary["peak_memory_bytes"].as_u64()) {
        say(format_args!("loaded in {load:.2} s, computed in {seconds:.2} s, at most {} resident", size(peak)));
    }
    wrote(&options.output);
    Ok(Exit::Done)
}

fn stats(global: &Global, options: &StatsOptions) -> Outcome {
    let requests = read_requests::<AnsweredRequest>(&options.requests)?;
    let job = Job::Stats(job::Stats { model: model_at(&options.model)?, requests, output: options.output.clone() });
    let summary = work(global, &options.machine, &job)?;
    if global.json {
        say_json(&summary);
    } else {
        let linears = summary["linears"].as_u64().unwrap_or_default();
        say(format_args!("inputs of {linears} linears over {} samples", summary["samples"]));
        wrote(&options.output);
    }
    Ok(Exit::Done)
}

fn random(global: &Global, options: &RandomOptions) -> Outcome {
    let RandomOptions { like, output, seed, dtype } = options;
    let job = job::RandomCheckpoint { like: like.clone(), output: output.clone(), seed: *seed, dtype: *dtype };
    let machine = crate::arguments::model::JobMachine { device: ressa_sweep::DeviceChoice::Cpu, threads: None };
    let summary = work(global, &machine, &Job::RandomCheckpoint(job))?;
    if global.json {
        say_json(&summary);
    } else {
        let bytes = summary["bytes"].as_u64().unwrap_or_default();
        say(format_args!("{} parameters, {}", summary["parameters"], size(bytes)));
        wrote(output);
    }
    Ok(Exit::Done)
}

fn wrote(path: &Path) {
    say(format_args!("wrote {}", PathBuf::from(path).display()));
}

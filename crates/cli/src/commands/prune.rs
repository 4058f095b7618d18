//! `ressa prune`: a model folder pruned in bounded memory.

use std::path::Path;

use ressa_experiment::job::{CalibrationRequest, Job, Prune};
use ressa_sweep::DeviceChoice;

use crate::{
    arguments::{Global, model::JobMachine, prune::PruneOptions},
    commands::{model_at, read_requests},
    exit::{Exit, Failure, Outcome},
    job,
    text::{percent, say, say_json, size},
};

/// Has the worker prune, and says what came out.
pub fn run(global: &Global, options: &PruneOptions) -> Outcome {
    let calibration = match &options.calibration {
        Some(file) => read_requests::<CalibrationRequest>(file)?,
        None if options.method.needs_calibration() => {
            let message = format!("--metric {} needs --calibration", options.method.name());
            return Err(Failure::new(Exit::Usage, message));
        }
        None => Vec::new(),
    };
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let work = Prune {
        model: model_at(&options.model)?,
        method: options.method,
        pattern: options.pattern,
        vision: options.vision,
        qformer: options.qformer,
        language: options.language,
        group: options.group.map(Into::into),
        propagate: options.propagate.into(),
        calibration,
        samples: options.samples,
        seed: options.seed,
        memory_limit: options.memory_limit,
        spill: options.spill,
        output: absolute(&options.output),
    };
    let machine = JobMachine { device: DeviceChoice::Cpu, threads: options.threads };
    let summary = job::run(global, &machine, &Job::Prune(Box::new(work)))?;
    if global.json {
        say_json(&summary);
        return Ok(Exit::Done);
    }
    let number = |field: &str| summary[field].as_u64().unwrap_or_default();
    if number("resumed_at") > 0 {
        say(format_args!("went on after {} of {} steps", number("resumed_at"), number("steps")));
    }
    for (tower, sums) in summary["towers"].as_object().into_iter().flatten() {
        let share = percent(sums["sparsity"].as_f64().unwrap_or_default());
        say(format_args!("  {tower:<9} {share} zero"));
    }
    say(format_args!("masks {}", summary["mask_hash"].as_str().unwrap_or_default()));
    say(format_args!(
        "{:.0} s, read {}, wrote {}, at most {} resident",
        summary["seconds"].as_f64().unwrap_or_default(),
        size(number("bytes_read")),
        size(number("bytes_written")),
        size(number("peak_memory_bytes"))
    ));
    say(format_args!("wrote {}", options.output.display()));
    Ok(Exit::Done)
}

//! What a failure for want of memory says: where it happened, how much was wanted, and what to set.

use ressa_experiment::{
    Stage,
    job::Job,
    protocol::{Failure, FailureKind},
};
use ressa_runtime::Exhausted;

/// The failure with figures and advice, where memory was exhausted; any other as it is. `at` is what was going on last, empty where nothing was
/// said.
pub fn advised(failure: Failure, at: &str, advice: &str) -> Failure {
    if failure.kind != FailureKind::Oom {
        return failure;
    }
    let place = if at.is_empty() { String::new() } else { format!(" at `{at}`") };
    let what = match Exhausted::of(&failure.message) {
        Some(Exhausted { wanted, free: Some((free, total)) }) => {
            format!("{wanted} more wanted, {free} of {total} free")
        }
        Some(Exhausted { wanted, free: None }) => format!("{wanted} more wanted"),
        None => failure.message.clone(),
    };
    Failure { message: format!("out of memory{place}: {what}; {advice}"), ..failure }
}

/// What makes a stage smaller.
pub fn of_stage(stage: &Stage) -> &'static str {
    match stage {
        Stage::Adapt { .. } => {
            "set a smaller `restore.micro-batch` (same arithmetic) or `restore.recompute: blocks`, or use fewer --slots for each device"
        }
        Stage::Evaluate { beams: Some(2..), .. } => {
            "set fewer `evaluate.beams` or `model.compute: bfloat16`, or use fewer --slots for each device"
        }
        Stage::Sensitivity { .. } | Stage::Statistics { .. } | Stage::Prune { .. } | Stage::Refine { .. } => {
            "set fewer `prune.calibration.images` or `model.compute: bfloat16`, or use fewer --slots for each device"
        }
        Stage::Structure { .. } => {
            "set fewer `structure.calibration.images` or `model.compute: bfloat16`, or use fewer --slots for each device"
        }
        Stage::Reconstruct { .. } => {
            "set a smaller `reconstruct.batch`, fewer `reconstruct.samples` or a smaller `reconstruct.window`, or use fewer --slots for each device"
        }
        Stage::Dense { .. } | Stage::Rescale { .. } | Stage::Merge { .. } | Stage::Evaluate { .. } => {
            "set `model.compute: bfloat16`, or use fewer --slots for each device"
        }
    }
}

/// What makes a job smaller.
pub fn of_job(job: &Job) -> &'static str {
    match job {
        Job::Generate(_) => "use fewer --num-beams, --dtype bfloat16, or --device cpu",
        Job::Forward(_) => "give fewer rows, use --dtype bfloat16, or --device cpu",
        Job::Stats(_) => "use --dtype bfloat16 or --device cpu",
        Job::BenchKernels(_) => "use smaller batches (--batch), or --device cpu",
        Job::Perplexity(_) => "use a smaller --window, --dtype bfloat16, or --device cpu",
        Job::Prune(_) => "use fewer --samples, --dtype bfloat16, or --device cpu",
        Job::RandomCheckpoint(_) | Job::PruneLayer(_) | Job::SparseLora(_) | Job::Export(_) | Job::Score(_) => {
            "use --device cpu"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: FailureKind, message: &str) -> Failure {
        Failure { kind, message: message.to_owned(), log: None }
    }

    #[test]
    fn exhausted_memory_is_said_with_figures_and_advice() {
        let said = |message: &str, at: &str| advised(failed(FailureKind::Oom, message), at, "use --device cpu").message;
        let gpu = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.06 GiB is free.";
        assert_eq!(
            said(gpu, "step 3/390"),
            "out of memory at `step 3/390`: 2.50 GiB more wanted, 1.06 GiB of 79.15 GiB free; use --device cpu"
        );
        assert_eq!(said("std::bad_alloc", ""), "out of memory: std::bad_alloc; use --device cpu");
        let other = failed(FailureKind::Data, "no such folder");
        assert_eq!(advised(other.clone(), "loading", "use --device cpu"), other);
    }
}

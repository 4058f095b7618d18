//! What holds whatever the constants are.

use ressa_experiment::{RunConfig, config::Metric, job::Compute};

use crate::{of_kind, paper, predictions};

const XL: &str = "instructblip-flan-t5-xl";

fn with(change: impl Fn(&mut RunConfig)) -> RunConfig {
    let mut run = paper(XL, 64);
    change(&mut run);
    run
}

#[test]
fn more_work_takes_longer_and_more_memory() {
    let base = predictions(&paper(XL, 64), "h200");
    for kind in ["adapt", "evaluate"] {
        let own = of_kind(&base, kind);
        let single = of_kind(&predictions(&with(|run| run.model.compute = Some(Compute::Float32)), "h200"), kind);
        assert!(single.seconds > own.seconds && single.peak_bytes > own.peak_bytes, "{kind}: f32 is slower and larger");
        let faster = of_kind(&base, kind).seconds < of_kind(&predictions(&paper(XL, 64), "a100-80"), kind).seconds;
        assert!(faster, "{kind}: an H200 is faster than an A100");
    }
    let doubled = of_kind(&predictions(&with(|run| run.restore.steps *= 2), "h200"), "adapt");
    let own = of_kind(&base, "adapt");
    assert!((doubled.seconds / own.seconds - 2.0).abs() < 0.01 && doubled.peak_bytes == own.peak_bytes);
    let untaught = of_kind(&predictions(&with(|run| run.restore.distill.weight = 0.0), "h200"), "adapt");
    assert!(untaught.tflop < own.tflop * 0.8, "a teacher is a fourth of the work");
}

#[test]
fn a_training_that_does_not_fit_is_tried_with_recomputation() {
    let small = of_kind(&predictions(&paper(XL, 8), "rtx-4090"), "adapt");
    let large = of_kind(&predictions(&paper(XL, 8), "h200"), "adapt");
    assert_eq!((small.fallback.as_deref(), small.fits), (Some("recomputes blocks"), true));
    assert!(small.peak_bytes < large.peak_bytes && small.tflop > large.tflop);
    let many = of_kind(&predictions(&paper(XL, 1024), "rtx-4090"), "adapt");
    assert!(many.fits && many.fallback.expect("it must be divided").ends_with(" images at a time"));
    let never = of_kind(&predictions(&paper("instructblip-vicuna-13b", 16), "rtx-4090"), "adapt");
    assert!(!never.fits);
}

#[test]
fn methods_cost_what_they_do() {
    let seconds = |metric| {
        let run = with(|run| {
            run.prune.metric = metric;
            run.prune.calibration.images = 128;
            (run.prune.calibration.questions, run.prune.calibration.captions) = (0, 1);
        });
        let found = predictions(&run, "h100");
        let of_prune = found.iter().filter(|(node, _)| node.stage.kind() == "prune");
        of_prune.map(|(_, prediction)| prediction.seconds).sum::<f64>()
    };
    assert!(seconds(Metric::Magnitude) < seconds(Metric::Wanda));
    assert!(seconds(Metric::Wanda) < seconds(Metric::SparseGpt));
}

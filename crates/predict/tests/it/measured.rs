//! Against runs of the program on a device that counts operations and memory and computes nothing (`make simulate`).

use ressa_experiment::{
    Task,
    config::{Recompute, RestoreMethod},
};

use crate::{of_kind, paper, predictions};

/// A training step with masks and distillation, as it was counted on that device with the H100's clock.
struct Counted {
    model: &'static str,
    batch: u32,
    recompute: Recompute,
    /// 10^9 bytes at the peak.
    peak: f64,
    /// Operations issued.
    launches: f64,
    /// 10^12 operations of matrix products and attention.
    tflop: f64,
    /// Seconds by the card's two clocks.
    seconds: f64,
}

const XL: &str = "instructblip-flan-t5-xl";
const VICUNA: &str = "instructblip-vicuna-7b";
const COUNTED: [Counted; 4] = [
    Counted {
        model: XL,
        batch: 64,
        recompute: Recompute::None,
        peak: 61.4,
        launches: 14_798.0,
        tflop: 182.0,
        seconds: 0.402,
    },
    Counted {
        model: XL,
        batch: 64,
        recompute: Recompute::Blocks,
        peak: 12.1,
        launches: 22_992.0,
        tflop: 227.0,
        seconds: 0.527,
    },
    Counted {
        model: VICUNA,
        batch: 16,
        recompute: Recompute::None,
        peak: 60.9,
        launches: 11_109.0,
        tflop: 84.0,
        seconds: 0.226,
    },
    Counted {
        model: VICUNA,
        batch: 16,
        recompute: Recompute::Blocks,
        peak: 18.9,
        launches: 17_047.0,
        tflop: 105.0,
        seconds: 0.308,
    },
];

fn assert_near(what: &str, found: f64, counted: f64, share: f64) {
    assert!((found / counted - 1.0).abs() < share, "{what}: {found:.4}, counted {counted}");
}

#[test]
fn a_training_step_takes_what_was_counted() {
    for Counted { model, batch, recompute, peak, launches, tflop, seconds } in COUNTED {
        let mut run = paper(model, batch);
        run.restore.recompute = recompute;
        let training = of_kind(&predictions(&run, "h100"), "adapt");
        assert_eq!(training.fallback, None, "{model}: it fits as it is asked for");
        let what = |of: &str| format!("{model} at {batch}, {recompute:?}: {of}");
        assert_near(&what("peak"), training.peak_bytes as f64 / 1e9, peak, 0.15);
        assert_near(&what("launches"), training.launches / training.steps, launches, 0.15);
        assert_near(&what("operations"), training.tflop / training.steps, tflop, 0.1);
        assert_near(&what("seconds"), training.seconds / training.steps, seconds, 0.15);
    }
}

/// An evaluation with five beams, for each question, as it was counted on that device. Nothing there says where an answer ends, so every answer
/// is as long as it may be.
struct CountedAnswers {
    model: &'static str,
    task: Task,
    /// Tokens of an answer.
    tokens: u32,
    /// 10^9 bytes at the peak.
    peak: f64,
    /// Operations issued for a question.
    launches: f64,
    /// 10^12 operations of matrix products and attention.
    tflop: f64,
    /// Milliseconds by the H100's two clocks.
    milliseconds: f64,
}

const COUNTED_ANSWERS: [CountedAnswers; 2] = [
    CountedAnswers {
        model: XL,
        task: Task::Gqa,
        tokens: 10,
        peak: 16.5,
        launches: 28.0,
        tflop: 0.290,
        milliseconds: 0.728,
    },
    CountedAnswers {
        model: XL,
        task: Task::Vqav2,
        tokens: 10,
        peak: 16.5,
        launches: 28.0,
        tflop: 0.384,
        milliseconds: 0.911,
    },
];

#[test]
fn an_evaluation_takes_what_was_counted() {
    for CountedAnswers { model, task, tokens, peak, launches, tflop, milliseconds } in COUNTED_ANSWERS {
        let mut run = paper(model, 16);
        run.restore.method = RestoreMethod::None;
        run.evaluate.tasks = vec![task];
        (run.evaluate.answer.min_new_tokens, run.evaluate.answer.max_new_tokens) = (Some(tokens), Some(tokens));
        let found = of_kind(&predictions(&run, "h100"), "evaluate");
        let questions = if task == Task::Gqa { 12_578.0 } else { 214_354.0 };
        let what = |of: &str| format!("{model} {task}: {of}");
        assert_near(&what("peak"), found.peak_bytes as f64 / 1e9, peak, 0.15);
        assert_near(&what("launches"), found.launches / questions, launches, 0.15);
        assert_near(&what("operations"), found.tflop / questions, tflop, 0.15);
        assert_near(&what("milliseconds"), found.seconds / questions * 1e3, milliseconds, 0.15);
    }
}

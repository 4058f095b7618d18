//! Against runs of the program on a device that counts operations and memory and computes nothing (`make simulate`).

use crate::{of_kind, paper, predictions};

/// A training step with masks and distillation, as it was counted on that device.
struct Counted {
    model: &'static str,
    batch: u32,
    card: &'static str,
    /// Settings of memory with which it was counted.
    with: Option<&'static str>,
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
const COUNTED: [Counted; 2] = [
    Counted {
        model: XL,
        batch: 64,
        card: "h100",
        with: None,
        peak: 61.4,
        launches: 14_798.0,
        tflop: 182.1,
        seconds: 0.402,
    },
    Counted {
        model: VICUNA,
        batch: 16,
        card: "h100",
        with: None,
        peak: 61.0,
        launches: 13_241.0,
        tflop: 78.8,
        seconds: 0.254,
    },
];

fn assert_near(what: &str, found: f64, counted: f64, share: f64) {
    assert!((found / counted - 1.0).abs() < share, "{what}: {found:.4}, counted {counted}");
}

#[test]
fn a_training_step_takes_what_was_counted() {
    for Counted { model, batch, card, with, peak, launches, tflop, seconds } in COUNTED {
        let training = of_kind(&predictions(&paper(model, batch), card), "adapt");
        let what = |of: &str| format!("{model} at {batch} on {card}, {of}");
        assert_eq!(training.with.as_deref(), with, "{}", what("settings"));
        assert_near(&what("peak"), training.peak_bytes as f64 / 1e9, peak, 0.15);
        assert_near(&what("launches"), training.launches / training.steps, launches, 0.15);
        assert_near(&what("operations"), training.tflop / training.steps, tflop, 0.1);
        assert_near(&what("seconds"), training.seconds / training.steps, seconds, 0.15);
    }
}

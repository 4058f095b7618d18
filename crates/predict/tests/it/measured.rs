//! Against runs of the program on a device that counts operations and memory and computes nothing.

use crate::{of_kind, paper, predictions};

/// 10^12 operations of a training step, as the program was counted to issue them.
const COUNTED: [(&str, u32, f64); 3] = [
    ("instructblip-flan-t5-xl", 64, 177.0),
    ("instructblip-flan-t5-xl", 8, 21.9),
    ("instructblip-vicuna-7b", 16, 78.8),
];

#[test]
fn operations_of_a_training_step_agree_with_what_was_counted() {
    for (model, batch, counted) in COUNTED {
        let training = of_kind(&predictions(&paper(model, batch), "h200"), "adapt");
        assert_eq!(training.with, None, "it fits without recomputation");
        let found = training.tflop / training.steps;
        assert!((found / counted - 1.0).abs() < 0.1, "{model} at {batch}: {found:.1}, counted {counted}");
    }
}

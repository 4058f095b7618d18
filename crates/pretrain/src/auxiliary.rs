//! Heads that only training knows: they make the towers keep what the questions need, and are thrown away afterwards.
//!
//! A model this small does not find out by itself, within minutes, that position and content must travel together from the image
//! encoder to the language model. Published models bring that from pre-training on hundreds of millions of images; these heads stand
//! for it. None of them is part of the saved model.

use ressa_data::shapes::scene::LABEL_CLASSES;
use tch::Tensor;

use crate::parameters::{Initial, TensorMap};

/// Logits of a content head: the classes of all labels of a cell or patch.
pub const CONTENT_LOGITS: i64 = 24;
/// Cells of the grid; the pointer heads have one class more, for an object that is not there.
pub const CELLS: i64 = 9;
/// Patches along a side of the image.
pub const PATCH_SIDE: i64 = 6;

const PREFIX: &str = "auxiliary.";

/// A linear head.
#[derive(Debug)]
pub struct Head {
    weight: Tensor,
    bias: Tensor,
}

impl Head {
    fn of(leaves: &TensorMap, name: &str) -> Self {
        let take = |part: &str| leaves[&format!("{PREFIX}{name}.{part}")].shallow_clone();
        Self { weight: take("weight"), bias: take("bias") }
    }

    /// Logits `[..., classes]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

/// Every head and the vectors of the oracle slots.
#[derive(Debug)]
pub struct Auxiliary {
    /// Content, row and column of each patch, on the image encoder's output.
    pub patch: Head,
    /// Content of grid cell i, on query output i.
    pub slot: Head,
    /// Cell that an object phrase names, on the language model's middle states.
    pub pointer: Head,
    /// Cell that the answer is about, on the last word.
    pub target: Head,
    /// Content of the cell that an object phrase names.
    pub attribute: Head,
    /// Left/right and above/below of the two objects of a relation question.
    pub comparison: Head,
    /// Cell of the first object of a relation question, on the last word.
    pub compared: Head,
    /// Whether the answer is yes.
    pub truth: Head,
    /// The answer's word, on T5's end token.
    pub answer: Head,
    /// One vector per query, added to its oracle slot, `[queries, language width]`.
    pub place: Tensor,
    /// Stands for an empty cell, `[language width]`.
    pub empty: Tensor,
    /// Logarithm of the factor on cosines in the contrastive loss, `[1]`.
    pub temperature: Tensor,
}

impl Auxiliary {
    /// Names and shapes for a model with these widths.
    pub fn shapes(
        vision: i64,
        interface: i64,
        language: i64,
        queries: i64,
        vocabulary: i64,
    ) -> Vec<(String, Vec<i64>)> {
        let heads = [
            ("patch", vision, CONTENT_LOGITS + 2 * PATCH_SIDE),
            ("slot", interface, CONTENT_LOGITS),
            ("pointer", language, CELLS + 1),
            ("target", language, CELLS + 1),
            ("attribute", language, CONTENT_LOGITS),
            ("comparison", language, 6),
            ("compared", language, CELLS + 1),
            ("truth", language, 2),
            ("answer", language, vocabulary),
        ];
        heads
            .into_iter()
            .flat_map(|(name, width, classes)| {
                [
                    (format!("{PREFIX}{name}.weight"), vec![classes, width]),
                    (format!("{PREFIX}{name}.bias"), vec![classes]),
                ]
            })
            .chain([
                (format!("{PREFIX}place"), vec![queries, language]),
                (format!("{PREFIX}empty"), vec![language]),
                (format!("{PREFIX}temperature"), vec![1]),
            ])
            .collect()
    }

    /// Initial values of the heads.
    pub fn initial(name: &str, shape: &[i64]) -> Initial {
        if name.ends_with(".bias") {
            Initial::Constant(0.0)
        } else if name.ends_with("temperature") {
            Initial::Constant(10_f32.ln())
        } else if name.ends_with("place") || name.ends_with("empty") {
            Initial::Normal(0.5)
        } else {
            Initial::Normal((*shape.last().unwrap_or(&1) as f64).powf(-0.5))
        }
    }

    /// Whether a tensor belongs to the heads and not to the model.
    pub fn owns(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// The heads over a shard's leaves.
    pub fn of(leaves: &TensorMap) -> Self {
        Self {
            patch: Head::of(leaves, "patch"),
            slot: Head::of(leaves, "slot"),
            pointer: Head::of(leaves, "pointer"),
            target: Head::of(leaves, "target"),
            attribute: Head::of(leaves, "attribute"),
            comparison: Head::of(leaves, "comparison"),
            compared: Head::of(leaves, "compared"),
            truth: Head::of(leaves, "truth"),
            answer: Head::of(leaves, "answer"),
            place: leaves[&format!("{PREFIX}place")].shallow_clone(),
            empty: leaves[&format!("{PREFIX}empty")].shallow_clone(),
            temperature: leaves[&format!("{PREFIX}temperature")].shallow_clone(),
        }
    }
}

/// Sum of the cross entropies of the four parts of a content prediction `[n, 24]` against labels `[n, 4]`.
pub fn content_loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    let logits = logits.reshape([-1, CONTENT_LOGITS]);
    let labels = labels.reshape([-1, 4]);
    let parts = logits.split_with_sizes(LABEL_CLASSES, 1);
    (0..4)
        .map(|i| parts[i as usize].cross_entropy_for_logits(&labels.select(1, i)))
        .reduce(|a, b| a + b)
        .expect("four parts")
}

/// Layer normalisation without gain: heads on the language model's states should not depend on their scale.
pub fn standardised(states: &Tensor) -> Tensor {
    let width = *states.size().last().expect("states have a width");
    states.layer_norm([width], None::<Tensor>, None::<Tensor>, 1e-5, false)
}

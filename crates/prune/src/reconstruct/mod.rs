//! Local reconstruction: what a pruned network keeps is trained, a window of it at a time, to put out what the dense network puts out there.
//!
//! Paper: Wagner et al., "A Free Lunch in LLM Compression: Revisiting Retraining after Pruning", arXiv 2510.14444. Reference: ZIB-IOL/Free-Lunch-in-LLM-Compression.
//! Windows are single matrices, attention and feed-forward layer apart, or blocks; the loss is the mean squared error over all elements of the outputs, optionally less a
//! mean cosine; AdamW, the rate up over a tenth of the steps and down to 0, both linearly.
//!
//! Differs: a window whose error on the samples is not smaller afterwards, in the type in which its weights are kept, gets its weights back. Samples of one shape run
//! together, so all tokens are real; a step has at most so many samples, and fewer where the next ones have another shape and would not fit.

mod saved;
mod tower;
mod train;
mod window;

use std::{collections::BTreeMap, path::Path};

use ressa_experiment::{Pattern, Tower, reconstruct::WindowTraining, record::Certificate};
use ressa_models::{
    Cuts, MaskSet, Update, VisionLanguage, Weight, WeightSet,
    certify::{self, Claim},
};

pub use tower::reconstruct_tower;

use crate::refine::Change;

/// A tower to reconstruct.
#[derive(Clone, Copy)]
pub struct ReconstructRequest<'a> {
    /// The tower.
    pub tower: Tower,
    /// How.
    pub training: &'a WindowTraining,
    /// What trains on a weight of a window, and what it starts from, which leaves the weight as it is; `None` where the weight stays.
    pub starts: &'a dyn Fn(&Weight) -> Option<Box<dyn Update>>,
    /// Replicate seed: the order of the samples.
    pub seed: u64,
    /// A folder of this reconstruction alone, in which finished windows are kept until all are; `None` starts over after an interruption.
    pub scratch: Option<&'a Path>,
}

/// A reconstructed tower.
#[derive(Debug, Default)]
pub struct TowerReconstruction {
    /// New values of weights, biases and norms, in the type of the old ones; pruned positions are zero.
    pub weights: WeightSet,
    /// The error of each window before and after, relative to what the dense model puts out. Equal where training did not help.
    pub errors: BTreeMap<String, Change>,
    /// Optimiser steps.
    pub steps: u64,
}

/// Recounts a reconstructed tower: its masks are those that it had, `model` holds nothing where they remove, and no error rose. The model's own masks are not looked at,
/// its weights are. `patterns` has that of each pruned layer; groups of N:M are counted in what `cuts` have left of a layer.
pub fn certify_reconstructed(
    model: &dyn VisionLanguage,
    (tower, patterns): (Tower, &BTreeMap<String, Pattern>),
    (masks, before): (&MaskSet, &MaskSet),
    errors: &BTreeMap<String, Change>,
    cuts: &Cuts,
) -> Certificate {
    let of_tower = || model.linears().into_iter().filter(|(id, _)| id.tower == tower);
    let mut certificate = certify::certify(of_tower().map(|(id, linear)| {
        let keep = masks.get(&id.name);
        Claim {
            cut: cuts.layer(&id.name),
            layer: id,
            weight: linear.weight(),
            masked: keep.is_some(),
            keep,
            pattern: keep.and_then(|_| patterns.get(&id.name).copied()),
            pruned: None,
            sealed: true,
        }
    }));
    for (id, _) in of_tower() {
        let is_kept = match (masks.get(&id.name), before.get(&id.name)) {
            (Some(mask), Some(earlier)) => mask.equal(earlier),
            (mask, earlier) => mask.is_none() && earlier.is_none(),
        };
        if !is_kept {
            certificate.violations.push(format!("`{}`: its mask is another than before", id.name));
        }
    }
    for (window, Change { before, after }) in errors.iter().filter(|(_, error)| error.has_risen()) {
        certificate.violations.push(format!("`{window}`: its error rose from {before:.3e} to {after:.3e}"));
    }
    certificate
}

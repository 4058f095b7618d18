//! The loss of one sample as a function of one tower's weights: what lies below the tower is computed once.

use std::slice;

use ressa_experiment::Tower;
use ressa_models::{Sample, VisionLanguage};
use tch::{Tensor, no_grad};

/// Samples with what they bring to a tower's entry.
pub(super) struct Probe<'a> {
    samples: &'a [Sample],
    tower: Tower,
    /// Image features for the interface, the prefix for the language model, nothing for the image encoder.
    entries: Vec<Tensor>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(model: &dyn VisionLanguage, tower: Tower, samples: &'a [Sample]) -> Self {
        let entry = |sample: &Sample| match tower {
            Tower::Vision => None,
            Tower::Qformer => Some(model.encode_images(&sample.pixels)),
            Tower::Language => Some(model.visual_prefix(&model.encode_images(&sample.pixels), &sample.prompt)),
        };
        Self { samples, tower, entries: no_grad(|| samples.iter().filter_map(entry).collect()) }
    }

    /// Mean cross entropy of a sample's answer, a scalar.
    pub(super) fn loss(&self, model: &dyn VisionLanguage, sample: usize) -> Tensor {
        let Sample { pixels, prompt, answer } = &self.samples[sample];
        let prefix = match self.tower {
            Tower::Vision => model.visual_prefix(&model.encode_images(pixels), prompt),
            Tower::Qformer => model.visual_prefix(&self.entries[sample], prompt),
            Tower::Language => self.entries[sample].shallow_clone(),
        };
        model.force(Some(&prefix), &prompt.language, slice::from_ref(answer)).loss()
    }
}

//! The loss of one sample as a function of one tower's weights: what lies below the tower is computed once.

use std::slice;

use ressa_experiment::Tower;
use ressa_models::{Forced, Sample, VisionLanguage};
use tch::{Kind, Tensor, no_grad};

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
            Tower::Connector => Some(model.encode_images(&sample.pixels)),
            Tower::Language => Some(model.visual_prefix(&model.encode_images(&sample.pixels), &sample.prompt)),
        };
        Self { samples, tower, entries: no_grad(|| samples.iter().filter_map(entry).collect()) }
    }

    /// Whether the model's logits come in f32 or better.
    pub(super) fn computes_in_f32(&self, model: &dyn VisionLanguage) -> bool {
        self.samples.is_empty() || !matches!(self.forced(model, 0).logits.kind(), Kind::Half | Kind::BFloat16)
    }

    /// Mean cross entropy of a sample's answer, a scalar, f32.
    pub(super) fn loss(&self, model: &dyn VisionLanguage, sample: usize) -> Tensor {
        let mut forced = self.forced(model, sample);
        forced.logits = forced.logits.to_kind(Kind::Float);
        forced.loss()
    }

    /// Logarithms of the probabilities of every word at the places of a sample's answer, f32 `[tokens, vocabulary]`.
    pub(super) fn log_probabilities(&self, model: &dyn VisionLanguage, sample: usize) -> Tensor {
        self.forced(model, sample).logits.select(0, 0).to_kind(Kind::Float).log_softmax(-1, None::<Kind>)
    }

    fn forced(&self, model: &dyn VisionLanguage, sample: usize) -> Forced {
        let Sample { pixels, prompt, answer } = &self.samples[sample];
        let prefix = match self.tower {
            Tower::Vision => model.visual_prefix(&model.encode_images(pixels), prompt),
            Tower::Connector => model.visual_prefix(&self.entries[sample], prompt),
            Tower::Language => self.entries[sample].shallow_clone(),
        };
        model.force(Some(&prefix), &prompt.language, slice::from_ref(answer))
    }
}

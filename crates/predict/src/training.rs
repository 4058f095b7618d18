//! What a restoration takes: time and memory of an adapter training.

use ressa_experiment::{
    Tower,
    stage::AdaptTraining,
};

use crate::{
    model::{Layer, Model},
    pass::{Batch, Pass},
    program::{host, texts, training},
    stage::{Need, Subject, Time},
    work::Work,
};

/// How activations are treated between the forward and the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// All are kept.
    #[default]
    None,
    /// Only the inputs of blocks are kept; a block runs again in the backward pass.
    Blocks,
}

/// A training of adapters.
pub(crate) struct Training<'a> {
    pub subject: &'a Subject<'a>,
    pub settings: &'a AdaptTraining,
}

impl Training<'_> {
    /// Whether a layer has an adapter, and its rank.
    fn rank(&self, layer: &Layer) -> Option<f64> {
        let adapter = self.settings.tower(layer.tower)?;
        let is_target = adapter.targets.is_empty() || adapter.targets.contains(&layer.role);
        is_target.then_some(f64::from(adapter.rank))
    }

    fn adapted(&self) -> impl Iterator<Item = (&Layer, f64)> {
        self.subject.model.layers.iter().filter_map(|layer| Some((layer, self.rank(layer)?)))
    }

    /// The rows of a step: questions and captions run one after the other, on the same image features.
    fn batches(&self, images: f64) -> Vec<Batch> {
        let rows = images * f64::from(self.settings.questions);
        let captions =
            Batch { images, rows: images, instruction: texts::INSTRUCTION, prompt: texts::INSTRUCTION, answer: texts::CAPTION };
        let questions =
            Batch { images, rows, instruction: texts::QUESTION, prompt: texts::QUESTION, answer: texts::ANSWER };
        [captions, questions].into_iter().filter(|batch| batch.rows > 0.0).collect()
    }

    /// The work of one step on the device.
    pub fn step(&self, recompute: Recompute) -> Work {
        let Subject { model, machine, .. } = self.subject;
        let images = f64::from(self.settings.batch);
        let tuned = |layer: &Layer| self.rank(layer).is_some();
        let mut work = Work::default();
        for (number, batch) in self.batches(images).into_iter().enumerate() {
            let pass = Pass { model, machine, batch };
            let forward = pass.forward(|tower| tower != Tower::Vision || number == 0);
            let again = if recompute == Recompute::Blocks { 1.0 } else { 0.0 };
            let teacher = if self.settings.distill.is_some() { 1.0 } else { 0.0 };
            work += forward.times(1.0 + again + teacher);
            // The image encoder's gradient is taken once, for the rows of both.
            work += pass.backward(&|layer| tuned(layer) && (layer.tower != Tower::Vision || number == 0));
            work += machine.traffic(pass.logits() * training::LOGIT_TRAFFIC, 0.0);
        }
        for (layer, rank) in self.adapted() {
            // The update, and the gradients of both of its matrices.
            work += machine.single_product(layer.outputs, rank, layer.inputs, 3.0);
            work += machine.traffic(layer.weights() * training::WEIGHT_BYTES, training::LAYER_LAUNCHES - 3.0);
        }
        work += machine.traffic(self.parameters() * training::PARAMETER_BYTES * 2.0, training::STEP_LAUNCHES);
        work += machine.syncs(training::STEP_SYNCS);
        work
    }

    /// Parameters that train.
    fn parameters(&self) -> f64 {
        self.adapted().map(|(layer, rank)| rank * (layer.inputs + layer.outputs)).sum()
    }

    /// Bytes of the training at its peak, with `images` images in a micro-batch.
    pub fn peak(&self, recompute: Recompute, images: f64) -> f64 {
        let Subject { model, machine, .. } = self.subject;
        let tuned = |layer: &Layer| self.rank(layer).is_some();
        let is_formed = |layer: &&Layer| tuned(layer) || self.subject.pruned.contains(&layer.tower);
        let formed: f64 = model.layers.iter().filter(is_formed).map(Layer::weights).sum();
        let weights = match recompute {
            Recompute::None => formed * machine.bytes(),
            // The weights of a block exist while it runs.
            Recompute::Blocks => self.subject.largest_block() * machine.bytes() * 2.0,
        };
        let mut kept: f64 = 0.0;
        let mut logits = 0.0;
        for (number, batch) in self.batches(images).into_iter().enumerate() {
            let pass = Pass { model, machine, batch };
            kept += pass.kept(&|layer| tuned(layer) && (layer.tower != Tower::Vision || number == 0), recompute == Recompute::Blocks);
            logits += pass.logits() * training::LOGIT_BYTES;
        }
        // Gradients of the effective weights grow while activations go.
        let gradients = match recompute {
            Recompute::None => self.adapted().map(|(layer, _)| layer.weights()).sum::<f64>() * machine.bytes(),
            Recompute::Blocks => 0.0,
        };
        self.subject.weights_bytes() + self.subject.masks_bytes() + weights
            + (kept + logits).max(gradients)
            + self.parameters() * training::PARAMETER_BYTES
    }

    /// Time and memory of the whole training.
    pub fn need(&self) -> Need {
        let machine = &self.subject.machine;
        let card = machine.card;
        let images = f64::from(self.settings.batch);
        let choices = [(Recompute::None, None), (Recompute::Blocks, Some("restore.recompute: blocks"))];
        let tried = choices.map(|(recompute, setting)| (recompute, setting, self.peak(recompute, images)));
        let chosen = tried.iter().find(|(_, _, peak)| crate::stage::fits(card, *peak)).unwrap_or(&tried[0]);
        let (recompute, setting, peak) = *chosen;
        let steps = f64::from(self.settings.steps);
        let step = self.step(recompute);
        // A loader reads ahead: a step waits for its images only where they take longer than the step before.
        let loading = images * host::IMAGE_SECONDS / machine.cores;
        let seconds = steps * machine.seconds(step).max(loading) * (1.0 + training::CHECKPOINT_SHARE);
        Need { time: Time { seconds, work: step.times(steps), steps }, peak, setting }
    }
}

/// The weights of the largest block.
pub(crate) fn largest_block(model: &Model) -> f64 {
    let of_stack = |stack: &crate::model::Stack| {
        let own = model.layers.iter().filter(|layer| layer.kind == stack.kind).map(Layer::weights).sum::<f64>();
        own / stack.blocks.max(1.0)
    };
    model.stacks.iter().map(of_stack).fold(0.0, f64::max)
}

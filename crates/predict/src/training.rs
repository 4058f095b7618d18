//! What a restoration takes: time and memory of an adapter training.

use ressa_experiment::{
    Tower,
    config::{AttentionBlocks, AttentionConfig},
    distill::PROBABILITIES_AT_ONCE,
    evolve::WEIGHTS_AT_ONCE,
    layout::Layout,
    stage::AdaptTraining,
};

use crate::{
    model::{Layer, Model, Stack},
    pass::{Batch, Pass},
    program::{host, texts, training},
    stage::{Need, Subject, Time},
    work::Work,
};

/// A training of adapters.
pub(crate) struct Training<'a> {
    pub subject: &'a Subject<'a>,
    pub settings: &'a AdaptTraining,
    /// Whether updates are masked.
    pub masked: bool,
    /// The teacher, where it is another model than the dense one.
    pub teacher: Option<&'a Model>,
    /// Whether what the teacher says is in the cache.
    pub taught: bool,
    /// Domains that its batches are drawn from.
    pub domains: usize,
}

impl Training<'_> {
    /// Whether a layer has an adapter, and its rank.
    fn rank(&self, layer: &Layer) -> Option<f64> {
        let adapter = self.settings.tower(layer.tower)?;
        let is_named = |target: &String| *target == layer.role || layer.path.split('.').any(|module| module == target);
        let is_target = adapter.targets.is_empty() || adapter.targets.iter().any(is_named);
        // A matrix that trains element by element has as many parameters as an update of this rank.
        let full = layer.weights() / (layer.inputs + layer.outputs);
        is_target.then_some(if adapter.full { full } else { f64::from(adapter.rank) })
    }

    fn adapted(&self) -> impl Iterator<Item = (&Layer, f64)> {
        self.subject.model.layers.iter().filter_map(|layer| Some((layer, self.rank(layer)?)))
    }

    /// The rows of a step: questions and captions run one after the other, on the same image features.
    fn batches(&self, images: f64) -> Vec<Batch> {
        let rows = images * f64::from(self.settings.questions);
        let captions = Batch {
            images,
            rows: images,
            instruction: texts::INSTRUCTION,
            prompt: texts::INSTRUCTION,
            answer: texts::CAPTION,
        };
        let questions =
            Batch { images, rows, instruction: texts::QUESTION, prompt: texts::QUESTION, answer: texts::ANSWER };
        [captions, questions].into_iter().filter(|batch| batch.rows > 0.0).collect()
    }

    /// The work of one step on the device.
    pub fn step(&self, layout: Layout) -> Work {
        let machine = &self.subject.machine;
        let parts = f64::from(self.settings.batch.div_ceil(layout.micro_batch));
        let mut work = self.part(layout).times(parts);
        work += machine.traffic(self.parameters() * training::PARAMETER_BYTES * 2.0, training::STEP_LAUNCHES);
        work += machine.syncs(training::STEP_SYNCS);
        if self.settings.perturb.is_on() && self.settings.perturb.beta > 0.0 {
            // The direction of the step before in the weights, of which the noise has a part.
            work += self.adapted().map(|(layer, rank)| machine.product(layer.outputs, rank, layer.inputs, 2.0)).sum();
        }
        work
    }

    /// Forward and backward over the images that are computed at once.
    fn part(&self, Layout { micro_batch, recompute }: Layout) -> Work {
        let images = f64::from(micro_batch);
        let Subject { model, machine, .. } = self.subject;
        let tuned = |layer: &Layer| self.rank(layer).is_some();
        let again = if recompute { 1.0 } else { 0.0 };
        let is_asked = self.settings.distill.is_some() && !self.taught;
        let mut work = Work::default();
        for (number, batch) in self.batches(images).into_iter().enumerate() {
            let pass = Pass { model, machine, batch };
            let sees = |tower: Tower| tower != Tower::Vision || number == 0;
            work += pass.forward(sees).times(1.0 + again);
            if is_asked {
                work += Pass { model: self.teacher.unwrap_or(model), machine, batch }.forward(sees);
            }
            // The image encoder's gradient is taken once, for the rows of both.
            work += pass.backward(&|layer| tuned(layer) && (layer.tower != Tower::Vision || number == 0));
            work += machine.traffic(pass.logits() * training::LOGIT_TRAFFIC, 0.0);
            work += self.compared().filter(|stack| sees(stack.kind.tower())).map(|stack| pass.maps(&stack)).sum();
        }
        for (layer, rank) in self.adapted() {
            // The update, and the gradients of both of its matrices.
            work += machine.product(layer.outputs, rank, layer.inputs, 3.0 + again);
            let mut formed = machine.traffic(layer.weights() * training::WEIGHT_BYTES, training::LAYER_LAUNCHES - 3.0);
            if self.is_masked(layer) {
                formed += machine.traffic(layer.weights() * training::MASK_BYTES, training::MASK_LAUNCHES);
            }
            if self.settings.perturb.is_on() {
                formed += machine.traffic(layer.weights() * training::NOISE_BYTES, training::NOISE_LAUNCHES);
            }
            work += formed.times(1.0 + again / 2.0);
        }
        work
    }

    /// Stacks whose attention is compared with the teacher's, with the blocks of each that are.
    fn compared(&self) -> impl Iterator<Item = Stack> {
        let distill = self.settings.distill.as_ref().filter(|distill| distill.compares_attention());
        distill.into_iter().flat_map(move |distill| {
            let AttentionConfig { blocks, towers, .. } = &distill.attention;
            let stacks = self.subject.model.stacks.iter().filter(move |stack| towers.contains(&stack.kind.tower()));
            stacks.map(move |stack| match blocks {
                AttentionBlocks::All => stack.clone(),
                AttentionBlocks::Last => Stack { blocks: 1.0, ..stack.clone() },
            })
        })
    }

    /// Weights whose masks change.
    fn evolving(&self) -> f64 {
        let layers = self.adapted().filter(|(layer, _)| self.settings.evolve.is_on() && self.is_masked(layer));
        layers.map(|(layer, _)| layer.weights()).sum()
    }

    /// Held-out items of all domains, each with an image.
    fn held_out(&self) -> f64 {
        f64::from(self.settings.loading.kept_from_training()) * self.domains as f64
    }

    /// The work of measuring held-out losses once.
    fn measuring(&self) -> Work {
        let (prompt, answer) = match self.settings.questions {
            // Entries of corpora are captions, in batches of a training.
            0 => (texts::INSTRUCTION, texts::CAPTION),
            _ => (texts::QUESTION, texts::ANSWER),
        };
        let images = f64::from(self.settings.batch);
        let batch = Batch { images, rows: images, instruction: prompt, prompt, answer };
        let Subject { model, machine, .. } = self.subject;
        Pass { model, machine, batch }.forward(|_| true).times(self.held_out() / images)
    }

    /// How often held-out losses are measured: of the dense model once, of the student before each change of weights.
    fn measurements(&self) -> f64 {
        let AdaptTraining { loading, steps, align, .. } = self.settings;
        if loading.is_on() { 1.0 + f64::from(loading.updates(*steps, *align)) } else { 0.0 }
    }

    /// Passes beside the steps, each as long as one: those that an exchange of masked weights takes its gradients from.
    fn passes(&self) -> f64 {
        let AdaptTraining { evolve, steps, align, .. } = self.settings;
        let pieces = (self.evolving() / WEIGHTS_AT_ONCE as f64).ceil();
        if evolve.needs_gradient() { f64::from(evolve.exchanges(*steps, *align)) * pieces } else { 0.0 }
    }

    /// Whether the update of a layer is masked.
    fn is_masked(&self, layer: &Layer) -> bool {
        self.masked && self.subject.pruned.contains(&layer.tower)
    }

    /// Parameters that train.
    fn parameters(&self) -> f64 {
        self.adapted().map(|(layer, rank)| rank * (layer.inputs + layer.outputs)).sum()
    }

    /// Bytes of the training at its peak.
    pub fn peak(&self, Layout { micro_batch, recompute }: Layout) -> f64 {
        let images = f64::from(micro_batch);
        let Subject { model, machine, .. } = self.subject;
        let tuned = |layer: &Layer| self.rank(layer).is_some();
        let is_formed = |layer: &&Layer| tuned(layer) || self.subject.pruned.contains(&layer.tower);
        let formed: f64 = model.layers.iter().filter(is_formed).map(Layer::weights).sum();
        // With recomputation the weights of a block exist while it runs.
        let weights =
            if recompute { self.subject.largest_block() * machine.bytes() * 2.0 } else { formed * machine.bytes() };
        let mut kept: f64 = 0.0;
        let mut logits = 0.0;
        // Attention is compared a piece at a time.
        let mut compared: f64 = 0.0;
        for (number, batch) in self.batches(images).into_iter().enumerate() {
            let pass = Pass { model, machine, batch };
            kept += pass.kept(&|layer| tuned(layer) && (layer.tower != Tower::Vision || number == 0), recompute);
            logits += pass.logits() * training::LOGIT_BYTES;
            let maps = self.compared().map(|stack| pass.probabilities(&stack) / stack.blocks).fold(0.0, f64::max);
            compared = f64::max(compared, maps.min(PROBABILITIES_AT_ONCE as f64) * training::MAP_BYTES);
            kept += self.compared().map(|stack| pass.compared(&stack)).sum::<f64>();
        }
        // Gradients of the effective weights grow while activations go; masks stay open for them.
        let adapted: f64 = self.adapted().map(|(layer, _)| layer.weights()).sum();
        let opened: f64 =
            self.adapted().filter(|(layer, _)| self.is_masked(layer)).map(|(layer, _)| layer.weights()).sum();
        let (gradients, masks) = match recompute {
            true => (0.0, 0.0),
            false => (adapted * machine.bytes(), opened * training::OPEN_MASK_BYTES),
        };
        // The dense model shares its weights with the student; another teacher whose outputs are in the cache is not read.
        let teacher = self.teacher.filter(|_| !self.taught).map_or(0.0, |teacher| teacher.parameters * machine.bytes());
        self.subject.weights_bytes()
            + teacher
            + self.subject.masks_bytes()
            + weights
            + masks
            + (kept + logits + compared).max(gradients)
            + self.parameters() * training::PARAMETER_BYTES
            // Stored weights of layers whose masks change are the training's own, with a byte for what has grown; during an exchange, two for what was decided, and
            // gradients of some of them as found, joined and summed.
            + self.evolving() * (machine.bytes() + 3.0)
            + self.evolving().min(WEIGHTS_AT_ONCE as f64) * 12.0
    }

    /// Time and memory of the whole training.
    pub fn need(&self) -> Need {
        let machine = &self.subject.machine;
        let card = machine.card;
        let images = f64::from(self.settings.batch);
        let asked = Layout::of(self.settings);
        // As a training does that runs out of memory.
        let mut layout = asked;
        while let Some(smaller) = layout.smaller(self.settings) {
            if crate::stage::fits(card, self.peak(layout)) {
                break;
            }
            layout = smaller;
        }
        let peak = self.peak(layout);
        let fallback = fallback(asked, layout);
        let steps = f64::from(self.settings.steps);
        let step = self.step(layout);
        // A loader reads ahead: a step waits for its images only where they take longer than the step before.
        let loading = images * host::IMAGE_SECONDS / machine.cores;
        let all = steps + self.passes();
        let seconds = all * machine.seconds(step).max(loading) * (1.0 + training::CHECKPOINT_SHARE);
        let mut work = step.times(all);
        let (measuring, measurements) = (self.measuring(), self.measurements());
        let opening = self.held_out() * host::IMAGE_SECONDS / machine.cores;
        let seconds = seconds + measurements * machine.seconds(measuring).max(opening);
        work += measuring.times(measurements);
        Need { time: Time { seconds, work, steps }, peak, fallback }
    }
}

/// What changes between the layout that was asked for and the one that fits, in words.
fn fallback(asked: Layout, Layout { micro_batch, recompute }: Layout) -> Option<String> {
    let recomputes = (recompute && !asked.recompute).then(|| "recomputes blocks".to_owned());
    let images = if micro_batch == 1 { "image" } else { "images" };
    let parts = (micro_batch < asked.micro_batch).then(|| format!("{micro_batch} {images} at a time"));
    let changes: Vec<String> = recomputes.into_iter().chain(parts).collect();
    (!changes.is_empty()).then(|| changes.join(", "))
}

/// The weights of the largest block.
pub(crate) fn largest_block(model: &Model) -> f64 {
    let of_stack = |stack: &Stack| {
        let own = model.layers.iter().filter(|layer| layer.kind == stack.kind).map(Layer::weights).sum::<f64>();
        own / stack.blocks.max(1.0)
    };
    model.stacks.iter().map(of_stack).fold(0.0, f64::max)
}

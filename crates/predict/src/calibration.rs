//! What pruning and measuring take: passes over calibration samples, statistics, choosing.

use std::collections::BTreeMap;

use ressa_experiment::{
    Tower,
    allocation::{Measurement, ScoreRule},
    config::{CalibrationConfig, MethodConfig, Metric, Propagate, StatisticsNeeds},
    refine::RefineMethod,
    structure::{BlockScore, GroupScore},
};

use crate::{
    model::{BlockKind, Layer, Reads, Stack},
    pass::{Batch, Pass},
    program::{host, pruning, texts},
    stage::{Need, Subject, Time},
    work::Work,
};

/// Calibration of a tower.
pub(crate) struct Calibrated<'a> {
    pub subject: &'a Subject<'a>,
    pub tower: Tower,
    /// Whether the projection is one of the connector's layers.
    pub projection: bool,
}

/// Images and texts of a calibration set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples {
    images: f64,
    texts: f64,
    /// Texts of one shape that run together.
    rows: f64,
    /// Images that run together.
    stacked: f64,
    /// Tokens of the instruction, and of the answer.
    lengths: (f64, f64),
}

impl Samples {
    pub fn of(config: &CalibrationConfig) -> Self {
        let per_image = f64::from(config.questions + config.captions).max(1.0);
        let images = f64::from(config.images);
        let asked = if config.questions > 0 { texts::QUESTION } else { texts::INSTRUCTION };
        let answer = if config.questions > config.captions { texts::ANSWER } else { texts::CAPTION };
        let texts = images * per_image;
        // Weighted tokens are counted sample by sample.
        let (rows, stacked) = match config.tokens.is_default() {
            true => ((texts / pruning::SHAPES).clamp(1.0, pruning::ROWS), images.min(pruning::ROWS)),
            false => (1.0, 1.0),
        };
        Self { images, texts, rows, stacked, lengths: (asked, answer) }
    }

    /// Distinct images.
    pub fn images(&self) -> f64 {
        self.images
    }

    /// Samples of a tower: images, or texts.
    pub fn rows(&self, tower: Tower) -> f64 {
        if tower == Tower::Vision { self.images } else { self.texts }
    }

    /// So many samples of a tower.
    pub fn batch_of(&self, tower: Tower, rows: f64) -> Batch {
        let batch = self.batch(rows);
        if tower == Tower::Vision { Batch { rows: 0.0, ..batch } } else { batch }
    }

    /// So many texts, with their images.
    fn batch(&self, rows: f64) -> Batch {
        let (asked, answer) = self.lengths;
        Batch { images: rows, rows, instruction: asked, prompt: asked, answer }
    }

    /// What runs together in a tower, and how often that is.
    fn passes(&self, tower: Tower) -> (Batch, f64) {
        match tower {
            Tower::Vision => (Batch { rows: 0.0, ..self.batch(self.stacked) }, (self.images / self.stacked).ceil()),
            Tower::Connector | Tower::Language => (self.batch(self.rows), (self.texts / self.rows).ceil()),
        }
    }
}

impl Calibrated<'_> {
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        let model = self.subject.model;
        let joined = model.projection.iter().filter(|_| self.projection);
        model.layers.iter().filter(|layer| layer.tower == self.tower).chain(joined)
    }

    pub fn weights(&self) -> f64 {
        self.layers().map(Layer::weights).sum()
    }

    pub fn stacks(&self) -> impl Iterator<Item = &Stack> {
        self.subject.model.stacks.iter().filter(|stack| stack.kind.tower() == self.tower)
    }

    pub fn pass(&self, batch: Batch) -> Pass<'_> {
        Pass { model: self.subject.model, machine: &self.subject.machine, batch }
    }

    /// All samples through one tower.
    pub fn through(&self, samples: Samples, tower: Tower) -> Work {
        let (batch, passes) = samples.passes(tower);
        self.pass(batch).forward(|own| own == tower).times(passes)
    }

    /// Activations of the pass that takes most.
    fn live(&self, samples: Samples) -> f64 {
        let of = |tower: Tower| self.pass(samples.passes(tower).0).live(|own| own == tower);
        Tower::ALL.into_iter().filter(|tower| *tower <= self.tower).map(of).fold(0.0, f64::max)
    }

    /// Collecting over all samples: the towers below once, the tower `runs` times, and what is collected.
    fn collect(&self, samples: Samples, needs: StatisticsNeeds, runs: f64) -> Work {
        let machine = &self.subject.machine;
        let mut work: Work =
            Tower::ALL.into_iter().filter(|&tower| tower < self.tower).map(|tower| self.through(samples, tower)).sum();
        work += self.through(samples, self.tower).times(runs);
        let (batch, passes) = samples.passes(self.tower);
        let layers: Vec<&Layer> = self.layers().filter(|layer| reads_first(layer)).collect();
        for layer in layers {
            let tokens = self.tokens(batch, layer.reads);
            if needs.gram {
                work += machine.single_product(layer.inputs, tokens, layer.inputs, passes);
            }
            let launches = if needs.gram { pruning::GRAM_LAUNCHES } else { pruning::NORM_LAUNCHES };
            work += machine.traffic(tokens * layer.inputs * 4.0 * 3.0, launches).times(passes);
        }
        work
    }

    fn tokens(&self, batch: Batch, reads: Reads) -> f64 {
        batch.tokens(self.subject.model, reads)
    }

    /// Choosing in every layer of the tower.
    fn choose(&self, metric: Metric, method: &MethodConfig) -> Work {
        let machine = &self.subject.machine;
        let mut work = Work::default();
        for layer in self.layers() {
            work += machine.traffic(layer.weights() * pruning::CHOICE_BYTES, pruning::CHOICE_LAUNCHES);
            match metric {
                Metric::SparseGpt => {
                    // Rows of all layers with one input go through the columns together.
                    if reads_first(layer) {
                        work += machine.single_product(layer.inputs, layer.inputs / 2.0, layer.inputs, 1.0);
                        work += machine.traffic(0.0, layer.inputs * pruning::COLUMN_LAUNCHES);
                    }
                    work += machine.single_product(layer.outputs, layer.inputs / 2.0, layer.inputs, 1.0);
                }
                Metric::Dsnot => {
                    let cycles = f64::from(method.dsnot.cycles);
                    work += machine.traffic(layer.weights() * 12.0 * cycles, pruning::SWAP_LAUNCHES * cycles);
                }
                Metric::Alps => {
                    let iterations = pruning::ALTERNATIONS.min(f64::from(method.alps.iterations));
                    let (products, inverses) = (iterations + f64::from(method.alps.steps), iterations / 3.0);
                    work += machine.single_product(layer.outputs, layer.inputs, layer.inputs, products);
                    work += machine.single_product(layer.inputs, 1.5 * layer.inputs, layer.inputs, inverses);
                    work += machine.traffic(layer.weights() * 40.0 * products, 15.0 * products);
                }
                _ => {}
            }
        }
        work
    }

    /// The stage `prune`; `stored` where statistics are read from an earlier stage.
    pub fn prune(
        &self,
        metric: Metric,
        method: &MethodConfig,
        calibration: Option<&CalibrationConfig>,
        stored: bool,
    ) -> Need {
        let machine = &self.subject.machine;
        let needs = StatisticsNeeds::of(metric, method);
        let propagates = calibration.is_some_and(|config| config.propagate == Propagate::Pruned);
        let samples = calibration.filter(|_| !stored && metric.needs_calibration()).map(Samples::of);
        let mut work = self.choose(metric, method);
        let mut waiting = 0.0;
        if let Some(samples) = samples {
            work += self.collect(samples, needs, if propagates { 2.0 } else { 1.0 });
            waiting += samples.images * host::IMAGE_SECONDS / machine.cores;
        }
        // Masks packed, and where the method changes weights those that stay.
        let weights = self.weights();
        let changed = if metric.changes_weights() { weights * machine.bytes() } else { 0.0 };
        waiting += machine.copy(weights / 8.0 + changed) + (weights / 8.0 + changed) / host::DISK_BYTES;
        let block = self.stacks().map(|stack| self.of_block(stack)).fold(0.0, f64::max);
        let held = samples.map_or(0.0, |samples| self.flows(samples) + self.live(samples));
        let grams = if needs.gram { self.grams(metric.changes_weights()) } else { 0.0 };
        let peak = self.subject.weights_bytes()
            + self.subject.masks_bytes()
            + self.subject.masked_bytes()
            + weights / 8.0
            + if propagates { weights * machine.bytes() } else { changed }
            + block * pruning::RANKED_BYTES
            + held
            + grams;
        Need { time: Time::of(machine, work, waiting), peak, fallback: None }
    }

    /// The stage `refine`; `stored` where statistics are read from an earlier stage.
    pub fn refine(&self, method: RefineMethod, iterations: u32, calibration: &CalibrationConfig, stored: bool) -> Need {
        /// Bytes that a layer's weights take while they are refined: dense, pruned, missing and their products in f32, and masks.
        const REFINED_BYTES: f64 = 24.0;
        let Subject { model, machine, .. } = self.subject;
        let iterations = f64::from(iterations);
        let mut work = Work::default();
        for layer in self.layers() {
            // The error before and after.
            work += machine.single_product(layer.outputs, layer.inputs, layer.inputs, 2.0);
            work += match method {
                RefineMethod::SparseSwaps => {
                    machine.traffic(layer.weights() * 12.0 * iterations, pruning::SWAP_LAUNCHES * iterations)
                }
                RefineMethod::LeastSquares => {
                    machine.single_product(layer.outputs, layer.inputs, layer.inputs, iterations)
                }
                RefineMethod::None => Work::default(),
            };
        }
        let collected = match stored {
            true => Need::default(),
            false => self.statistics(calibration, StatisticsNeeds { gram: true, ..StatisticsNeeds::default() }),
        };
        work += collected.time.work;
        let weights = model.weights(self.tower);
        let changed = if method == RefineMethod::LeastSquares { weights * machine.bytes() } else { 0.0 };
        let written = weights / 8.0 + changed;
        let peak = self.subject.weights_bytes()
            + self.subject.masks_bytes()
            + self.subject.masked_bytes()
            + written
            + self.largest_layer() * REFINED_BYTES
            + self.grams(false)
            + collected.peak;
        let waiting = machine.copy(written) + written / host::DISK_BYTES;
        Need { time: Time::of(machine, work, waiting), peak, fallback: None }
    }

    /// The stage `structure`.
    pub fn structure(
        &self,
        (score, block_score): (Option<GroupScore>, Option<BlockScore>),
        calibration: Option<&CalibrationConfig>,
    ) -> Need {
        let machine = &self.subject.machine;
        // Importances are made and summed over rows and columns.
        let weights = self.weights();
        let layers = self.layers().count() as f64;
        let mut need = Need::default();
        need.time.steps = 1.0;
        let mut add = |other: Need| {
            need.time.work += other.time.work;
            need.time.seconds += other.time.seconds;
            need.peak = need.peak.max(other.peak);
        };
        if let Some(calibration) = calibration {
            if score == Some(GroupScore::Gradient) || block_score == Some(BlockScore::Gradient) {
                add(self.sensitivity(Measurement::Gradient { score: ScoreRule::Aobd }, None, calibration));
            }
            // Each block runs once for what it changes and once to hand on.
            let passes = if block_score == Some(BlockScore::Influence) { 2 } else { 0 };
            let passes = passes + usize::from(score == Some(GroupScore::Wanda));
            let needs = StatisticsNeeds { norms: score == Some(GroupScore::Wanda), ..StatisticsNeeds::default() };
            (0..passes).for_each(|_| add(self.statistics(calibration, needs)));
        }
        let written = weights / 8.0;
        let own = machine.traffic(weights * 24.0, layers * 12.0);
        add(Need {
            time: Time::of(machine, own, machine.copy(written) + written / host::DISK_BYTES),
            peak: self.subject.weights_bytes()
                + self.subject.masks_bytes()
                + self.subject.masked_bytes()
                + self.largest_layer() * 24.0,
            fallback: None,
        });
        need
    }

    /// The stage `statistics`.
    pub fn statistics(&self, calibration: &CalibrationConfig, needs: StatisticsNeeds) -> Need {
        let machine = &self.subject.machine;
        let samples = Samples::of(calibration);
        let work = self.collect(samples, needs, 1.0);
        let grams: f64 = self.layers().filter(|layer| reads_first(layer)).map(|layer| layer.inputs.powi(2) * 4.0).sum();
        let written = if needs.gram { grams } else { 0.0 };
        let waiting =
            samples.images * host::IMAGE_SECONDS / machine.cores + machine.copy(written) + written / host::DISK_BYTES;
        let peak = self.subject.weights_bytes()
            + self.flows(samples)
            + self.live(samples)
            + if needs.gram { self.grams(false) } else { 0.0 };
        Need { time: Time::of(machine, work, waiting), peak, fallback: None }
    }

    /// The stage `sensitivity`.
    pub fn sensitivity(&self, measurement: Measurement, first: Option<u32>, calibration: &CalibrationConfig) -> Need {
        let machine = &self.subject.machine;
        let mut samples = Samples::of(calibration);
        let texts = samples.texts.min(first.map_or(f64::INFINITY, f64::from));
        samples = Samples { images: samples.images.min(texts), texts, ..samples };
        let waiting = samples.images * host::IMAGE_SECONDS / machine.cores;
        // Gradients and differences are measured sample by sample.
        let pass = self.pass(samples.batch(1.0));
        let above = pass.forward(|tower| tower >= self.tower);
        let weights = self.weights() * machine.bytes();
        let (work, held) = match measurement {
            Measurement::Outliers { .. } => {
                let needs = StatisticsNeeds::of(Metric::Wanda, &MethodConfig::default());
                (self.collect(samples, needs, 1.0), self.flows(samples))
            }
            Measurement::Gradient { .. } => {
                // A window of gradients at a time; the backward pass ends at the window's first layer, half way on average.
                let windows = (weights / pruning::GRADIENT_WINDOW).ceil().max(1.0);
                let backward = pass.backward(&|layer| layer.tower == self.tower);
                let each = [above.times(windows), backward.times((windows + 1.0) / 2.0)].into_iter().sum::<Work>();
                let kept = pass.kept(&|layer| layer.tower == self.tower, false);
                (each.times(samples.texts), kept + pruning::GRADIENT_WINDOW * 2.0)
            }
            Measurement::Perturbation { noise, .. } => {
                let layers = self.layers().count() as f64;
                let mut each = above.times(2.0);
                let mean = self.weights() / layers.max(1.0);
                each += machine.traffic(mean * 40.0, 20.0);
                each += machine.syncs(2.0);
                (each.times(samples.texts * f64::from(noise) * layers), self.largest_layer() * 12.0)
            }
            Measurement::Density => {
                // Every output is made a second time, and read for three numbers, two of them over pairs of tokens.
                let layers = self.layers().count() as f64;
                let (batch, mut pairs, mut widest) = (samples.batch(samples.texts), Work::default(), 0.0f64);
                for layer in self.layers() {
                    let tokens = self.tokens(batch, layer.reads) / samples.texts.max(1.0);
                    pairs += machine.single_product(tokens, layer.outputs, tokens / 2.0, 1.0);
                    pairs += machine.traffic(tokens * tokens * 8.0, 6.0);
                    widest = widest.max(tokens * 1024.0 * 12.0);
                }
                let mut each = pass.forward(|tower| tower < self.tower);
                each += pass.forward(|tower| tower == self.tower).times(2.0);
                each += machine.syncs(3.0 * layers);
                each += pairs;
                (each.times(samples.texts), self.flows(samples) + widest)
            }
            Measurement::Similarity => {
                (pass.forward(|tower| tower <= self.tower).times(samples.texts), 2.0 * self.flows(samples))
            }
            Measurement::Search { metric, search, .. } => {
                // In each of three rounds candidates times samples is an eighth of all.
                let rounds = f64::from(search.generations) * f64::from(search.offspring) * 3.0 / 8.0;
                let mut work = above.times(rounds * samples.texts);
                work += machine.syncs(rounds * samples.texts);
                // Some of the blocks are masked anew for each candidate.
                work += machine.traffic(weights, pruning::CHOICE_LAUNCHES).times(rounds);
                work += self.collect(samples, StatisticsNeeds::of(metric, &MethodConfig::default()), 1.0);
                // The weights as they are beside those of a candidate, and a byte for each.
                (work, weights + self.weights() + self.flows(samples))
            }
        };
        let peak = self.subject.weights_bytes() + held + pass.live(|_| true) + self.largest_layer() * 4.0;
        Need { time: Time::of(machine, work, waiting), peak, fallback: None }
    }

    pub fn largest_layer(&self) -> f64 {
        self.layers().map(Layer::weights).fold(0.0, f64::max)
    }

    /// Weights of one block of a stack.
    pub fn of_block(&self, stack: &Stack) -> f64 {
        let own = self.layers().filter(|layer| layer.kind == stack.kind).map(Layer::weights).sum::<f64>();
        own / stack.blocks.max(1.0)
    }

    /// What enters and leaves a block, for all samples.
    pub fn flows(&self, samples: Samples) -> f64 {
        let machine = &self.subject.machine;
        let all = match self.tower {
            Tower::Vision => Batch { rows: 0.0, ..samples.batch(samples.images) },
            Tower::Connector | Tower::Language => samples.batch(samples.texts),
        };
        let one = |stack: &Stack| {
            let reads = match stack.kind {
                BlockKind::Vision => Reads::Patches,
                BlockKind::Qformer => Reads::QueriesAndText,
                BlockKind::T5Decoder => Reads::Answer,
                BlockKind::T5Encoder | BlockKind::Llama | BlockKind::Opt => Reads::Sequence,
            };
            let memory = if stack.kind == BlockKind::T5Decoder { self.tokens(all, Reads::Sequence) } else { 0.0 };
            (2.0 * self.tokens(all, reads) + memory) * stack.width
        };
        // The connector's samples bring the features of their images.
        let features = if self.tower == Tower::Connector { self.pass(all).features() } else { 0.0 };
        self.stacks().map(one).fold(0.0, f64::max) * machine.bytes() + features
    }

    /// Gram matrices of one block, and what a factorisation adds to the largest.
    fn grams(&self, factorised: bool) -> f64 {
        let mut blocks: BTreeMap<(BlockKind, usize), (f64, f64)> = BTreeMap::new();
        for layer in self.layers().filter(|layer| reads_first(layer)) {
            let (sum, largest) = blocks.entry((layer.kind, layer.block)).or_default();
            let bytes = layer.inputs.powi(2) * 4.0;
            *sum += bytes;
            *largest = largest.max(bytes);
        }
        let held = |(sum, largest): &(f64, f64)| sum + if factorised { largest * pruning::GRAM_COPIES } else { 0.0 };
        blocks.values().map(held).fold(0.0, f64::max)
    }
}

/// Whether a layer is the first of those that read the same input.
fn reads_first(layer: &Layer) -> bool {
    let follows = ["k", "v", "k_proj", "v_proj", "up_proj", "wi_1", "value"].contains(&layer.role.as_str());
    let own_key = layer.kind == BlockKind::Qformer && layer.role == "key" && layer.reads == Reads::QueriesAndText;
    // Keys of a T5 decoder's cross-attention read the encoder's states, which nothing in the block does before them.
    let reads_memory = layer.kind == BlockKind::T5Decoder && layer.role == "k" && layer.reads == Reads::Sequence;
    (!follows && !own_key) || reads_memory
}

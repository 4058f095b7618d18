//! What an evaluation takes: features of images, searches for answers, pairs of images and texts.

use ressa_experiment::{
    Task, Tower,
    config::{AskingConfig, DataSource, RetrievalConfig},
};

use crate::{
    model::{BlockKind, Model, Reads, Stack},
    pass::{Batch, Pass},
    program::{block_cost, evaluation, host, texts},
    stage::{Need, Subject, Time},
    work::Work,
};

/// Images and questions of a published benchmark, whole.
fn published(task: Task) -> (f64, f64) {
    match task {
        Task::Vqav2 => (40_504.0, 214_354.0),
        Task::Gqa => (398.0, 12_578.0),
        Task::Okvqa => (5_046.0, 5_046.0),
        Task::Nocaps => (4_500.0, 4_500.0),
        Task::Flickr30k => (1_000.0, 1_000.0 * texts::CAPTIONS_PER_IMAGE),
    }
}

/// An evaluation of one task.
pub(crate) struct Evaluated<'a> {
    pub subject: &'a Subject<'a>,
    pub task: Task,
    pub source: DataSource,
    /// Questions, or images for captions and retrieval, at most.
    pub items: f64,
    pub beams: f64,
}

impl Evaluated<'_> {
    /// Images and texts.
    fn size(&self) -> (f64, f64) {
        let (images, rows) = match self.source {
            DataSource::Folder => published(self.task),
            // A scene of the embedded world has a few questions.
            DataSource::Shapes => (self.items / 4.0, self.items),
        };
        match self.task {
            Task::Vqav2 | Task::Gqa | Task::Okvqa => {
                let share = (self.items / rows).min(1.0);
                (images * share, rows * share)
            }
            Task::Nocaps => (images.min(self.items), images.min(self.items)),
            Task::Flickr30k => {
                let images = images.min(self.items);
                (images, images * texts::CAPTIONS_PER_IMAGE)
            }
        }
    }

    /// Time and memory of a task that writes.
    pub fn generate(&self, asking: Option<&AskingConfig>) -> Need {
        let Subject { model, machine, .. } = self.subject;
        let (images, rows) = self.size();
        let caption = self.task == Task::Nocaps;
        let mean = if caption { texts::CAPTION } else { texts::ANSWER };
        let limit = asking.and_then(|asking| asking.max_new_tokens).unwrap_or(if caption { 30 } else { 10 });
        let least = asking.and_then(|asking| asking.min_new_tokens).unwrap_or(0);
        let steps = (mean * texts::LONGEST).max(f64::from(least)).min(f64::from(limit));
        let prompt = if caption { texts::INSTRUCTION } else { texts::QUESTION };

        let encoded =
            Batch { images: evaluation::ROWS.min(images), rows: 0.0, instruction: 0.0, prompt: 0.0, answer: 0.0 };
        let held = evaluation::IMAGES.min(images);
        let encoding = Pass { model, machine, batch: encoded };
        let asked = Batch {
            images: encoded.images,
            rows: evaluation::ROWS.min(rows),
            instruction: prompt,
            prompt,
            answer: 0.0,
        };
        let reading = Pass { model, machine, batch: asked };
        let mut work = encoding.vision().times((images / encoded.images.max(1.0)).ceil());
        let mut each = reading.text();
        each += self.step(asked, steps).times(steps);
        work += each.times((rows / asked.rows.max(1.0)).ceil());

        // Images are decoded while the device computes; texts are scored after it.
        let decoding = images * host::IMAGE_SECONDS / machine.cores + machine.copy(images * self.pixels());
        let seconds = machine.seconds(work).max(decoding) + rows * host::TEXT_SECONDS;
        let peak = self.subject.weights_bytes()
            + encoding.features() * held / encoded.images.max(1.0)
            + encoding
                .live(|tower| tower == Tower::Vision)
                .max(reading.live(|tower| tower != Tower::Vision) + self.cache(asked, steps))
            + asked.rows * self.beams * model.words * evaluation::LOGIT_BYTES;
        Need { time: Time { seconds, work, steps: 1.0 }, peak, setting: None }
    }

    /// Bytes of an image as it goes to the device.
    fn pixels(&self) -> f64 {
        const PATCH: f64 = 14.0;
        3.0 * (self.subject.model.patches - 1.0) * PATCH * PATCH
    }

    /// Stacks that run once for every token that is written.
    fn writers(model: &Model) -> impl Iterator<Item = &Stack> {
        model
            .stacks
            .iter()
            .filter(|stack| matches!(stack.kind, BlockKind::T5Decoder | BlockKind::Llama | BlockKind::Opt))
    }

    /// One step of the search, in the middle of `steps`.
    fn step(&self, batch: Batch, steps: f64) -> Work {
        let Subject { model, machine, .. } = self.subject;
        let tokens = batch.rows * self.beams;
        let mut work = Work::default();
        for stack in Self::writers(model) {
            // Keys and values of the encoder's states are there already.
            let runs = |reads: Reads| !(stack.kind == BlockKind::T5Decoder && reads == Reads::Sequence);
            let layers = model.layers.iter().filter(|layer| layer.kind == stack.kind && runs(layer.reads));
            let products: Work = layers.map(|layer| machine.product(tokens, layer.inputs, layer.outputs, 1.0)).sum();
            let cost = block_cost(stack.kind);
            let moved =
                tokens * (cost.forward_widths * stack.width + cost.forward_inners * stack.inner) * machine.bytes();
            let read = self.cache(batch, steps) / 2.0;
            let rest = cost.forward_launches * stack.blocks - products.launches;
            work += products;
            work += machine.traffic(moved * stack.blocks + read, rest.max(stack.blocks));
        }
        work += machine.product(tokens, model.word_width, model.words, 1.0);
        work += machine.traffic(tokens * model.words * evaluation::LOGIT_BYTES, evaluation::SEARCH_LAUNCHES);
        work += machine.syncs(evaluation::SEARCH_SYNCS);
        work
    }

    /// Bytes of keys and values at the end of a search.
    fn cache(&self, batch: Batch, steps: f64) -> f64 {
        let Subject { model, machine, .. } = self.subject;
        let read = model.queries + batch.prompt;
        let of = |stack: &Stack| {
            // A row's beams share what they read.
            let slots = read + steps * self.beams;
            2.0 * batch.rows * slots * stack.keys * stack.blocks * machine.bytes()
        };
        Self::writers(model).map(of).sum()
    }

    /// Time and memory of retrieval, with a matching model or with the model's own head.
    pub fn retrieval(&self, matcher: Option<&Model>, config: &RetrievalConfig) -> Need {
        let machine = &self.subject.machine;
        let model = matcher.unwrap_or(self.subject.model);
        let (images, captions) = self.size();
        let tokens = f64::from(config.text_tokens);
        let of = |images: f64, rows: f64| Pass {
            model,
            machine,
            batch: Batch { images, rows, instruction: tokens, prompt: 0.0, answer: 0.0 },
        };
        let interface = |tower: Tower| tower == Tower::Qformer;
        let block = evaluation::ROWS.min(images);
        let passes = (images / block.max(1.0)).ceil();
        // Contrastive: every image and every text once.
        let mut work = of(block, 0.0).vision().times(passes);
        work += of(block, block).forward(interface).times(passes);
        work += of(0.0, evaluation::ROWS).forward(interface).times((captions / evaluation::ROWS).ceil());
        if config.rerank > 0 && matcher.is_some() {
            // The best texts of each image and the best images of each text, image by image.
            let rerank = f64::from(config.rerank);
            let pairs = (images * rerank.min(captions) + captions * rerank.min(images)).min(images * captions);
            let chunks = (pairs / images.max(1.0) / evaluation::ROWS).ceil() * images;
            work += of(block, 0.0).vision().times(passes);
            work += of(1.0, pairs / chunks.max(1.0)).forward(interface).times(chunks);
            work += machine.syncs(chunks);
        }
        let decoding = 2.0 * images * host::IMAGE_SECONDS / machine.cores;
        let seconds = machine.seconds(work).max(decoding) + captions * host::TEXT_SECONDS;
        let pass = of(block, block);
        let own = matcher.map_or(0.0, |matcher| matcher.parameters * machine.bytes());
        let peak = self.subject.weights_bytes()
            + own
            + pass.features()
            + pass.live(|tower| tower == Tower::Vision).max(of(1.0, evaluation::ROWS).live(interface));
        Need { time: Time { seconds, work, steps: 1.0 }, peak, setting: None }
    }
}

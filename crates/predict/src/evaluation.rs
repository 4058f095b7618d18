//! What an evaluation takes: features of images, searches for answers, pairs of images and texts.

use ressa_experiment::{
    Asks, Task, Tower,
    aids::Aids,
    config::{AskingConfig, DataSource, RetrievalConfig},
    search,
};

use crate::{
    model::{BlockKind, Model, Reads, Stack},
    pass::{Batch, Pass},
    program::{evaluation, host, texts},
    shared::Known,
    stage::{Need, Subject, Time},
    work::Work,
};

/// Images and questions of a published benchmark, whole.
fn published(task: Task) -> (f64, f64) {
    let (images, items) = task.facts().published;
    (f64::from(images), f64::from(items))
}

/// An evaluation of one task.
pub(crate) struct Evaluated<'a> {
    pub subject: &'a Subject<'a>,
    pub task: Task,
    pub source: DataSource,
    /// Questions, or images for captions and retrieval, at most.
    pub items: f64,
    pub beams: f64,
    /// What changes what is asked.
    pub aids: Option<&'a Aids>,
    /// What is in the cache.
    pub known: Known,
}

/// The images that an evaluation looks at: their name, which tasks may share, and their number.
pub(crate) fn images_of(task: Task, source: DataSource, items: f64) -> (String, f64) {
    let (images, _) = size(task, source, items);
    let whole = published(task).0 == images;
    let name = match task {
        // OK-VQA asks about a part of VQAv2's images.
        Task::Vqav2 | Task::Okvqa if whole => "val2014".to_owned(),
        _ => format!("{task} {items}"),
    };
    (name, images)
}

/// Images and texts.
fn size(task: Task, source: DataSource, items: f64) -> (f64, f64) {
    let (images, rows) = match source {
        DataSource::Folder => published(task),
        // A scene of the embedded world has a few questions.
        DataSource::Shapes => (items / 4.0, items),
    };
    match task.asks() {
        Asks::Answer | Asks::Choice => {
            let share = (items / rows).min(1.0);
            (images * share, rows * share)
        }
        Asks::Caption => (images.min(items), images.min(items)),
        Asks::Match => {
            let images = images.min(items);
            (images, images * texts::CAPTIONS_PER_IMAGE)
        }
        Asks::Text => (0.0, if items > 0.0 { items } else { rows }),
    }
}

impl Evaluated<'_> {
    /// Images and texts.
    fn size(&self) -> (f64, f64) {
        size(self.task, self.source, self.items)
    }

    /// Seconds until so many images are where the device can take them.
    fn loading(&self, images: f64) -> f64 {
        let Subject { model, machine, .. } = self.subject;
        let (features, pixels) = (images * model.feature_bytes(machine.bytes()), images * model.pixel_bytes());
        match self.known {
            Known { features: true, .. } => machine.copy(features) + features / host::DISK_BYTES,
            Known { pixels: true, .. } => machine.copy(pixels) + pixels / host::DISK_BYTES,
            _ => machine.copy(pixels) + images * host::IMAGE_SECONDS / machine.cores,
        }
    }

    /// Seconds of the host for so many texts: tokens before, words and a score after.
    fn texts(&self, texts: f64) -> f64 {
        texts * (host::TEXT_SECONDS / self.subject.machine.cores + host::SCORE_SECONDS)
    }

    /// Time and memory of a task that writes. As in the program, what does not fit is tried with fewer prompts and images at once.
    pub fn generate(&self, asking: Option<&AskingConfig>, matcher: Option<&Model>) -> Need {
        let whole = self.searched(asking, matcher, 1);
        if crate::stage::fits(self.subject.machine.card, whole.peak) {
            return whole;
        }
        let fallback = Some(format!("at most {} prompts at a time", search::ROWS / search::SHRINK));
        Need { fallback, ..self.searched(asking, matcher, search::SHRINK) }
    }

    /// With so many times fewer prompts and images at once.
    fn searched(&self, asking: Option<&AskingConfig>, matcher: Option<&Model>, fewer: usize) -> Need {
        let Subject { model, machine, .. } = self.subject;
        let (images, items) = self.size();
        let rows = items * f64::from(self.aids.map_or(1, Aids::answers));
        let retrieved = self.aids.and_then(|aids| aids.retrieved.as_ref());
        let caption = self.task.asks() == Asks::Caption;
        let mean = if caption { texts::CAPTION } else { texts::ANSWER };
        let limit = asking.and_then(|asking| asking.max_new_tokens).unwrap_or(self.task.facts().tokens);
        let least = asking.and_then(|asking| asking.min_new_tokens).unwrap_or(0);
        let steps = (mean * texts::LONGEST).max(f64::from(least)).min(f64::from(limit));
        let instruction = if caption { texts::INSTRUCTION } else { texts::QUESTION };
        let prompt = instruction + retrieved.map_or(0.0, |retrieved| f64::from(retrieved.captions) * texts::CAPTION);

        let together = (search::ROWS / fewer) as f64;
        let encoded = Batch { images: together.min(images), rows: 0.0, instruction: 0.0, prompt: 0.0, answer: 0.0 };
        let held = ((search::IMAGES / fewer) as f64).min(images);
        let encoding = Pass { model, machine, batch: encoded };
        // The program takes as many prompts as have room if all answers are as long as they may be.
        let sizes = model.search_sizes(machine.bytes());
        let (tokens, beams) = ((model.queries + prompt) as u64, self.beams as u64);
        let bytes = search::SEARCH_BYTES / fewer as u64;
        let fitting = sizes.map_or(together, |s| (s.rows(bytes, tokens, u64::from(limit), beams) as f64).min(together));
        let asked = Batch { images: encoded.images, rows: fitting.min(rows), instruction, prompt, answer: 0.0 };
        let reading = Pass { model, machine, batch: asked };
        let mut work = Work::default();
        if !self.known.features {
            work += encoding.vision().times((images / encoded.images.max(1.0)).ceil());
        }
        let mut each = reading.reading();
        each += self.step(asked, steps).times(steps);
        work += each.times((rows / asked.rows.max(1.0)).ceil());
        if self.aids.is_some_and(Aids::denoises) {
            // Each copy is written out, or what is missing in it, before it is answered.
            let mut filling = reading.reading();
            filling += self.step(asked, texts::QUESTION).times(texts::QUESTION);
            work += filling.times((rows / asked.rows.max(1.0)).ceil());
        }
        if let Some(retrieved) = retrieved {
            work += self.contrastive(matcher.unwrap_or(model), images, f64::from(retrieved.pool), texts::CAPTION);
        }

        // Images are loaded while the device computes; texts are scored after it.
        let seconds = machine.seconds(work).max(self.loading(images)) + self.texts(rows);
        let row = sizes.map_or(0.0, |sizes| sizes.row_bytes(tokens, steps.ceil() as u64, beams) as f64);
        let connector = reading.live(|tower| tower == Tower::Connector);
        let compares = matcher.unwrap_or(model);
        let compared = retrieved.map_or(0.0, |config| self.compared(compares, f64::from(config.pool), held, together));
        let matcher = matcher.map_or(0.0, |matcher| matcher.parameters * machine.bytes());
        let peak = self.subject.weights_bytes()
            + matcher
            + model.feature_bytes(machine.bytes()) * held
            + encoding.live(|tower| tower == Tower::Vision).max(connector).max(asked.rows * row)
            + compared;
        Need { time: Time { seconds, work, steps: 1.0 }, peak, fallback: None }
    }

    /// Bytes of a pool's embeddings, and of their similarities to images that are computed at once with so many rows.
    fn compared(&self, model: &Model, pool: f64, images: f64, rows: f64) -> f64 {
        let of_image = pool * model.queries;
        let together = (rows * search::SIMILARITIES_OF_ROW as f64).max(of_image).min(images * of_image);
        (pool * texts::EMBEDDING + together) * self.subject.machine.bytes()
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
            let widths = evaluation::STEP_WIDTHS * stack.width + evaluation::STEP_INNERS * stack.inner;
            let moved = tokens * widths * machine.bytes();
            let read = self.cache(batch, steps);
            let crosses = if stack.kind == BlockKind::T5Decoder { 3.0 } else { 0.0 };
            let rest = (evaluation::STEP_LAUNCHES + crosses) * stack.blocks - products.launches;
            work += products;
            work += machine.traffic(moved * stack.blocks + read, rest.max(stack.blocks));
        }
        work += machine.product(tokens, model.word_width, model.words, 1.0);
        work += machine.traffic(tokens * model.words * search::LOGIT_BYTES as f64, evaluation::SEARCH_LAUNCHES);
        work += machine.syncs(evaluation::SEARCH_SYNCS);
        work
    }

    /// Bytes of keys and values that a step reads in the middle of a search.
    fn cache(&self, batch: Batch, steps: f64) -> f64 {
        let Subject { model, machine, .. } = self.subject;
        let read = model.queries + batch.prompt;
        let of = |stack: &Stack| {
            // A row's beams share what they read.
            let slots = read + steps * self.beams / 2.0;
            2.0 * batch.rows * slots * stack.keys * stack.blocks * machine.bytes()
        };
        Self::writers(model).map(of).sum()
    }

    /// Time and memory of the windows of a text, one after the other; of a text whose windows are not counted, as many as the test part of
    /// WikiText-2 has.
    pub fn text(&self, window: f64) -> Need {
        let Subject { model, machine, .. } = self.subject;
        let (_, windows) = self.size();
        // The image's positions are not there: what stands for them is taken off the window's prompt.
        let prompt = 1.0 - model.queries;
        let batch = Batch { images: 0.0, rows: 1.0, instruction: 0.0, prompt, answer: window };
        let pass = Pass { model, machine, batch };
        let is_language = |tower| tower == Tower::Language;
        let mut work = pass.forward(is_language).times(windows);
        work += machine.syncs(windows);
        let peak = self.subject.weights_bytes() + pass.live(is_language) + pass.logits() * search::LOGIT_BYTES as f64;
        Need { time: Time { seconds: machine.seconds(work), work, steps: 1.0 }, peak, fallback: None }
    }

    /// The pass of a model that compares images and texts over so many of each.
    fn comparing<'p>(&'p self, model: &'p Model, tokens: f64) -> impl Fn(f64, f64) -> Pass<'p> {
        move |images, rows| Pass {
            model,
            machine: &self.subject.machine,
            batch: Batch { images, rows, instruction: tokens, prompt: 0.0, answer: 0.0 },
        }
    }

    /// Every image and every text through a contrastive head, once.
    fn contrastive(&self, model: &Model, images: f64, captions: f64, tokens: f64) -> Work {
        let of = self.comparing(model, tokens);
        let connector = |tower: Tower| tower == Tower::Connector;
        let (block, together) = ((search::ROWS as f64).min(images), search::ROWS as f64);
        let passes = (images / block.max(1.0)).ceil();
        let mut work = of(block, 0.0).vision().times(passes);
        work += of(block, block).forward(connector).times(passes);
        work += of(0.0, together).forward(connector).times((captions / together).ceil());
        work
    }

    /// Time and memory of retrieval, with a matching model or with the model's own head.
    pub fn retrieval(&self, matcher: Option<&Model>, config: &RetrievalConfig) -> Need {
        let machine = &self.subject.machine;
        let model = matcher.unwrap_or(self.subject.model);
        let (images, captions) = self.size();
        let tokens = f64::from(config.text_tokens);
        let of = self.comparing(model, tokens);
        let connector = |tower: Tower| tower == Tower::Connector;
        let (block, together) = ((search::ROWS as f64).min(images), search::ROWS as f64);
        let passes = (images / block.max(1.0)).ceil();
        let mut work = self.contrastive(model, images, captions, tokens);
        if config.rerank > 0 && matcher.is_some() {
            // The best texts of each image and the best images of each text, image by image.
            let rerank = f64::from(config.rerank);
            let pairs = (images * rerank.min(captions) + captions * rerank.min(images)).min(images * captions);
            let chunks = (pairs / images.max(1.0) / together).ceil() * images;
            work += of(block, 0.0).vision().times(passes);
            work += of(1.0, pairs / chunks.max(1.0)).forward(connector).times(chunks);
            work += machine.syncs(chunks);
        }
        let seconds = machine.seconds(work).max(2.0 * self.loading(images)) + self.texts(captions);
        let pass = of(block, block);
        let own = matcher.map_or(0.0, |matcher| matcher.parameters * machine.bytes());
        let peak = self.subject.weights_bytes()
            + own
            + pass.features()
            + pass.live(|tower| tower == Tower::Vision).max(of(1.0, together).live(connector));
        Need { time: Time { seconds, work, steps: 1.0 }, peak, fallback: None }
    }
}

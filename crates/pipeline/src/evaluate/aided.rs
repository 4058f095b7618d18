//! Evaluations that change what is asked: captions before the prompt, perturbed questions, copies that are voted on.

use std::rc::Rc;

use ressa_data::{Benchmark, Processor, pool};
use ressa_eval::{
    Batching, CaptionPool, Copies, Filled, PredictOptions, Prediction, Prepared, fill, nearest, predict, retrieved,
    vote,
};
use ressa_experiment::{
    StageNode, Task,
    aids::Aids,
    config::{AskingConfig, DataConfig, DataSource, OkvqaConfig, RetrievalConfig, RetrievedConfig, SmoothingMethod},
};
use ressa_models::Retrieve;

use crate::{Executor, PipelineError, memory::retry_smaller, resident::identity};

/// Share of the time until everything is asked, where something is computed before.
const BEFORE: f64 = 0.4;

/// What an evaluation asks.
pub(super) struct Request<'a> {
    pub task: Task,
    pub items: usize,
    pub data: &'a DataConfig,
    pub asking: AskingConfig,
    pub okvqa: Option<&'a OkvqaConfig>,
    pub aids: &'a Aids,
    pub beams: usize,
}

/// Predictions of a task whose questions are perturbed, copied and filled in, behind captions of their images, in this order.
pub(super) fn predictions(
    executor: &mut Executor,
    node: &StageNode,
    asked: &Request<'_>,
    batching: &Batching,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, PipelineError> {
    let Request { task, items, data, asking, okvqa, aids, beams } = asked;
    let is_published = data.source == DataSource::Folder;
    let batching = Batching { features: executor.feature_cache(node, data)?, ..batching.clone() };
    let processor = executor.processor_of(node, *okvqa)?;
    let mut benchmark = Benchmark::load(data, *task, *items)?;
    if let Some(perturb) = &aids.perturb {
        benchmark = benchmark.perturbed(perturb);
    }
    let model = executor.evaluated(node)?;
    // Filling comes before retrieval; each has its part of the time.
    let halves = if aids.denoises() && aids.retrieved.is_some() { (0.5, 0.5) } else { (1.0, 0.0) };
    let mut before = |share: f64| progress(BEFORE * halves.0 * share);

    let filled = match &aids.smoothing {
        None => Filled { benchmark: benchmark.clone(), filled: Vec::new() },
        Some(config) if config.method == SmoothingMethod::SelfDenoised => retry_smaller(batching.rows, |rows| {
            let copies = Copies::new(&benchmark, config);
            Ok(fill(&*model, &processor, copies, config, &batching.shrunk(rows), executor.device, &mut before)?)
        })?,
        Some(config) => Copies::new(&benchmark, config).unfilled(config.method),
    };
    let worded = filled.benchmark.asked(asking);

    let captions = match &aids.retrieved {
        None => Vec::new(),
        Some(config) => {
            let retriever = Retriever { node, asked: (*task, *items), data, config, batching: &batching };
            let mut before = |share: f64| progress(BEFORE * (halves.1 + (1.0 - halves.1) * share));
            retriever.captions(executor, &*model, &processor, &benchmark, &mut before)?
        }
    };
    let prepared = match &aids.retrieved {
        None => Prepared::new(&processor, &worded, executor.device)?,
        Some(config) => {
            // Copies of an item ask about one image.
            let each = aids.answers().max(1) as usize;
            let behind = |at: usize, text: &str| config.prompt(&captions[at / each], text, is_published);
            Prepared::worded(&processor, &worded, &behind, executor.device)?
        }
    };
    let began = if aids.denoises() || aids.retrieved.is_some() { BEFORE } else { 0.0 };
    let mut predictions = retry_smaller(batching.rows, |rows| {
        let (asking, batching) = (asking.clone(), batching.shrunk(rows));
        let options = PredictOptions { beams: *beams, asking, published: is_published, batching };
        Ok(predict(&*model, &prepared, &options, &mut |share| progress(began + (1.0 - began) * share))?)
    })?;
    if let Some(config) = &aids.smoothing {
        predictions = vote(predictions, config.copies as usize, &filled.filled, &benchmark.asked(asking));
    }
    retrieved::record(&mut predictions, captions);
    Ok(predictions)
}

/// What retrieves captions.
struct Retriever<'a> {
    node: &'a StageNode,
    asked: (Task, usize),
    data: &'a DataConfig,
    config: &'a RetrievedConfig,
    batching: &'a Batching,
}

impl Retriever<'_> {
    /// Captions of each item's image, by the evaluated model or the matching model of the settings.
    fn captions(
        &self,
        executor: &mut Executor,
        model: &dyn Retrieve,
        processor: &Processor,
        benchmark: &Benchmark,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Vec<String>>, PipelineError> {
        let compute = self.node.stage.compute();
        let Some(folder) = &self.config.checkpoint else {
            let name = identity(&(&self.node.inputs, compute, self.data, self.config));
            let tokens = |caption: &str| Ok(processor.encode_qformer(caption)?);
            let pool = self.pool(executor, name, model, &tokens, processor.qformer_pad())?;
            return self.nearest(executor, (model, processor), &pool, benchmark, self.batching, progress);
        };
        let answer = identity(&(folder, compute, self.data, self.config, self.asked));
        if let Some(known) = executor.resident.retrieved.get(&answer) {
            return Ok(known.clone());
        }
        let matcher = executor.matcher(folder, compute)?;
        let name = identity(&(folder, compute, self.data, self.config));
        let longest = RetrievalConfig::default().text_tokens as usize;
        let tokens = |caption: &str| Ok(matcher.processor.tokenize_within(caption, true, longest)?);
        let model: &dyn Retrieve = matcher.model.as_ref();
        let pool = self.pool(executor, name, model, &tokens, matcher.processor.qformer_pad())?;
        // Its own images' features are not those of the evaluated model.
        let batching = Batching { features: None, ..self.batching.clone() };
        let found = self.nearest(executor, (model, &matcher.processor), &pool, benchmark, &batching, progress)?;
        executor.resident.retrieved.insert(answer, found.clone());
        Ok(found)
    }

    /// The pool with the embeddings of a model that `name` stands for.
    fn pool(
        &self,
        executor: &mut Executor,
        name: String,
        model: &dyn Retrieve,
        tokens: &dyn Fn(&str) -> Result<Vec<u32>, PipelineError>,
        pad: u32,
    ) -> Result<Rc<CaptionPool>, PipelineError> {
        if let Some((_, pool)) = executor.resident.pool.as_ref().filter(|(known, _)| *known == name) {
            return Ok(pool.clone());
        }
        let captions = pool(self.data, self.config)?;
        let tokens = captions.iter().map(|caption| tokens(&caption.text)).collect::<Result<Vec<_>, _>>()?;
        let pool = retry_smaller(self.batching.rows, |rows| {
            let batching = self.batching.shrunk(rows);
            Ok(CaptionPool::embed(model, captions.clone(), &tokens, pad, &batching, executor.device)?)
        })?;
        let pool = Rc::new(pool);
        executor.resident.pool = Some((name, pool.clone()));
        Ok(pool)
    }

    /// The captions of a pool that a model finds nearest to each image, whose pixels its processor makes.
    fn nearest(
        &self,
        executor: &Executor,
        (model, processor): (&dyn Retrieve, &Processor),
        pool: &CaptionPool,
        benchmark: &Benchmark,
        batching: &Batching,
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<Vec<String>>, PipelineError> {
        let images = Prepared::images_of(processor, benchmark, executor.device)?;
        retry_smaller(batching.rows, |rows| {
            let batching = batching.shrunk(rows);
            Ok(nearest(model, &images, pool, self.config.captions as usize, &batching, progress)?)
        })
    }
}

//! Running a model over a benchmark.

use ressa_data::Content;
use ressa_experiment::{
    Asks, Task,
    config::{AskingConfig, Repetition},
};
use ressa_models::{Layout, Retrieve, Search};
use tch::Tensor;

use crate::{
    Batching, Direction, EvalError, Prediction, Prepared, encoder::Encoder, likelihood, metrics::retrieval::rank,
    prediction::Aided, prepared::Block,
};

/// How answers and captions are searched for, and how much is computed at once.
#[derive(Clone, Debug)]
pub struct PredictOptions {
    /// Beams; 1 is greedy.
    pub beams: usize,
    /// The protocol; what it leaves open follows from the task and from `published`.
    pub asking: AskingConfig,
    /// Whether the benchmark is a published one, whose texts have more tokens than those of the embedded world.
    pub published: bool,
    /// How much is computed at once.
    pub batching: Batching,
}

impl Default for PredictOptions {
    /// For the embedded world: answers are one word, captions at most 29.
    fn default() -> Self {
        Self { beams: 1, asking: AskingConfig::default(), published: false, batching: Batching::default() }
    }
}

impl PredictOptions {
    /// The search of a task. Beam scores are length-penalised as in the reference: short answers favoured, captions averaged per token.
    fn search(&self, task: Task) -> Search {
        let is_caption = task.asks() == Asks::Caption;
        let tokens = match (is_caption, self.published) {
            (_, true) => task.facts().tokens,
            (true, false) => 32,
            (false, false) => 3,
        };
        let length_penalty = if is_caption { 1.0 } else { -1.0 };
        let asking = &self.asking;
        Search {
            max_new_tokens: asking.max_new_tokens.unwrap_or(tokens) as usize,
            min_new_tokens: asking.min_new_tokens.unwrap_or(0) as usize,
            beams: self.beams,
            length_penalty: asking.length_penalty.unwrap_or(length_penalty),
            repetition_penalty: asking.repetition_penalty.unwrap_or(1.0),
            penalize_prompt: asking.repetition_over == Repetition::PromptAndAnswer,
            ..Search::default()
        }
    }
}

/// Predicts every item of a prepared benchmark, in the benchmark's order. Image features are computed once per image.
///
/// `progress` is told the share done, 0 to 1.
///
/// # Errors
/// A model without the head that a task needs, or a failed tensor operation that libtorch reports as an error.
pub fn predict(
    model: &dyn Retrieve,
    prepared: &Prepared,
    options: &PredictOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    tch::no_grad(|| match prepared.task.asks() {
        Asks::Answer | Asks::Caption | Asks::Choice => generate(model, prepared, options, progress),
        Asks::Match => search_both_ways(model, prepared, &options.batching, progress),
        Asks::Text => Err(EvalError::NoText("it is taken of a text, not of a benchmark".to_owned())),
    })
}

fn generate(
    model: &dyn Retrieve,
    prepared: &Prepared,
    options: &PredictOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    let search = options.search(prepared.task);
    let mut likelihoods: Vec<Vec<f64>> = vec![Vec::new(); prepared.items.len()];
    let mut choose = |features: &Tensor, block: &Block| -> Result<(), EvalError> {
        for (item, found) in likelihood::of_block(model, features, prepared, block, &options.batching)? {
            likelihoods[item] = found;
        }
        Ok(())
    };
    let texts = answers(model, prepared, &search, &options.batching, &mut choose, progress)?;
    let texts = texts.iter().map(|tokens| prepared.processor.decode(tokens)).collect::<Result<Vec<_>, _>>()?;
    let found = texts.into_iter().zip(likelihoods).enumerate();
    Ok(found.filter_map(|(item, (text, likelihoods))| written(prepared, item, text, likelihoods)).collect())
}

/// The tokens that a model writes for each item, without the end; `seen` is shown the image features of each block after its items are answered.
pub(crate) fn answers(
    model: &dyn Retrieve,
    prepared: &Prepared,
    search: &Search,
    batching: &Batching,
    seen: &mut dyn FnMut(&Tensor, &Block) -> Result<(), EvalError>,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Vec<u32>>, EvalError> {
    let mut answers: Vec<Vec<u32>> = vec![Vec::new(); prepared.items.len()];
    let mut done = 0;
    let blocks = prepared.blocks(batching);
    let mut encoder = Encoder::new(prepared, &blocks, batching);
    let rows = rows_within(model, search, batching);
    for (number, block) in blocks.iter().enumerate() {
        let features = encoder.features(model, number)?;
        for batch in prepared.batches(block, batching, &rows) {
            let prompts = &batch.prompts;
            model.check_prompts(prompts)?;
            for (item, answer) in batch.items.iter().zip(model.answer(&features, prompts, search)?) {
                answers[*item] = answer.content().to_vec();
            }
            done += batch.items.len();
            progress(done as f64 / prepared.items.len() as f64);
        }
        seen(&features, block)?;
    }
    Ok(answers)
}

/// How many prompts of at most so many tokens, behind an image alone or a layout, a batch may hold.
fn rows_within(model: &dyn Retrieve, search: &Search, batching: &Batching) -> impl Fn(Option<&Layout>, usize) -> usize {
    let limit = model.search_sizes().zip(batching.search_bytes);
    let (images, steps, beams) = (model.image_tokens(), search.max_new_tokens as u64, search.beams as u64);
    let most = batching.rows;
    move |layout, tokens| match limit {
        Some((sizes, bytes)) => {
            let before = layout.map_or(images, Layout::tokens);
            most.min(sizes.rows(bytes, (before + tokens) as u64, steps, beams))
        }
        None => most,
    }
}

/// The prediction of an item that asks for text.
fn written(prepared: &Prepared, item: usize, prediction: String, log_likelihoods: Vec<f64>) -> Option<Prediction> {
    let tokens = prepared.choices[item].iter().flat_map(|choice| choice.options.iter().map(|ids| ids.len() as u32));
    let tokens = tokens.collect();
    let item = &prepared.items[item];
    let (id, aided) = (item.id.clone(), Aided::default());
    match item.content.clone() {
        Content::Question { text, answers, template } => {
            Some(Prediction::Answer { id, prompt: text, prediction, answers, template, aided })
        }
        Content::Caption { instruction, references, set } => {
            Some(Prediction::Caption { id, prompt: instruction, prediction, references, set, aided })
        }
        Content::Choice { text, options, answer, kinds, .. } => Some(Prediction::Choice {
            id,
            prompt: text,
            prediction,
            options,
            answer,
            log_likelihoods,
            tokens,
            kinds,
            aided,
        }),
        Content::Retrieval { .. } => None,
    }
}

fn search_both_ways(
    model: &dyn Retrieve,
    prepared: &Prepared,
    batching: &Batching,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Prediction>, EvalError> {
    let Similarities { values, order } = similarities(model, prepared, batching, &mut |_| (), progress)?;
    Ok(ranks(prepared, &order, &values, &values))
}

/// Contrastive similarities of all images and texts.
pub(crate) struct Similarities {
    /// Row by row, `[images, texts]`.
    pub values: Vec<f32>,
    /// The item of each column.
    pub order: Vec<usize>,
}

/// Similarity of an image and a text: the largest dot product of the text with any of the image's queries. `seen` is shown the image
/// features of each block.
pub(crate) fn similarities(
    model: &dyn Retrieve,
    prepared: &Prepared,
    batching: &Batching,
    seen: &mut dyn FnMut(&Tensor),
    progress: &mut dyn FnMut(f64),
) -> Result<Similarities, EvalError> {
    let head = || EvalError::NoRetrievalHead(prepared.task);
    let mut order = Vec::new();
    let mut images = Vec::new();
    let mut texts = Vec::new();
    let blocks = prepared.blocks(batching);
    let mut encoder = Encoder::new(prepared, &blocks, batching);
    for (number, block) in blocks.iter().enumerate() {
        let features = encoder.features(model, number)?;
        seen(&features);
        images.push(model.retrieval_images(&features).ok_or_else(head)?);
        for batch in prepared.batches(block, batching, &|_, _| batching.rows) {
            texts.push(model.retrieval_texts(&batch.prompts.qformer).ok_or_else(head)?);
            order.extend(batch.items);
        }
        progress((number + 1) as f64 / blocks.len() as f64);
    }
    if texts.is_empty() {
        return Err(EvalError::Empty(prepared.task));
    }
    let images = Tensor::cat(&images, 0);
    let texts = Tensor::cat(&texts, 0);
    let (image_count, queries, width) = images.size3()?;
    let products = images.view([image_count * queries, width]).matmul(&texts.transpose(0, 1));
    let similarity = products.view([image_count, queries, order.len() as i64]).amax(1, false);
    let similarity = similarity.to_device(tch::Device::Cpu).to_kind(tch::Kind::Float).contiguous();
    Ok(Similarities { values: Vec::try_from(similarity.view(-1))?, order })
}

/// Ranks from similarities `[images, texts]`, whose columns belong to the items in `order`: those that texts of an image are ranked by,
/// and those that images of a text are.
pub(crate) fn ranks(prepared: &Prepared, order: &[usize], of_texts: &[f32], of_images: &[f32]) -> Vec<Prediction> {
    let mut column = vec![0; order.len()];
    for (position, item) in order.iter().enumerate() {
        column[*item] = position;
    }
    let at = |similarity: &[f32], image: usize, item: usize| similarity[image * order.len() + column[item]];
    let mut predictions = Vec::new();
    for image in 0..prepared.images {
        let scores: Vec<f32> = (0..prepared.items.len()).map(|item| at(of_texts, image, item)).collect();
        let own = prepared.items.iter().enumerate().filter(|(_, item)| item.image == image).map(|(index, _)| index);
        if let Some(rank) = own.map(|item| rank(&scores, item)).min() {
            let id = format!("image-{image:05}");
            predictions.push(Prediction::Rank { id, direction: Direction::ImageToText, image, rank });
        }
    }
    for (index, item) in prepared.items.iter().enumerate() {
        let scores: Vec<f32> = (0..prepared.images).map(|image| at(of_images, image, index)).collect();
        predictions.push(Prediction::Rank {
            id: item.id.clone(),
            direction: Direction::TextToImage,
            image: item.image,
            rank: rank(&scores, item.image),
        });
    }
    predictions
}

//! Where the teacher's outputs come from, and in what form they are compared with.
//!
//! The teacher never changes, so what it says about the batch of a step is the same for every training that shares dense model, data, batch
//! sizes and seed. A [`TeacherStore`] keeps it; with [`Output::Top`] a step takes a few megabytes whatever the vocabulary.

use std::cell::OnceCell;

use ressa_experiment::config::DistillConfig;
use ressa_models::{Attended, ModelError, VisionLanguage};
use tch::{Device, Kind, Tensor};

use crate::{
    RestoreError,
    micro::{Exchange, MicroBatch},
    step::forced,
    traced::{Compared, Inside},
};

/// What a teacher says about a batch of rows.
#[derive(Debug)]
pub enum Output {
    /// Logits `[rows, tokens, vocabulary]`.
    Logits(Tensor),
    /// The most probable tokens only; all others count as one.
    Top {
        /// Token ids, i64 `[rows, tokens, k]`.
        ids: Tensor,
        /// Their log-probabilities at the temperature of the distillation, f32 `[rows, tokens, k]`.
        log_probabilities: Tensor,
    },
}

impl Output {
    /// In the form that the settings ask for.
    fn of(logits: Tensor, distill: &DistillConfig) -> Self {
        let Some(k) = distill.top_k.map(i64::from).filter(|&k| k < logits.size()[2]) else {
            return Output::Logits(logits);
        };
        let (log_probabilities, ids) =
            (logits / distill.temperature).log_softmax(-1, Kind::Float).topk(k, -1, true, true);
        Output::Top { ids, log_probabilities }
    }

    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        match self {
            Output::Logits(logits) => Output::Logits(change(logits)),
            Output::Top { ids, log_probabilities } => {
                Output::Top { ids: change(ids), log_probabilities: change(log_probabilities) }
            }
        }
    }

    /// Its tensors: one of logits, or ids and log-probabilities.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Output::Logits(logits) => vec![logits],
            Output::Top { ids, log_probabilities } => vec![ids, log_probabilities],
        }
    }

    /// From what [`Output::tensors`] gave.
    pub fn from_tensors(tensors: Vec<Tensor>) -> Option<Self> {
        let mut tensors = tensors.into_iter();
        match (tensors.next()?, tensors.next(), tensors.next()) {
            (logits, None, None) => Some(Output::Logits(logits)),
            (ids, Some(log_probabilities), None) => Some(Output::Top { ids, log_probabilities }),
            _ => None,
        }
    }

    /// One after the other, as rows of one.
    fn join(parts: &[Output]) -> Option<Self> {
        let tensors: Vec<Vec<&Tensor>> = parts.iter().map(Output::tensors).collect();
        let columns = (0..tensors.first()?.len()).map(|at| tensors.iter().map(|part| part[at]).collect::<Vec<_>>());
        Self::from_tensors(columns.map(|column| Tensor::cat(&column, 0)).collect())
    }
}

/// What a teacher says about a batch, or a part of one: about its questions and its captions.
#[derive(Debug, Default)]
pub struct TeacherOutputs {
    /// About the questions; nothing where there are none.
    pub questions: Option<Output>,
    /// About the captions; nothing where there are none.
    pub captions: Option<Output>,
    /// What it has inside about the questions. It is not kept.
    pub question_inside: Inside,
    /// The same about the captions.
    pub caption_inside: Inside,
    /// Attentions of its image encoder, for each block that is compared. They are not kept.
    pub image_maps: Vec<Vec<Attended>>,
}

/// Keeps what a teacher said about the batches of a training.
pub trait TeacherStore {
    /// What it said about the whole batch of a step, if that is known; on any device.
    fn get(&self, step: u32) -> Option<TeacherOutputs>;

    /// Keeps what it said about the whole batch of a step.
    fn put(&self, step: u32, taught: &TeacherOutputs);
}

/// Reads a teacher's weights.
type Load<'a> = Box<dyn Fn() -> Result<Box<dyn VisionLanguage>, ModelError> + 'a>;

/// Where a teacher's weights are.
enum Source<'a> {
    /// In memory, as somebody else's.
    Held(&'a dyn VisionLanguage),
    /// Outside, until the first batch about which nothing is known.
    Outside { load: Load<'a>, loaded: OnceCell<Box<dyn VisionLanguage>> },
}

/// How a student reads images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads {
    /// Tokens that stand for an image.
    pub image_tokens: usize,
    /// Whether another number of learned queries does, because prompts have no places for them and only answers are compared.
    pub any_queries: bool,
}

/// The teacher of a distillation.
pub struct Teacher<'a> {
    source: Source<'a>,
    /// Columns of its logits, where that is known without its weights.
    words: Option<u64>,
    /// Tokens of the tokenizer that student and teacher share, where that is known: columns behind them are padding.
    tokens: Option<u64>,
    /// What of reading images the teacher has to share with the student.
    reads: Option<Reads>,
    store: Option<&'a dyn TeacherStore>,
    /// The step that is under way, with what is known about its whole batch.
    known: Option<(u32, Option<TeacherOutputs>)>,
    /// What was said about the parts so far, on the host, to be kept.
    said: Vec<TeacherOutputs>,
}

impl<'a> Teacher<'a> {
    /// The dense model, asked at every step.
    pub fn new(model: &'a dyn VisionLanguage) -> Self {
        let words = model.search_sizes().map(|sizes| sizes.words);
        Self::of(Source::Held(model), words)
    }

    /// A model that `load` reads when it is needed: where nothing is remembered or its insides are compared before the first step, elsewhere at the first
    /// batch that nobody has asked about. `words` is the width of its logits, as its configuration says.
    pub fn outside(words: Option<u64>, load: impl Fn() -> Result<Box<dyn VisionLanguage>, ModelError> + 'a) -> Self {
        Self::of(Source::Outside { load: Box::new(load), loaded: OnceCell::new() }, words)
    }

    fn of(source: Source<'a>, words: Option<u64>) -> Self {
        Self { source, words, tokens: None, reads: None, store: None, known: None, said: Vec::new() }
    }

    /// The same, asked only about batches that nobody has asked about before.
    #[must_use]
    pub fn remembering(mut self, store: &'a dyn TeacherStore) -> Self {
        self.store = Some(store);
        self
    }

    /// The same where student and teacher share a tokenizer of so many tokens (one more than the largest id). Vocabularies that are padded to different widths
    /// are then compared over the columns that both have.
    #[must_use]
    pub fn of_tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// The columns of logits that are compared, the first so many, with a student of `wanted` columns; `None` where both have the same.
    ///
    /// # Errors
    /// Different widths of which nobody says that the rest is padding, or a width below the tokenizer's.
    pub(crate) fn common_words(&self, wanted: Option<u64>) -> Result<Option<i64>, RestoreError> {
        match (self.words, wanted, self.tokens) {
            (found, wanted, _) if found == wanted => Ok(None),
            (Some(found), Some(wanted), Some(tokens)) if found.min(wanted) >= tokens => {
                Ok(Some(found.min(wanted) as i64))
            }
            (Some(found), Some(wanted), Some(tokens)) => Err(RestoreError::FewerWords { found, wanted, tokens }),
            (found, wanted, _) => Err(RestoreError::other_words(found, wanted)),
        }
    }

    /// Sees that it reads images as the student does: now where it is needed at once, else when it is read.
    ///
    /// # Errors
    /// A teacher that cannot be read, or that reads images as another number of tokens.
    pub(crate) fn expect(&mut self, reads: Reads) -> Result<(), RestoreError> {
        self.reads = Some(reads);
        match (&self.source, self.store) {
            (Source::Outside { .. }, Some(_)) => Ok(()),
            _ => self.model().map(|_| ()),
        }
    }

    /// The model that teaches, read if it was not.
    ///
    /// # Errors
    /// As [`Teacher::expect`].
    pub(crate) fn model(&self) -> Result<&dyn VisionLanguage, RestoreError> {
        let model = match &self.source {
            Source::Held(model) => *model,
            Source::Outside { load, loaded } => match loaded.get() {
                Some(model) => model.as_ref(),
                None => {
                    let model = load()?;
                    let found = model.search_sizes().map(|sizes| sizes.words);
                    if found != self.words {
                        return Err(RestoreError::other_words(found, self.words));
                    }
                    loaded.get_or_init(|| model).as_ref()
                }
            },
        };
        let fits = |Reads { image_tokens, any_queries }| {
            image_tokens == model.image_tokens() || (any_queries && model.queries().is_some())
        };
        if self.reads.is_none_or(fits) { Ok(model) } else { Err(RestoreError::OtherReader) }
    }

    /// Before the parts of a step's batch, also when they are begun again.
    pub(crate) fn begin(&mut self, step: u32) {
        self.said.clear();
        if self.known.as_ref().is_none_or(|(known, _)| *known != step) {
            self.known = Some((step, self.store.and_then(|store| store.get(step))));
        }
    }

    /// What it says about the next part of the batch of the step that was begun.
    ///
    /// # Errors
    /// As [`Teacher::expect`], where it is read only now.
    pub(crate) fn taught(
        &mut self,
        part: &MicroBatch,
        distill: &DistillConfig,
        compared: &Compared,
    ) -> Result<TeacherOutputs, RestoreError> {
        if !compared.is_empty() {
            let model = self.model()?;
            let (features, image_maps) = compared.ask_images(model, &part.pixels);
            let said = |exchange: &Exchange| {
                let (forced, inside) = compared.ask(model, &features, exchange)?;
                Some((Output::of(compared.in_common(forced.logits), distill), inside))
            };
            let (questions, question_inside) = said(&part.questions).unzip();
            let (captions, caption_inside) = said(&part.captions).unzip();
            let [question_inside, caption_inside] = [question_inside, caption_inside].map(Option::unwrap_or_default);
            return Ok(TeacherOutputs { questions, captions, question_inside, caption_inside, image_maps });
        }
        if let Some((_, Some(whole))) = &self.known
            && let Some(taught) = part_of(whole, part)
        {
            return Ok(taught);
        }
        let model = self.model()?;
        let features = crate::batch::features(model, &part.pixels);
        let output = |exchange: &Exchange| {
            forced(model, &features, exchange).map(|forced| Output::of(compared.in_common(forced.logits), distill))
        };
        let (questions, captions) = (output(&part.questions), output(&part.captions));
        let taught = TeacherOutputs { questions, captions, ..TeacherOutputs::default() };
        if self.store.is_some() {
            let on_host = |output: &Option<Output>| output.as_ref().map(|o| o.map(|t| t.to_device(Device::Cpu)));
            let (questions, captions) = (on_host(&taught.questions), on_host(&taught.captions));
            self.said.push(TeacherOutputs { questions, captions, ..TeacherOutputs::default() });
        }
        Ok(taught)
    }

    /// After the last part of a step's batch.
    pub(crate) fn end(&mut self, step: u32) {
        let said = std::mem::take(&mut self.said);
        let Some(store) = self.store.filter(|_| !said.is_empty()) else { return };
        let (questions, captions): (Vec<_>, Vec<_>) = said.into_iter().map(|t| (t.questions, t.captions)).unzip();
        let join = |parts: Vec<Option<Output>>| Output::join(&parts.into_iter().flatten().collect::<Vec<_>>());
        let (questions, captions) = (join(questions), join(captions));
        let outputs = TeacherOutputs { questions, captions, ..TeacherOutputs::default() };
        store.put(step, &outputs);
        // The same step may be gone through again, as for the gradients of an exchange.
        self.known = Some((step, Some(outputs)));
    }
}

/// The rows of a part, on its device; nothing where what is known does not fit the batch.
fn part_of(whole: &TeacherOutputs, part: &MicroBatch) -> Option<TeacherOutputs> {
    let device = part.pixels.device();
    let rows = |output: &Option<Output>, exchange: &Exchange| -> Option<Option<Output>> {
        if exchange.answers.is_empty() {
            return Some(None);
        }
        let output = output.as_ref()?;
        let (first, count) = (exchange.first, exchange.answers.len() as i64);
        let fits = output.tensors().iter().all(|t| t.dim() == 3 && t.size()[0] >= first + count);
        fits.then(|| Some(output.map(|tensor| tensor.narrow(0, first, count).to_device(device))))
    };
    Some(TeacherOutputs {
        questions: rows(&whole.questions, &part.questions)?,
        captions: rows(&whole.captions, &part.captions)?,
        ..TeacherOutputs::default()
    })
}

//! What the rest of the program needs of a vision-language model, whatever its family.

use std::sync::Arc;

use ressa_experiment::search::SearchSizes;
use ressa_runtime::Device;
use tch::{Kind, Tensor};

use crate::{Layout, Linear, ModelError, Search, TokenKind, Weight, linear::LayerId};

/// The two images of text that an instructed model reads, and token ids padded on the right.
#[derive(Debug)]
pub struct TextBatch {
    /// Token ids, i64 `[rows, tokens]`.
    pub ids: Tensor,
    /// True where a token is real, bool `[rows, tokens]`.
    pub mask: Tensor,
    /// The rows on the host, where they came from there: reading them back would wait for the device.
    rows: Option<Arc<[Vec<u32>]>>,
    /// What stands before every row, the image's places in it; nothing where the image comes first and alone.
    layout: Option<Arc<Layout>>,
}

impl TextBatch {
    /// From tensors; `mask` is true on a prefix of each row.
    pub fn new(ids: Tensor, mask: Tensor) -> Self {
        Self { ids, mask, rows: None, layout: None }
    }

    /// The rows from `from` on, padded as they are.
    pub fn narrow(&self, from: i64, count: i64) -> Self {
        let part = from as usize..(from + count) as usize;
        let rows = self.rows.as_ref().map(|rows| rows[part].into());
        let layout = self.layout.clone();
        Self { ids: self.ids.narrow(0, from, count), mask: self.mask.narrow(0, from, count), rows, layout }
    }

    /// A second handle on the same tokens.
    pub fn shallow_clone(&self) -> Self {
        Self {
            ids: self.ids.shallow_clone(),
            mask: self.mask.shallow_clone(),
            rows: self.rows.clone(),
            layout: self.layout.clone(),
        }
    }

    /// Texts with what stands before them, padded on the right with `pad`: the same for all, `None` where rows differ in it.
    pub fn prompts(rows: Vec<(Option<Layout>, Vec<u32>)>, pad: u32, device: Device) -> Option<Self> {
        let (layouts, rows): (Vec<Option<Layout>>, Vec<Vec<u32>>) = rows.into_iter().unzip();
        let mut layouts = layouts.into_iter();
        let layout = layouts.next().flatten();
        if layouts.any(|other| other != layout) {
            return None;
        }
        Some(Self::pad(&rows, pad, device).behind(layout.map(Arc::new)))
    }

    /// The same rows behind a layout.
    #[must_use]
    pub fn behind(self, layout: Option<Arc<Layout>>) -> Self {
        Self { layout, ..self }
    }

    /// What stands before every row.
    pub fn layout(&self) -> Option<&Layout> {
        self.layout.as_deref()
    }

    /// The real tokens of each row, on the host.
    pub(crate) fn on_host(&self) -> Arc<[Vec<u32>]> {
        if let Some(rows) = &self.rows {
            return Arc::clone(rows);
        }
        let width = self.ids.size()[1] as usize;
        let ids = crate::generate::ids(&self.ids);
        let real = crate::generate::ids(&self.mask.sum_dim_intlist(1, false, Kind::Int64));
        let row = |(row, &real): (usize, &i64)| {
            ids[row * width..row * width + real as usize].iter().map(|&id| id as u32).collect()
        };
        real.iter().enumerate().map(row).collect()
    }

    /// Pads rows on the right with `pad`. At least one token wide.
    pub fn pad(rows: &[Vec<u32>], pad: u32, device: Device) -> Self {
        Self::pad_to(1, rows, pad, device)
    }

    /// As [`TextBatch::pad`], at least `width` tokens wide.
    pub fn pad_to(width: usize, rows: &[Vec<u32>], pad: u32, device: Device) -> Self {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(width).max(1);
        let mut ids = vec![i64::from(pad); rows.len() * width];
        let mut mask = vec![false; rows.len() * width];
        for (r, row) in rows.iter().enumerate() {
            for (t, &id) in row.iter().enumerate() {
                ids[r * width + t] = i64::from(id);
                mask[r * width + t] = true;
            }
        }
        let shape = [rows.len() as i64, width as i64];
        Self {
            ids: Tensor::from_slice(&ids).view(shape).to_device(device),
            mask: Tensor::from_slice(&mask).view(shape).to_device(device),
            rows: Some(rows.into()),
            layout: None,
        }
    }
}

/// A batch of instructions over images: several rows may ask about the same image, whose features are computed once.
#[derive(Debug)]
pub struct Prompts {
    /// Row of the image features each prompt is about, i64 `[rows]`.
    pub image: Tensor,
    /// The instruction as the Q-Former reads it.
    pub qformer: TextBatch,
    /// The instruction as the language model reads it, without image positions.
    pub language: TextBatch,
}

/// Answers to the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub struct AnswerBatch<'a> {
    /// Tokens of each answer, without start and end.
    pub rows: &'a [Vec<u32>],
    /// Least number of tokens to pad to, the end token included: that of the batch that these rows are a part of.
    pub width: usize,
}

impl<'a> AnswerBatch<'a> {
    /// Answers that are a batch of their own.
    pub fn whole(rows: &'a [Vec<u32>]) -> Self {
        Self { rows, width: 0 }
    }
}

/// Target tokens of a batch.
#[derive(Debug)]
pub struct Targets {
    /// Target ids, i64 `[rows, tokens]`: the answer and its end token, padded.
    pub ids: Tensor,
    /// True where a target counts, bool `[rows, tokens]`.
    pub mask: Tensor,
}

/// What a tower is entered with.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// The image encoder: pixels `[images, 3, height, width]`.
    Pixels(&'a Tensor),
    /// The interface: image features `[images, tokens, width]` and the instructions about them.
    Features {
        /// What left the image encoder.
        features: &'a Tensor,
        /// The instructions.
        prompts: &'a Prompts,
    },
    /// The language model: the visual prefix `[rows, queries, language width]`, the instructions, and the answers that are forced.
    Prefix {
        /// What left the interface.
        prefix: &'a Tensor,
        /// The instructions as the language model reads them.
        prompt: &'a TextBatch,
        /// The answers.
        answers: AnswerBatch<'a>,
    },
}

/// Teacher-forced outputs.
#[derive(Debug)]
pub struct Forced {
    /// Logits that predict each target token, `[rows, tokens, vocabulary]`.
    pub logits: Tensor,
    /// Target ids, i64 `[rows, tokens]`: the answer and its end token, padded.
    pub targets: Tensor,
    /// True where a target counts, bool `[rows, tokens]`.
    pub mask: Tensor,
}

impl Forced {
    /// Mean cross entropy over the targets that count, a scalar, computed in f32 whatever the logits' type.
    pub fn loss(&self) -> Tensor {
        let vocabulary = self.logits.size()[2];
        let picked = self.targets.masked_fill(&self.mask.logical_not(), -100);
        self.logits.reshape([-1, vocabulary]).to_kind(Kind::Float).cross_entropy_loss::<Tensor>(
            &picked.reshape([-1]),
            None,
            tch::Reduction::Mean,
            -100,
            0.0,
        )
    }
}

/// What a search found for one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// New tokens, up to and including the first end token.
    pub tokens: Vec<u32>,
    /// Whether the last token is an end token; otherwise the answer is as long as it may be.
    pub ended: bool,
}

impl Answer {
    pub(crate) fn new(tokens: &[i64], ended: bool) -> Self {
        Self { tokens: tokens.iter().map(|&id| id as u32).collect(), ended }
    }

    /// The tokens without the end token.
    pub fn content(&self) -> &[u32] {
        &self.tokens[..self.tokens.len() - usize::from(self.ended && !self.tokens.is_empty())]
    }
}

/// One calibration sample.
#[derive(Debug)]
pub struct Sample {
    /// Pixels `[1, 3, height, width]`.
    pub pixels: Tensor,
    /// The instruction.
    pub prompt: Prompts,
    /// The answer's tokens without start and end, one row.
    pub answer: Vec<u32>,
}

/// A vision-language model whose language side answers from an image prefix and an instruction.
///
/// Implementors are cheap to clone (`shallow_clone`): weights are shared, masks and adapters are not.
pub trait VisionLanguage: Send {
    /// Whether there is a language model. Without one, `project`, `visual_prefix` and everything about answers must not be asked for.
    fn writes(&self) -> bool {
        true
    }

    /// Whether the model writes answers and prompts fit into the positions that it has. What is asked about prompts that do not fit may panic.
    ///
    /// # Errors
    /// How many tokens there are, and how many there may be.
    fn check_prompts(&self, _prompts: &Prompts) -> Result<(), ModelError> {
        Ok(())
    }

    /// Image features `[images, tokens, width]` after the vision tower's last norm, from pixels `[images, 3, height, width]`.
    fn encode_images(&self, pixels: &Tensor) -> Tensor;

    /// Outputs of the interface's queries, `[rows, queries, interface width]`.
    fn query_output(&self, features: &Tensor, prompts: &Prompts) -> Tensor;

    /// Projects query outputs into the language model's embedding space, `[rows, queries, language width]`.
    fn project(&self, queries: &Tensor) -> Tensor;

    /// Image positions `[rows, queries, language width]` in their places among the words before a row's own text; as they are where no such
    /// words are.
    fn place_images(&self, states: Tensor, prompt: &TextBatch) -> Tensor {
        let _ = prompt;
        states
    }

    /// What the language model reads before a row's own text, `[rows, tokens, language width]`.
    fn visual_prefix(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.place_images(self.project(&self.query_output(features, prompts)), &prompts.language)
    }

    /// Embeddings `[..., width]` that the language model has of token ids `[...]`; `None` where there is none.
    fn word_embeddings(&self, ids: &Tensor) -> Option<Tensor> {
        let _ = ids;
        None
    }

    /// Teacher-forced logits. `prefix` is `None` for text without an image; `answers` have neither start nor end token.
    fn force(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> Forced {
        self.force_padded(prefix, prompt, AnswerBatch::whole(answers))
    }

    /// As [`VisionLanguage::force`], with answers that may be a part of a wider batch.
    fn force_padded(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: AnswerBatch<'_>) -> Forced;

    /// `force`, and the hidden states after each block that reads the instruction, `[rows, prefix + prompt tokens, width]` each
    /// (T5: the encoder's blocks; decoder-only: all blocks, answer positions cut off).
    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>);

    /// The answer to each row.
    ///
    /// # Errors
    /// A row whose prompt leaves no room under `search.max_length`; a model that does not write.
    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError>;

    /// The answer to each row of prompts about images of these features: [`VisionLanguage::visual_prefix`] and [`VisionLanguage::generate`],
    /// except that a prefix that is the same for all questions on an image is read once.
    ///
    /// # Errors
    /// As [`VisionLanguage::generate`].
    fn answer(&self, features: &Tensor, prompts: &Prompts, search: &Search) -> Result<Vec<Answer>, ModelError> {
        self.generate(&self.visual_prefix(features, prompts), &prompts.language, search)
    }

    /// Sizes that the memory of a search follows from; `None` where it is of no account.
    fn search_sizes(&self) -> Option<SearchSizes> {
        None
    }

    /// Positions that a decoder-only language model has for a text; `None` where the text is read by an encoder, or by nothing.
    fn text_positions(&self) -> Option<usize> {
        None
    }

    /// Tokens that stand for an image in the language model.
    fn image_tokens(&self) -> usize {
        0
    }

    /// Unit-norm embeddings of images for retrieval `[images, queries, d]`; `None` without a retrieval head.
    fn retrieval_images(&self, features: &Tensor) -> Option<Tensor>;

    /// Unit-norm embeddings of texts for retrieval `[texts, d]`; `None` without a retrieval head.
    fn retrieval_texts(&self, texts: &TextBatch) -> Option<Tensor>;

    /// How well captions fit images: the matching head's logit for "fits", averaged over the queries, f32 `[rows]`. Row `r` reads
    /// `captions`' row `r` and looks at image `images[r]` (i64 `[rows]`) of the features `[images, tokens, width]`. `None` without a
    /// matching head.
    fn matching_scores(&self, features: &Tensor, images: &Tensor, captions: &TextBatch) -> Option<Tensor> {
        let _ = (features, images, captions);
        None
    }

    /// This model with the image encoder of another one, as that one computes with masks and adapters applied; its positions are
    /// interpolated to this model's image size. Shares all other weights with this model.
    ///
    /// # Errors
    /// An image encoder of another shape, or a model that takes none.
    fn with_vision_of(&self, other: &dyn VisionLanguage) -> Result<Box<dyn VisionLanguage>, ModelError> {
        let _ = other;
        Err(ModelError::Config("this model cannot take another image encoder".to_owned()))
    }

    /// Every prunable linear with its place, in the order of execution: vision blocks, Q-Former layers, language blocks.
    fn linears(&self) -> Vec<(&LayerId, &Linear)>;

    /// The same, to change masks, adapters or weights.
    fn linears_mut(&mut self) -> Vec<(&LayerId, &mut Linear)>;

    /// Makes the projection into the language model a layer of the connector, its last block: prunable, and pruned by masks that name it. Answers
    /// whether there is one that was not prunable before; a connector may end in prunable layers.
    fn join_projection(&mut self) -> bool {
        false
    }

    /// Linears between the towers that are not pruned and can be updated: the projection into the language model, heads of retrieval.
    fn connectors(&self) -> Vec<&Linear> {
        Vec::new()
    }

    /// The learned queries of the interface `[1, queries, width]`; `None` where it has none.
    fn queries(&self) -> Option<&Weight> {
        None
    }

    /// Every weight that masks or updates can sit on: of prunable linears, of norms, of what connects the towers, learned queries; biases
    /// among them.
    fn weights(&self) -> Vec<&Weight> {
        self.linears().into_iter().flat_map(|(_, linear)| linear.weights()).collect()
    }

    /// Gains and shifts of a tower's norms, those before its first block and after its last among them.
    fn norms(&self, tower: crate::Tower) -> Vec<&Weight> {
        let _ = tower;
        Vec::new()
    }

    /// Weights that [`VisionLanguage::run_block`] reads: of the block's linears and norms, biases among them. T5's last encoder block also runs the
    /// encoder's last norm.
    fn block_weights(&self, tower: crate::Tower, block: usize) -> Vec<&Weight> {
        let linears = self.linears().into_iter().filter(|(id, _)| (id.tower, id.block) == (tower, block));
        linears.flat_map(|(_, linear)| linear.weights()).collect()
    }

    /// The same, to change.
    fn weights_mut(&mut self) -> Vec<&mut Weight> {
        self.linears_mut().into_iter().flat_map(|(_, linear)| linear.weights_mut()).collect()
    }

    /// Blocks of a tower, in the order they run (T5: encoder, then decoder).
    fn blocks(&self, tower: crate::Tower) -> usize;

    /// What enters the first block of a tower for a sample. Runs the towers below with their current weights.
    fn enter(&self, tower: crate::Tower, sample: &Sample) -> Flow {
        let Sample { pixels, prompt, answer } = sample;
        if tower == crate::Tower::Vision {
            return self.enter_from(Entry::Pixels(pixels));
        }
        let features = self.encode_images(pixels);
        if tower == crate::Tower::Connector {
            return self.enter_from(Entry::Features { features: &features, prompts: prompt });
        }
        let prefix = self.visual_prefix(&features, prompt);
        let answers = AnswerBatch::whole(std::slice::from_ref(answer));
        self.enter_from(Entry::Prefix { prefix: &prefix, prompt: &prompt.language, answers })
    }

    /// What enters the first block of a tower, from what [`VisionLanguage::leave`] gave for the tower below. Differentiable in what it is
    /// made of.
    fn enter_from(&self, entry: Entry<'_>) -> Flow;

    /// What leaves a tower, from what left its last block: image features, the language model's prefix (the queries' outputs where there is
    /// none), logits of the answers. Differentiable.
    fn leave(&self, tower: crate::Tower, flow: &Flow) -> Tensor;

    /// Flows at the entry of the same tower as one flow whose rows do not see each other; `None` where their shapes differ.
    fn stack(&self, tower: crate::Tower, flows: &[Flow]) -> Option<Flow> {
        let _ = (tower, flows);
        None
    }

    /// What the logits that the language model leaves with are to predict.
    fn targets(&self, answers: &AnswerBatch<'_>) -> Targets;

    /// Runs one block of a tower. Calling it with a live tap shows the tap this block's inputs.
    fn run_block(&self, tower: crate::Tower, block: usize, flow: &Flow) -> Flow;

    /// What the tokens are that enter a block with `flow`.
    fn token_kinds(&self, tower: crate::Tower, block: usize, flow: &Flow) -> Vec<TokenKind> {
        let _ = (tower, block);
        TokenKind::parts(&[(TokenKind::Text, flow.hidden.size()[1])])
    }

    /// What the tokens are that a layer reads when its block runs on `flow`: all that enter the block, some of them, or, where it looks at
    /// something else, that (image features, encoder memory).
    fn layer_tokens(&self, layer: &LayerId, flow: &Flow) -> Vec<TokenKind> {
        self.token_kinds(layer.tower, layer.block, flow)
    }

    /// A second model over the same weights, with its own masks, adapters and taps.
    fn shallow_clone(&self) -> Box<dyn VisionLanguage>;

    /// Every tensor by its name in the checkpoint, sharing storage. Linears give their own weight, without mask and adapter.
    fn tensors(&self) -> crate::TensorMap;
}

/// Activations between two blocks of a tower, for a sample, a batch or several samples of one shape, with what the tower's later blocks also need
/// (position bias, encoder output, rotary tables).
#[derive(Debug)]
pub struct Flow {
    /// Hidden states `[rows, tokens, width]`.
    pub hidden: Tensor,
    /// Tower-specific companions, in an order only the model knows.
    pub(crate) context: Vec<Tensor>,
    /// The companion that depends on earlier towers or blocks, and so can have a gradient.
    pub(crate) carried: Option<usize>,
}

impl Flow {
    /// A flow of what [`Flow::companions`] and `hidden` gave.
    pub fn from_parts(hidden: Tensor, companions: Vec<Tensor>) -> Self {
        Self { hidden, context: companions, carried: None }
    }

    /// What goes along with the hidden states: most blocks hand it on as it is.
    pub fn companions(&self) -> &[Tensor] {
        &self.context
    }

    /// The same activations on a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let companions = self.context.iter().map(|tensor| tensor.to_device(device)).collect();
        Self { hidden: self.hidden.to_device(device), context: companions, carried: self.carried }
    }

    /// Whether two flows can be rows of one.
    fn is_like(&self, other: &Self) -> bool {
        let alike = |a: &Tensor, b: &Tensor| a.kind() == b.kind() && a.size() == b.size();
        let companions = || self.context.iter().zip(&other.context).all(|(a, b)| alike(a, b));
        alike(&self.hidden, &other.hidden) && self.context.len() == other.context.len() && companions()
    }

    /// Flows of one shape as the rows of one. Companions from `shared` on are the same for all and taken once.
    pub(crate) fn stack(flows: &[Self], shared: usize) -> Option<Self> {
        let first = flows.first()?;
        if !flows.iter().all(|flow| flow.is_like(first)) {
            return None;
        }
        let rows = |of: &dyn Fn(&Self) -> Tensor| Tensor::cat(&flows.iter().map(of).collect::<Vec<_>>(), 0);
        let context = (0..first.context.len()).map(|at| match at < shared {
            true => rows(&|flow| flow.context[at].shallow_clone()),
            false => first.context[at].shallow_clone(),
        });
        let hidden = rows(&|flow| flow.hidden.shallow_clone());
        Some(Self { hidden, context: context.collect(), carried: first.carried })
    }

    /// A second handle on the same activations.
    pub fn shallow_clone(&self) -> Self {
        let companions = self.context.iter().map(Tensor::shallow_clone).collect();
        Self { hidden: self.hidden.shallow_clone(), context: companions, carried: self.carried }
    }

    /// The same companions with other hidden states.
    pub(crate) fn with_hidden(&self, hidden: Tensor) -> Self {
        Self { hidden, ..self.shallow_clone() }
    }

    /// The companion that depends on earlier towers or blocks.
    pub fn carried(&self) -> Option<&Tensor> {
        self.carried.and_then(|at| self.context.get(at))
    }

    /// The same values without their autograd graph.
    pub fn detached(&self) -> Self {
        let context = self.context.iter().map(Tensor::detach).collect();
        Self { hidden: self.hidden.detach(), context, carried: self.carried }
    }

    /// The same values as leaves: hidden states and the carried companion require gradients as `wanted` says.
    pub(crate) fn leaf(&self, wanted: (bool, bool)) -> Self {
        let mut leaf = self.detached();
        leaf.hidden = leaf.hidden.set_requires_grad(wanted.0);
        if let Some(carried) = leaf.carried.and_then(|at| leaf.context.get_mut(at)) {
            *carried = carried.set_requires_grad(wanted.1);
        }
        leaf
    }

    /// Of hidden states and carried companion, those that require gradients, in this order.
    pub fn wanting(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.hidden).chain(self.carried()).filter(|tensor| tensor.requires_grad())
    }
}

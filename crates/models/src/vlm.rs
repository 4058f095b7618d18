//! What the rest of the program needs of a vision-language model, whatever its family.

use ressa_runtime::Device;
use tch::Tensor;

use crate::{Linear, ModelError, Search, TokenKind, linear::LayerId};

/// The two images of text that an instructed model reads, and token ids padded on the right.
#[derive(Debug)]
pub struct TextBatch {
    /// Token ids, i64 `[rows, tokens]`.
    pub ids: Tensor,
    /// True where a token is real, bool `[rows, tokens]`.
    pub mask: Tensor,
}

impl TextBatch {
    /// Pads rows on the right with `pad`. At least one token wide.
    pub fn pad(rows: &[Vec<u32>], pad: u32, device: Device) -> Self {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
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
    /// Mean cross entropy over the targets that count, a scalar.
    pub fn loss(&self) -> Tensor {
        let vocabulary = self.logits.size()[2];
        let picked = self.targets.masked_fill(&self.mask.logical_not(), -100);
        self.logits.reshape([-1, vocabulary]).cross_entropy_loss::<Tensor>(
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

    /// Whether prompts fit into the positions that the model has. What is asked about prompts that do not fit may panic.
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

    /// What the interface hands to the language model, `[rows, queries, language width]`.
    fn visual_prefix(&self, features: &Tensor, prompts: &Prompts) -> Tensor {
        self.project(&self.query_output(features, prompts))
    }

    /// Teacher-forced logits. `prefix` is `None` for text without an image; `answers` have neither start nor end token.
    fn force(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> Forced;

    /// `force`, and the hidden states after each block that reads the instruction, `[rows, prefix + prompt tokens, width]` each
    /// (T5: the encoder's blocks; decoder-only: all blocks, answer positions cut off).
    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>);

    /// The answer to each row.
    ///
    /// # Errors
    /// A row whose prompt leaves no room under `search.max_length`; a model that does not write.
    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError>;

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

    /// Blocks of a tower, in the order they run (T5: encoder, then decoder).
    fn blocks(&self, tower: crate::Tower) -> usize;

    /// What enters the first block of a tower for a sample. Runs the towers below with their current weights.
    fn enter(&self, tower: crate::Tower, sample: &Sample) -> Flow {
        let Sample { pixels, prompt, answer } = sample;
        if tower == crate::Tower::Vision {
            return self.enter_from(Entry::Pixels(pixels));
        }
        let features = self.encode_images(pixels);
        if tower == crate::Tower::Qformer {
            return self.enter_from(Entry::Features(&features, prompt));
        }
        self.enter_from(Entry::Prefix(&self.visual_prefix(&features, prompt), prompt, answer))
    }

    /// What enters the first block of a tower, from what [`VisionLanguage::leave`] gave for the tower below.
    fn enter_from(&self, entry: Entry<'_>) -> Flow;

    /// What a tower hands to the next one, from what left its last block: image features, or the language model's prefix (the queries' outputs
    /// where there is none). Nothing for the language model.
    fn leave(&self, tower: crate::Tower, flow: &Flow) -> Option<Tensor> {
        let _ = (tower, flow);
        None
    }

    /// Flows at the entry of the same tower as one flow whose rows do not see each other; `None` where their shapes differ.
    fn stack(&self, tower: crate::Tower, flows: &[Flow]) -> Option<Flow> {
        let _ = (tower, flows);
        None
    }

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

/// What a tower makes its first block's input of, for one sample.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// The image encoder: pixels `[1, 3, height, width]`.
    Pixels(&'a Tensor),
    /// The Q-Former: image features `[images, tokens, width]`, and the instruction.
    Features(&'a Tensor, &'a Prompts),
    /// The language model: the prefix `[1, queries, width]`, the instruction, and the answer's tokens without start and end.
    Prefix(&'a Tensor, &'a Prompts, &'a [u32]),
}

/// Activations between two blocks of a tower, for one sample or for several of the same shape, with what the tower's later blocks also need
/// (position bias, encoder output, rotary tables).
#[derive(Debug)]
pub struct Flow {
    /// Hidden states `[samples, tokens, width]`.
    pub hidden: Tensor,
    /// Tower-specific companions, in an order only the model knows.
    pub(crate) context: Vec<Tensor>,
}

impl Flow {
    /// A flow of what [`Flow::companions`] and `hidden` gave.
    pub fn from_parts(hidden: Tensor, companions: Vec<Tensor>) -> Self {
        Self { hidden, context: companions }
    }

    /// What goes along with the hidden states: most blocks hand it on as it is.
    pub fn companions(&self) -> &[Tensor] {
        &self.context
    }

    /// The same activations on a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let companions = self.context.iter().map(|tensor| tensor.to_device(device)).collect();
        Self { hidden: self.hidden.to_device(device), context: companions }
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
        Some(Self { hidden: rows(&|flow| flow.hidden.shallow_clone()), context: context.collect() })
    }

    /// A second handle on the same activations.
    pub fn shallow_clone(&self) -> Self {
        let companions = self.context.iter().map(Tensor::shallow_clone).collect();
        Self { hidden: self.hidden.shallow_clone(), context: companions }
    }
}

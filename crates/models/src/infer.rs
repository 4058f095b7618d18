//! Asking a model: features of images, answers to prompts, logits of answers that are forced.

use ressa_experiment::search::SearchSizes;
use tch::{Kind, Tensor};

use crate::{AnswerBatch, ModelError, Prompts, Search, TextBatch};

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

/// A vision-language model whose language side answers from an image prefix and an instruction.
pub trait Infer: Send {
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

    /// Outputs of the connector's queries, `[rows, queries, connector width]`.
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

    /// As [`Infer::force`], with answers that may be a part of a wider batch.
    fn force_padded(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: AnswerBatch<'_>) -> Forced;

    /// [`Infer::visual_prefix`] and [`Infer::force`] for prompts about images of these features, except that a prefix that is the same for all rows about an
    /// image is read once.
    fn force_about(&self, features: &Tensor, prompts: &Prompts, answers: &[Vec<u32>]) -> Forced {
        self.force(Some(&self.visual_prefix(features, prompts)), &prompts.language, answers)
    }

    /// `force`, and the hidden states after each block that reads the instruction, `[rows, prefix + prompt tokens, width]` each
    /// (T5: the encoder's blocks; decoder-only: all blocks, answer positions cut off).
    fn force_traced(&self, prefix: Option<&Tensor>, prompt: &TextBatch, answers: &[Vec<u32>]) -> (Forced, Vec<Tensor>);

    /// The answer to each row.
    ///
    /// # Errors
    /// A row whose prompt leaves no room under `search.max_length`; a model that does not write.
    fn generate(&self, prefix: &Tensor, prompt: &TextBatch, search: &Search) -> Result<Vec<Answer>, ModelError>;

    /// The answer to each row of prompts about images of these features: [`Infer::visual_prefix`] and [`Infer::generate`],
    /// except that a prefix that is the same for all questions on an image is read once.
    ///
    /// # Errors
    /// As [`Infer::generate`].
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
}

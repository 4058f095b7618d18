//! What can go wrong while predicting and scoring.

use ressa_data::DataError;
use ressa_experiment::Task;
use ressa_models::ModelError;

/// A benchmark that cannot be predicted or scored.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Data that cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An image of another size than when the benchmark was prepared.
    #[error(
        "an image was replaced by another one while the benchmark was read: {}x{} pixels reach the model now, {}x{} did before; start again",
        .found.1, .found.0, .wanted.1, .wanted.0
    )]
    Replaced {
        /// Height and width before.
        wanted: (u32, u32),
        /// Height and width now.
        found: (u32, u32),
    },
    /// A tensor operation that failed, out of memory among others; the message is libtorch's, without its trace.
    #[error("{0}")]
    Tensor(String),
    /// A model that refuses its task.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Retrieval was asked of a model that cannot embed texts.
    #[error(
        "task `{0}` needs a model with a retrieval head; set `evaluate.retrieval.checkpoint` to an image-text matching model, or drop the \
         task from `evaluate.tasks`"
    )]
    NoRetrievalHead(Task),
    /// Captions were to be retrieved by a model that cannot embed texts.
    #[error(
        "captions cannot be retrieved: the model has no head that compares images and texts; `evaluate.retrieved.checkpoint` must \
         name the folder of a BLIP-2 image-text matching model, or set `evaluate.retrieved.captions` to 0"
    )]
    NoCaptionHead,
    /// A model that cannot fill in masked words.
    #[error("masked words cannot be filled in: {0}; set `evaluate.smoothing.method` to masked or removed")]
    NoFilling(String),
    /// Matching was asked of a model that has no matching head.
    #[error(
        "the model in `evaluate.retrieval.checkpoint` has no matching head; set `evaluate.retrieval.rerank` to 0 or name another"
    )]
    NoMatchingHead,
    /// Nothing to score.
    #[error("task `{0}` has no predictions to score")]
    Empty(Task),
    /// Predictions of another task.
    #[error("prediction `{id}` does not belong to task `{task}`")]
    WrongKind {
        /// The task that was to be scored.
        task: Task,
        /// The prediction.
        id: String,
    },
    /// A prediction that contradicts itself or the task.
    #[error("prediction `{id}`: {reason}")]
    Unfit {
        /// The prediction.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that is too short for a window.
    #[error("the text has {tokens} tokens, and a window {window}; set a smaller window")]
    ShortText {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// A model whose language model does not predict a text from left to right, or has not the positions for a window of it.
    #[error("perplexity: {0}")]
    NoText(String),
    /// A scorer that is another program.
    #[error("{program}: {reason}")]
    External {
        /// The metric.
        program: &'static str,
        /// Why there is no score.
        reason: String,
    },
    /// A line of stored predictions that is not one.
    #[error("line {line} of the stored predictions: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<tch::TchError> for EvalError {
    fn from(error: tch::TchError) -> Self {
        EvalError::Tensor(ressa_runtime::tch_error(&error))
    }
}

//! Why a model cannot be restored.

use std::path::PathBuf;

use ressa_models::ModelError;
use ressa_runtime::{RuntimeError, optim::StateMismatch};

/// A restoration that failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The loss or its gradient left the finite numbers, or the loss exploded.
    #[error(
        "training diverged at step {step}: {what} is `{value}`; lower `restore.learning-rate` or raise `restore.warmup`"
    )]
    Diverged {
        /// Step, counted from 0.
        step: u32,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value.
        value: f64,
    },
    /// The process was asked to stop; the training is saved.
    #[error("stopped after {steps} steps, saved to go on from there")]
    GivenBack {
        /// Steps that are done.
        steps: u32,
    },
    /// No layer matches the tuned towers and targets.
    #[error(
        "nothing of this model trains: tune a tower, with a rank of at least 1 and targets out of {roles}, or `full`, or biases, norms or queries that \
         it has"
    )]
    NothingToTrain {
        /// Roles that the model has, for the message.
        roles: String,
    },
    /// A target names no layer.
    #[error("target `{target}` of tower `{tower}` names no layer; its layers are {roles}")]
    UnknownTarget {
        /// The target.
        target: String,
        /// The tower.
        tower: ressa_models::Tower,
        /// Roles of the tower.
        roles: String,
    },
    /// Biases are to train where there are none.
    #[error("tower `{tower}` has no bias to train; leave `restore.{tower}.bias` at `none`")]
    NoBias {
        /// The tower.
        tower: ressa_models::Tower,
    },
    /// Alignment with words was asked of a model that has none.
    #[error("`restore.align` compares with a language model's words, and this model has none; set it to 0")]
    NoWords,
    /// Weights of domains are to change, and batches come from no domains.
    #[error("`restore.loading.method` is dynamic, and the batches are of no domains; set it to fixed")]
    NoDomains,
    /// Distillation without a dense model.
    #[error("distillation of weight `{0}` needs the dense model as teacher")]
    NoTeacher(f64),
    /// Hidden states of a block that is not there.
    #[error("`restore.distill.hidden.layers` names block {layer}, and the language model has {blocks}, counted from 0")]
    NoBlock {
        /// The block.
        layer: u32,
        /// Blocks of the language model.
        blocks: usize,
    },
    /// Hidden states that are compared on no token.
    #[error(
        "the tokens that leave block {layer} of the language model weigh 0: name other blocks in `restore.distill.hidden.layers`, or raise the weight of \
         its tokens (of a T5, `answer` is what the decoder's blocks have, `image` and `text` the encoder's)"
    )]
    NoToken {
        /// The block.
        layer: u32,
    },
    /// Attention of a tower that has none, or whose architecture does not say what it looks at.
    #[error(
        "the attention of tower `{tower}` cannot be compared: this model has none there that can be looked at; leave it out of `restore.distill.attention.towers`"
    )]
    NoAttention {
        /// The tower.
        tower: ressa_models::Tower,
    },
    /// Attention that nothing changes.
    #[error(
        "nothing trains that the attention of tower `{tower}` depends on; leave it out of `restore.distill.attention.towers`"
    )]
    UnchangedAttention {
        /// The tower.
        tower: ressa_models::Tower,
    },
    /// A teacher whose attention has other heads.
    #[error(
        "attention of tower `{tower}` is compared head by head: the teacher's blocks have {teacher:?} heads and the student's {student:?}; leave it out of `restore.distill.attention.towers`"
    )]
    OtherHeads {
        /// The tower.
        tower: ressa_models::Tower,
        /// Heads of each attention of a block of the student.
        student: Vec<i64>,
        /// Of the teacher.
        teacher: Vec<i64>,
    },
    /// A teacher that sees an image or a prompt as other tokens.
    #[error(
        "the teacher reads an image or a prompt as other tokens than the student: images are another number of tokens, or one has an encoder for the \
         prompt; choose a teacher of the same kind"
    )]
    OtherReader,
    /// A teacher that says something else than a distribution over the student's tokens.
    #[error(
        "the teacher knows {found} words and the student {wanted}; choose one with the same tokenizer and vocabulary"
    )]
    OtherWords {
        /// Words of the teacher.
        found: u64,
        /// Words of the student.
        wanted: u64,
    },
    /// A vocabulary, of teacher or student, that ends before the tokenizer does.
    #[error(
        "the teacher knows {found} words, the student {wanted} and their tokenizer {tokens} tokens; both need at least as many words as tokens: choose a \
         teacher with the same tokenizer and vocabulary"
    )]
    FewerWords {
        /// Words of the teacher.
        found: u64,
        /// Words of the student.
        wanted: u64,
        /// Tokens of the tokenizer.
        tokens: u64,
    },
    /// Batches could not be made.
    #[error("training batch of step {step}: {source}")]
    Batch {
        /// Step, counted from 0.
        step: u32,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A checkpoint cannot be used.
    #[error("checkpoint `{}`: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint cannot be written.
    #[error("checkpoint: {0}")]
    Unsaved(#[from] RuntimeError),
    /// A checkpoint's optimiser belongs to other parameters.
    #[error(transparent)]
    Optimiser(#[from] StateMismatch),
    /// An adapter of another kind than the merge expects.
    #[error("cannot merge `{layer}` as `{method}`: its adapter was trained {}", if *masked { "masked" } else { "unmasked" })]
    WrongAdapter {
        /// Module path.
        layer: String,
        /// The method asked for.
        method: &'static str,
        /// How the adapter was trained.
        masked: bool,
    },
    /// A mask, adapter or weight does not fit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl RestoreError {
    /// A teacher of `found` words where `wanted` were expected; a model without a language model has none.
    pub(crate) fn other_words(found: Option<u64>, wanted: Option<u64>) -> Self {
        let [found, wanted] = [found, wanted].map(Option::unwrap_or_default);
        RestoreError::OtherWords { found, wanted }
    }

    /// A checkpoint with a part that does not fit.
    pub(crate) fn unfit(checkpoints: Option<&crate::Checkpoints>, error: &ModelError) -> Self {
        let path = checkpoints.map(crate::Checkpoints::path).unwrap_or_default();
        RestoreError::Checkpoint { path, reason: format!("{error}; delete it to start again") }
    }

    /// Whether training left the finite numbers, as opposed to wrong input.
    pub fn is_divergence(&self) -> bool {
        matches!(self, RestoreError::Diverged { .. })
    }

    /// Whether the training was saved and given back, as asked.
    pub fn is_given_back(&self) -> bool {
        matches!(self, RestoreError::GivenBack { .. })
    }

    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        match self {
            RestoreError::Unsaved(_) => true,
            RestoreError::Model(error) => error.is_storage(),
            _ => false,
        }
    }
}

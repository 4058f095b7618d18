//! Why a dense model could not be trained.

use std::path::PathBuf;

/// A training error.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss is no longer a number.
    #[error("diverged in the {stage} stage at step {step}: the loss is {loss}")]
    Diverged {
        /// Stage of the training.
        stage: &'static str,
        /// Step within it.
        step: u32,
        /// The loss.
        loss: f64,
    },
    /// The process was asked to stop; the training is saved.
    #[error("stopped in the {stage} stage after {steps} steps, saved to go on from there")]
    GivenBack {
        /// Stage of the training.
        stage: &'static str,
        /// Steps that are done within it.
        steps: u32,
    },
    /// A word of the world that the tokenizer does not have as one token.
    #[error("the tokenizer has no single token for `{0}`")]
    Vocabulary(String),
    /// The preset lacks the projections that retrieval needs.
    #[error("the model has no retrieval head to train")]
    NoRetrievalHead,
    /// What an interrupted training left behind cannot be used.
    #[error("cannot use the training checkpoint `{}`: {what}; delete it to start again", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint cannot be written.
    #[error("training checkpoint: {0}")]
    Unsaved(#[from] ressa_runtime::RuntimeError),
    /// Data or tokenizer files.
    #[error(transparent)]
    Data(#[from] ressa_data::DataError),
    /// The model's tensors.
    #[error(transparent)]
    Model(#[from] ressa_models::ModelError),
}

impl TrainError {
    /// Whether training left the finite numbers, as opposed to wrong input.
    pub fn is_divergence(&self) -> bool {
        matches!(self, TrainError::Diverged { .. })
    }

    /// Whether the training was saved and given back, as asked.
    pub fn is_given_back(&self) -> bool {
        matches!(self, TrainError::GivenBack { .. })
    }

    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        match self {
            TrainError::Unsaved(_) => true,
            TrainError::Data(error) => error.is_storage(),
            TrainError::Model(error) => error.is_storage(),
            _ => false,
        }
    }
}

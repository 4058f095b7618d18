//! Why a job cannot be done.

use std::path::PathBuf;

use ressa_experiment::protocol::FailureKind;

/// A failed job.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The bytes of a model folder are wrong.
    #[error(transparent)]
    Checkpoint(#[from] ressa_checkpoint::CheckpointError),
    /// A model folder or its tensors are wrong.
    #[error(transparent)]
    Model(#[from] ressa_models::ModelError),
    /// Weights or inputs that cannot be pruned.
    #[error(transparent)]
    Prune(#[from] ressa_prune::PruneError),
    /// Processor files or images are wrong or missing.
    #[error(transparent)]
    Data(#[from] ressa_data::DataError),
    /// The stages of a run cannot be read or put together.
    #[error(transparent)]
    Pipeline(#[from] ressa_pipeline::PipelineError),
    /// Predictions that cannot be made or scored.
    #[error(transparent)]
    Eval(#[from] ressa_eval::EvalError),
    /// A file given to the job does not hold what it should.
    #[error("`{}`: {reason}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and, where it helps, what to do.
        reason: String,
    },
    /// Something that cannot be done with this model.
    #[error("{0}")]
    Unsupported(String),
}

impl LabError {
    /// A file given to the job that is not what it should be.
    pub fn input(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        LabError::Input { path: path.into(), reason: reason.to_string() }
    }

    /// The sort of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            LabError::Checkpoint(e) if e.is_storage() => FailureKind::Storage,
            LabError::Model(e) if e.is_storage() => FailureKind::Storage,
            LabError::Pipeline(e) => e.kind(),
            other if ressa_runtime::is_out_of_memory(&other.to_string()) => FailureKind::Oom,
            _ => FailureKind::Data,
        }
    }
}

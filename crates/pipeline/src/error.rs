//! Why a stage failed, and which sort of failure that is.

use ressa_experiment::protocol::FailureKind;
use ressa_store::StoreError;

/// A failed stage.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The store cannot be read or written, or an entry is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model folder or its tensors are wrong.
    #[error(transparent)]
    Model(#[from] ressa_models::ModelError),
    /// Benchmark data or processor files are wrong or missing.
    #[error(transparent)]
    Data(#[from] ressa_data::DataError),
    /// Pruning failed.
    #[error(transparent)]
    Prune(#[from] ressa_prune::PruneError),
    /// Restoration failed.
    #[error(transparent)]
    Restore(#[from] ressa_restore::RestoreError),
    /// Evaluation failed.
    #[error(transparent)]
    Eval(#[from] ressa_eval::EvalError),
    /// Training of a dense model failed.
    #[error(transparent)]
    Training(#[from] ressa_pretrain::TrainError),
    /// A certificate does not hold.
    #[error("the certificate does not hold: {}", .0.join("; "))]
    Certificate(Vec<String>),
    /// Something that cannot be done here.
    #[error("{0}")]
    Unsupported(String),
    /// A defect: stages and their inputs do not fit together.
    #[error("internal: {0}")]
    Internal(String),
}

impl PipelineError {
    /// The sort of failure, for the record.
    pub fn kind(&self) -> FailureKind {
        match self {
            PipelineError::Store(e) if e.is_storage() => FailureKind::Storage,
            PipelineError::Restore(e) if e.is_divergence() => FailureKind::Nan,
            PipelineError::Training(ressa_pretrain::TrainError::Diverged { .. }) => FailureKind::Nan,
            PipelineError::Certificate(_) | PipelineError::Internal(_) => FailureKind::Bug,
            other if ressa_runtime::is_out_of_memory(&other.to_string()) => FailureKind::Oom,
            _ => FailureKind::Data,
        }
    }
}

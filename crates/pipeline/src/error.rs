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
    /// What is read from outside the store is not what the stage was planned with.
    #[error(transparent)]
    Contents(#[from] ressa_contents::ContentError),
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
    /// Whether the stage was given back, which is no failure.
    pub fn is_given_back(&self) -> bool {
        match self {
            PipelineError::Prune(e) => e.is_given_back(),
            PipelineError::Restore(e) => e.is_given_back(),
            PipelineError::Training(e) => e.is_given_back(),
            _ => false,
        }
    }

    /// The sort of failure, for the record.
    pub fn kind(&self) -> FailureKind {
        match self {
            _ if self.is_storage() => FailureKind::Storage,
            PipelineError::Restore(e) if e.is_divergence() => FailureKind::Nan,
            PipelineError::Training(e) if e.is_divergence() => FailureKind::Nan,
            PipelineError::Certificate(_) | PipelineError::Internal(_) => FailureKind::Bug,
            other if other.is_out_of_memory() => FailureKind::Oom,
            _ => FailureKind::Data,
        }
    }
    /// Whether the disk or its permissions kept something from being written, whichever crate wrote it.
    fn is_storage(&self) -> bool {
        match self {
            PipelineError::Store(e) => e.is_storage(),
            PipelineError::Model(e) => e.is_storage(),
            PipelineError::Data(e) => e.is_storage(),
            PipelineError::Prune(e) => e.is_storage(),
            PipelineError::Restore(e) => e.is_storage(),
            PipelineError::Training(e) => e.is_storage(),
            _ => false,
        }
    }

    /// Whether device or host memory was exhausted.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        ressa_runtime::is_out_of_memory(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_full_disk_is_a_storage_failure_whoever_meets_it() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let model = || ressa_models::ModelError::io("write", "masks.safetensors")(full());
        let unsaved = || ressa_runtime::RuntimeError::Unsaved { path: "training".into(), reason: full().to_string() };
        let failures: [PipelineError; 6] = [
            StoreError::Write { path: "store".into(), source: full() }.into(),
            model().into(),
            ressa_data::DataError::Write { path: "tokenizer.json".into(), source: full() }.into(),
            ressa_restore::RestoreError::Unsaved(unsaved()).into(),
            ressa_pretrain::TrainError::Unsaved(unsaved()).into(),
            ressa_pretrain::TrainError::Model(model()).into(),
        ];
        for failure in failures {
            assert_eq!(failure.kind(), FailureKind::Storage, "{failure}");
        }
        let unread = ressa_models::ModelError::io("read", "config.json")(full());
        assert_eq!(PipelineError::from(unread).kind(), FailureKind::Data);
    }
}

//! What can be wrong with a model folder, its tensors, or what is applied to them.

use std::path::PathBuf;

use ressa_checkpoint::CheckpointError;

/// Why a model cannot be loaded, saved or changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read or written, or does not hold what its name promises.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A configuration that no network can have.
    #[error("model configuration: {0}")]
    Config(String),
    /// A tensor that the network needs is not there.
    #[error("the checkpoint has no tensor `{0}`; it is incomplete or of another architecture")]
    Missing(String),
    /// A tensor has another shape than the configuration implies.
    #[error("tensor `{name}` has shape {found:?}, the configuration asks for {wanted:?}")]
    Shape {
        /// Tensor.
        name: String,
        /// In the file.
        found: Vec<i64>,
        /// By the configuration.
        wanted: Vec<i64>,
    },
    /// A tensor that is not made of floating-point numbers that can be computed with.
    #[error("tensor `{name}` has type `{found}`; weights must be F32, F16, BF16 or F64")]
    Dtype {
        /// Tensor.
        name: String,
        /// Type in the file.
        found: String,
    },
    /// Weights that are infinite or no numbers.
    #[error(
        "tensor `{name}` holds {count} values that are not finite; the checkpoint is damaged or its training diverged"
    )]
    NotFinite {
        /// Tensor.
        name: String,
        /// How many.
        count: u64,
    },
    /// A tensor that stands for another one holds other values.
    #[error("tensor `{name}` should be a copy of `{original}` and differs from it; the network has one place for both")]
    Copy {
        /// The copy.
        name: String,
        /// The tensor that the network uses.
        original: String,
    },
    /// Inputs of a forward pass that do not fit together or not to the model.
    #[error("input `{name}`: {reason}")]
    Input {
        /// Which input.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Search settings that no search can have, or that leave no room for an answer.
    #[error("{0}")]
    Search(String),
    /// Tensors that no part of the network asked for.
    #[error("the network has no place for {} tensors of the checkpoint: {}", .0.len(), quoted(.0))]
    Leftover(Vec<String>),
    /// Masks or adapters name layers that the model does not have.
    #[error("the model has no prunable layer {}", quoted(.0))]
    UnknownLayers(Vec<String>),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl ModelError {
    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        matches!(self, ModelError::Checkpoint(error) if error.is_storage())
    }

    /// For `map_err`: the system refused an action on a file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ModelError {
        let failed = CheckpointError::io(action, path);
        move |source| failed(source).into()
    }

    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> ModelError {
        CheckpointError::file(path, reason).into()
    }
}

impl From<tch::TchError> for ModelError {
    fn from(error: tch::TchError) -> Self {
        ModelError::Torch(ressa_runtime::tch_error(&error))
    }
}

/// Names in backticks; a long list is cut and says so.
fn quoted(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

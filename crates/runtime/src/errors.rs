//! What can go wrong below the models, and how a libtorch message is made readable.

use std::{any::Any, path::PathBuf};

/// Why the runtime cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Not a device.
    #[error("`{0}` is not a device: use `auto`, `cpu` or `cuda:N`")]
    Device(String),
    /// A CUDA device was asked for by number and cannot be used.
    #[error("`cuda:{index}` cannot be used: {reason}; use `auto` or `cpu`")]
    Cuda {
        /// Device number.
        index: usize,
        /// What libtorch or the loader said.
        reason: String,
    },
    /// libtorch refused an operation.
    #[error("{0}")]
    Torch(String),
    /// Tensors could not be saved.
    #[error("cannot write `{}`: {reason}", path.display())]
    Unsaved {
        /// The file.
        path: PathBuf,
        /// What libtorch or the system said.
        reason: String,
    },
}

/// Marks where libtorch's message ends and its C++ stack trace begins.
const TRACE: &str = "\nException raised from";

/// What allocators say when memory is exhausted: the CPU's, CUDA's, and the status codes of the CUDA libraries.
const EXHAUSTED: [&str; 6] = [
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
];

/// A libtorch message without its C++ stack trace.
pub fn without_trace(message: &str) -> String {
    message.split(TRACE).next().unwrap_or_default().trim_end().to_owned()
}

/// A libtorch error as one readable message.
pub fn tch_error(error: &tch::TchError) -> String {
    without_trace(&error.to_string())
}

/// What a panic said. libtorch's plain operations report errors that way, memory exhaustion among them.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    without_trace(text.unwrap_or("unknown panic"))
}

/// Whether a message says that device or host memory was exhausted.
pub fn is_out_of_memory(message: &str) -> bool {
    EXHAUSTED.iter().any(|sign| message.contains(sign))
}

impl From<tch::TchError> for RuntimeError {
    fn from(error: tch::TchError) -> Self {
        RuntimeError::Torch(tch_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_loses_its_trace_and_keeps_its_kind() {
        let error = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu))
            .f_matmul(&tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)))
            .unwrap_err();
        let message = tch_error(&error);
        assert!(message.contains("shapes cannot be multiplied"), "{message}");
        assert!(!message.contains("Exception raised") && !message.contains("frame #"), "{message}");
        assert!(!is_out_of_memory(&message));

        let huge = tch::Tensor::f_zeros([1 << 50], (tch::Kind::Float, tch::Device::Cpu)).unwrap_err();
        assert!(is_out_of_memory(&tch_error(&huge)), "{huge}");
    }
}

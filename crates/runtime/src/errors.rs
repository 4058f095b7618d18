//! What can go wrong below the models, and how a libtorch message is made readable.

use std::{
    any::Any,
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

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

/// The C++ stack trace that was cut off last, for a log.
static LAST_TRACE: Mutex<Option<String>> = Mutex::new(None);

/// The first line of a libtorch message. Its C++ stack trace is kept for [`take_trace`].
pub fn without_trace(message: &str) -> String {
    if let Some(at) = message.find(TRACE) {
        let trace = message[at..].trim().to_owned();
        *LAST_TRACE.lock().unwrap_or_else(PoisonError::into_inner) = Some(trace);
    }
    message.trim().lines().next().unwrap_or_default().trim_end().to_owned()
}

/// The C++ stack trace of the last error whose message was shortened, once.
pub fn take_trace() -> Option<String> {
    LAST_TRACE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A libtorch error as one readable line.
pub fn tch_error(error: &tch::TchError) -> String {
    without_trace(&error.to_string())
}

/// What a panic said, in one line. libtorch's plain operations report errors that way, memory exhaustion among them.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("unknown panic");
    // `unwrap` shows the error as Rust would write it.
    match text.split_once("Torch(\"").and_then(|(_, rest)| rest.rsplit_once("\")")) {
        Some((quoted, _)) => without_trace(&unquoted(quoted)),
        None => without_trace(text),
    }
}

/// The result of `work`; `None` where memory ran out. libtorch reports that as an error or as a panic, depending on the operation; other panics
/// pass through.
pub fn unless_out_of_memory<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Option<Result<T, E>> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error)) if is_out_of_memory(&error.to_string()) => None,
        Ok(done) => Some(done),
        Err(panic) if is_out_of_memory(&panic_message(&*panic)) => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Text as it was before `Debug` escaped it.
fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, if letter == '\\' { letters.next() } else { None }) {
            (_, Some('n')) => plain.push('\n'),
            (_, Some('t')) => plain.push('\t'),
            (_, Some(escaped)) => plain.push(escaped),
            (letter, None) => plain.push(letter),
        }
    }
    plain
}

/// What an allocator said about memory that it did not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// What was asked for, such as `2.00 GiB`.
    pub wanted: String,
    /// What was free, and of how much, where the allocator says it.
    pub free: Option<(String, String)>,
}

impl Exhausted {
    /// The figures in a message; `None` where it has none.
    pub fn of(message: &str) -> Option<Self> {
        const GIB: f64 = (1u64 << 30) as f64;
        let after = |words: &str| message.split_once(words).map(|(_, rest)| rest);
        let size = |text: &str| {
            let mut words = text.split_whitespace();
            let (number, unit) = (words.next()?, words.next()?.trim_end_matches(['.', ',', ';']));
            number.parse::<f64>().ok().map(|value| match unit {
                "bytes" if value >= GIB => format!("{:.2} GiB", value / GIB),
                "bytes" => format!("{:.2} MiB", value / (GIB / 1024.0)),
                _ => format!("{number} {unit}"),
            })
        };
        let wanted = after("ried to allocate ").and_then(size)?;
        let free = after("of which ").and_then(size).zip(after("total capacity of ").and_then(size));
        Some(Self { wanted, free })
    }
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

        assert!(take_trace().is_some_and(|trace| trace.starts_with("Exception raised")) && take_trace().is_none());
        let panic = catch_unwind(|| {
            let zeros = || tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
            zeros().matmul(&zeros())
        });
        let said = panic_message(&*panic.unwrap_err());
        assert!(said.contains("shapes cannot be multiplied (2x3 and 2x3)"), "{said}");
        assert!(!said.contains("unwrap") && !said.contains('\n') && !said.contains("frame #"), "{said}");

        let huge = tch::Tensor::f_zeros([1 << 50], (tch::Kind::Float, tch::Device::Cpu)).unwrap_err();
        assert!(is_out_of_memory(&tch_error(&huge)), "{huge}");
        assert_eq!(Exhausted::of(&tch_error(&huge)).expect("sizes").wanted, "4194304.00 GiB");
    }

    #[test]
    fn allocators_say_what_they_did_not_have() {
        let gpu = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.06 GiB is free. \
            Including non-PyTorch memory, this process has 78.09 GiB memory in use.";
        let free = Some(("1.06 GiB".to_owned(), "79.15 GiB".to_owned()));
        assert_eq!(Exhausted::of(gpu), Some(Exhausted { wanted: "2.50 GiB".to_owned(), free }));
        assert_eq!(Exhausted::of("CUDA error: out of memory"), None);
        let small =
            Exhausted::of("CUDA out of memory. Tried to allocate 2097152 bytes. GPU 0 has a total capacity of 9 bytes");
        assert_eq!(small, Some(Exhausted { wanted: "2.00 MiB".to_owned(), free: None }));
        assert_eq!(unquoted(r#"a \"b\"\n\\c"#), "a \"b\"\n\\c");
    }
}

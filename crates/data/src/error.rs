//! What can be wrong with data.

use std::path::PathBuf;

/// A data set, a tokenizer or an image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The embedded world was asked for with a configuration that points elsewhere.
    #[error("`data.source: folder` has no embedded world; use `data.source: shapes`")]
    NotShapes,
    /// Published benchmarks without a root folder.
    #[error("`data.source: folder` needs `data.root`, the folder that holds the benchmarks")]
    NoRoot,
    /// Files of a published benchmark that are not there.
    #[error("benchmark `{task}` is incomplete under `{root}`; missing: {}", missing.join(", "))]
    Missing {
        /// The benchmark.
        task: String,
        /// The folder that was searched.
        root: PathBuf,
        /// Every missing file or folder, relative to the root, with what it holds.
        missing: Vec<String>,
    },
    /// A published benchmark is complete, but this version cannot read it.
    #[error("benchmark `{task}` was found under `{root}`, but this version reads only `data.source: shapes`")]
    UnsupportedBenchmark {
        /// The benchmark.
        task: String,
        /// The folder that holds it.
        root: PathBuf,
    },
    /// A file that could not be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder that could not be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tokenizer file that is not one.
    #[error("`{path}` is not a usable tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer library said.
        reason: String,
    },
    /// A processor setting that is missing or out of range.
    #[error("`{path}`: {reason}")]
    Processor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text that could not be tokenized.
    #[error("cannot tokenize `{text}`: {reason}")]
    Encode {
        /// The text.
        text: String,
        /// What the tokenizer library said.
        reason: String,
    },
    /// An image file that holds no usable image.
    #[error("cannot use the image `{path}`: {reason}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A picture that could not be encoded.
    #[error("cannot encode the picture as PNG: {reason}")]
    Png {
        /// What the image library said.
        reason: String,
    },
    /// An image that the processor's settings do not bring to the size that the model reads.
    #[error(
        "image of {found_width}x{found_height} pixels; the processor of this model reads {width}x{height} and does not resize to it"
    )]
    ImageSize {
        /// Width of the image as it would reach the model.
        found_width: u32,
        /// Height of the image as it would reach the model.
        found_height: u32,
        /// Width that the model reads.
        width: u32,
        /// Height that the model reads.
        height: u32,
    },
}

impl DataError {
    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        matches!(self, DataError::Write { .. })
    }
}

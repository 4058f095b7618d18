//! What can be wrong with data.

use std::path::PathBuf;

use ressa_checkpoint::CheckpointError;
use ressa_experiment::Task;

/// A data set, a tokenizer or an image that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The embedded world was asked for with a configuration that points elsewhere.
    #[error("`data.source: folder` has no embedded world; use `data.source: shapes`")]
    NotShapes,
    /// A task that the embedded world was asked for and does not have.
    #[error("the embedded world has no `{0}`; set `data.source: folder` and `data.root`")]
    NoMiniature(Task),
    /// A task without images that was asked for some.
    #[error("`{0}` has no images and no questions")]
    NoImages(Task),
    /// Published benchmarks without a root folder.
    #[error("`data.source: folder` needs `data.root`, the folder that holds the benchmarks")]
    NoRoot,
    /// Files of a published benchmark or corpus that are not there.
    #[error("{what} is incomplete under `{root}`; missing: {}", missing.join(", "))]
    Missing {
        /// The benchmark or corpus.
        what: String,
        /// The folder that was searched.
        root: PathBuf,
        /// Every missing file or folder, relative to the root, with what it holds.
        missing: Vec<String>,
    },
    /// An annotation file in a form that is not known.
    #[error("`{path}` holds {found}; expected {expected}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What stands at its top.
        found: String,
        /// The forms that are read.
        expected: &'static str,
    },
    /// An annotation file that is not the JSON it should be.
    #[error("`{path}` is not as expected after {after} entries: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Entries read before.
        after: usize,
        /// What the JSON reader said.
        reason: String,
    },
    /// An entry of an annotation file that cannot be used.
    #[error("`{path}`, entry {number}: {reason}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// Place in its list, counted from 1.
        number: usize,
        /// The field and what is wrong with it.
        reason: String,
    },
    /// An annotation file that does not fit the others.
    #[error("`{path}`: {reason}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
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
    /// So many images of a draw that cannot be read that the draw is not what was asked for.
    #[error(
        "{unreadable} of {drawn} images cannot be read, the first because: {first}; see that `data.root` holds the images of the corpora"
    )]
    Unreadable {
        /// Images that cannot be read.
        unreadable: usize,
        /// Images that were drawn.
        drawn: usize,
        /// Why the first cannot.
        first: String,
    },
    /// A picture that could not be encoded.
    #[error("cannot encode the picture as PNG: {reason}")]
    Png {
        /// What the image library said.
        reason: String,
    },
    /// An image of a shape that the processor does not take.
    #[error("cannot use an image of {width}x{height} pixels: {reason}")]
    Shape {
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// Why not, and what to do.
        reason: String,
    },
    /// Images that should be one batch and are of different sizes.
    #[error(
        "images that become {}x{} and {}x{} pixels cannot be one batch: this model reads images at their own size; use batches of one \
         image (`restore.batch: 1`)", .0.1, .0.0, .1.1, .1.0
    )]
    Sizes((u32, u32), (u32, u32)),
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
    /// For `map_err`: a file of a model folder that cannot be read, as an error about a processor's settings.
    pub(crate) fn of_settings(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Io { path, source, .. } => DataError::Read { path, source },
            CheckpointError::File { path, reason } => DataError::Processor { path, reason },
        }
    }

    /// For `map_err`: a file of a model folder that cannot be read, as an error about a tokenizer.
    pub(crate) fn of_tokenizer(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Io { path, source, .. } => DataError::Read { path, source },
            CheckpointError::File { path, reason } => DataError::Tokenizer { path, reason },
        }
    }

    /// The same, with the file that the image is in.
    #[must_use]
    pub fn of_image(self, path: &std::path::Path) -> Self {
        match self {
            DataError::Shape { width, height, reason } => {
                DataError::Image { path: path.to_path_buf(), reason: format!("{width}x{height} pixels: {reason}") }
            }
            other => other,
        }
    }

    /// Whether an image file is missing, damaged or no image: what another image can stand in for.
    pub fn is_unreadable_image(&self) -> bool {
        matches!(self, DataError::Read { .. } | DataError::Image { .. } | DataError::Shape { .. })
    }

    /// Whether the disk or its permissions kept something from being written.
    pub fn is_storage(&self) -> bool {
        matches!(self, DataError::Write { .. })
    }
}

//! Benchmarks and corpora as typed samples with fixed splits, and the preprocessing that makes batches of them.
//!
//! Two halves, neither of which knows tensors:
//! - what samples are, whatever their source: [`Image`], [`Question`], [`Benchmark`] and the [`Processor`] that turns them into
//!   pixels and token ids, driven by the files of a checkpoint folder;
//! - [`shapes`]: the embedded world, which draws images, questions, facts and captions from one seed.

pub mod benchmark;
mod decode;
pub mod error;
pub mod image;
pub mod preprocess;
pub mod processor;
pub mod published;
pub mod question;
pub mod resize;
pub mod shapes;
pub mod tokenizer;

pub use benchmark::{Benchmark, Content, Item};
pub use error::DataError;
pub use image::Image;
pub use preprocess::ImageProcessor;
pub use processor::Processor;
pub use question::Question;
pub use shapes::{World, contact_sheet};
pub use tokenizer::{Family, write_processor_files};

//! Benchmarks and corpora as typed samples with fixed splits, and the preprocessing that makes batches of them.
//!
//! Three parts, none of which knows tensors:
//! - what samples are, whatever their source: [`Image`], [`Question`], [`Benchmark`], [`Captions`] and the [`Processor`] that turns
//!   them into pixels and token ids, driven by the files of a checkpoint folder;
//! - [`published`]: the paper's benchmarks and corpora, read from disk;
//! - [`shapes`]: the embedded world, which draws images, questions, facts and captions from one seed.

pub mod ahead;
mod alike;
mod annotations;
pub mod augment;
pub mod benchmark;
mod cell;
mod cells;
mod chat;
pub mod corpus;
mod decode;
pub mod error;
pub mod image;
mod jinja;
mod json;
mod library;
pub mod loader;
pub mod mosaic;
pub mod parallel;
pub mod perturb;
pub mod pool;
pub mod preprocess;
pub mod processor;
pub mod published;
pub mod question;
pub mod resize;
mod settings;
pub mod shapes;
pub mod stream;
mod text;
mod tiles;
pub mod tokenizer;
pub mod wording;

pub use ahead::Ahead;
pub use alike::reads_otherwise;
pub use benchmark::{Benchmark, Content, Item, Picture};
pub use cell::Cell;
pub use cells::Cells;
pub use chat::Prompt;
pub use corpus::{Captioned, Captions};
pub use error::DataError;
pub use image::Image;
pub use loader::{ImageLoader, Sized, file_identity};
pub use parallel::parallel;
pub use perturb::Masked;
pub use pool::{PoolCaption, pool};
pub use preprocess::ImageProcessor;
pub use processor::Processor;
pub use question::Question;
pub use shapes::{World, contact_sheet, write_corpus};
pub use text::{Side, text_of, tokens_made, tokens_of, words_of};
pub use tiles::Tiles;
pub use tokenizer::{Family, write_processor_files};

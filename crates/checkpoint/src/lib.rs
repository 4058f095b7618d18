//! Checkpoint folders as bytes: what is in them, whether it is sound, and the same folder with other values.
//!
//! No tensor library: weights are looked at where the file has them, mapped and read-only. `models` makes tensors of what is opened here.

pub mod error;
mod file;
mod folder;
mod write;

pub use error::CheckpointError;
pub use file::{Entry, File};
pub use folder::{Checkpoint, INDEX, Index, SINGLE};
pub use safetensors::Dtype;
pub use write::{Written, write};

//! Train the small dense models of the embedded world from scratch.
//!
//! Published models bring an image encoder and a language model that were trained apart, and an interface trained between them. The small
//! ones are made in the same order: vision on patch labels, language on oracle slots, interface between the two, then all
//! of it jointly. Throw-away heads (`auxiliary`) stand for what large-scale pre-training brings. The result is an ordinary model.

mod auxiliary;
mod checkpoint;
mod compose;
mod corpus;
mod error;
mod interface;
mod joint;
mod language;
mod parameters;
mod pointer;
mod recipe;
mod shards;
mod slots;
mod train;
mod vision;

pub use error::TrainError;
pub use parameters::TensorMap;
pub use recipe::Recipe;
pub use train::{Request, train};

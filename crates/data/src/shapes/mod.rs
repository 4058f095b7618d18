//! The embedded world: coloured shapes on a 3x3 grid, and the paper's five tasks in miniature.
//!
//! Everything follows from one seed. Each image has a random stream of its own, so any subset can be made again alone and in
//! parallel with the same bytes. A fixed hash divides all possible scenes between training and test, so the two never share one.
//! Eight pairs of colour and shape never occur in training images at all; captions of such scenes are the `held-out` set.

pub mod attributes;
pub mod caption;
mod draw;
pub mod facts;
pub mod grounding;
pub mod question;
mod render;
pub mod scene;
pub mod sheet;
pub mod vocabulary;
pub mod world;
mod written;

pub use attributes::{Color, Shape, Size, Texture};
pub use facts::Facts;
pub use grounding::Grounding;
pub use render::IMAGE_SIZE;
pub use scene::{Object, Scene, Side};
pub use sheet::contact_sheet;
pub use world::{LabelledImage, World};
pub use written::write_corpus;

//! The networks, one file per architecture, shaped like their checkpoints, and the few layers they share.

pub mod adapters;
pub mod error;
pub mod folder;
pub mod certify;
pub mod linear;
pub mod masks;
pub mod scope;
pub mod vlm;
pub mod weights;

pub use adapters::AdapterSet;
pub use error::ModelError;
pub use linear::{Adapter, LayerId, Linear, Observer, TapGuard};
pub use masks::MaskSet;
pub use ressa_experiment::Tower;
pub use scope::{Scope, Shapes, TensorMap, TensorSource};
pub use vlm::{Flow, Forced, Prompts, Sample, Search, TextBatch, VisionLanguage};
pub use weights::Weights;

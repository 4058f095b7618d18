//! The networks, one file per architecture, shaped like their checkpoints, and the few layers they share.

pub mod linear;
pub mod vlm;

pub use linear::{Adapter, LayerId, Linear, Observer, TapGuard};
pub use ressa_experiment::Tower;
pub use vlm::{Flow, Forced, Prompts, Sample, Search, TextBatch, VisionLanguage};

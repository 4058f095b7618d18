//! The networks, one file per architecture, shaped like their checkpoints, and the few layers they share.

pub mod adapters;
pub mod certify;
pub mod config;
pub mod error;
pub mod folder;
mod generate;
pub mod instructblip;
mod language;
pub mod layers;
pub mod linear;
pub mod llama;
pub mod masks;
pub mod presets;
pub mod qformer;
pub mod scope;
pub mod t5;
pub mod vit;
pub mod vlm;
pub mod weights;

pub use adapters::AdapterSet;
pub use config::{InstructBlipConfig, SpecialTokens};
pub use error::ModelError;
pub use folder::{load_folder, load_instructblip, save_folder, save_folder_with};
pub use generate::settings::{EarlyStopping, Search};
pub use instructblip::InstructBlip;
pub use linear::{Adapter, LayerId, Linear, Observer, TapGuard};
pub use masks::MaskSet;
pub use ressa_experiment::Tower;
pub use scope::{Scope, Shapes, TensorMap, TensorSource};
pub use vlm::{Answer, Flow, Forced, Prompts, Sample, TextBatch, VisionLanguage};
pub use weights::{Storage, Weights};

//! The networks, one file per architecture, shaped like their checkpoints, and the few layers they share.

pub mod adapters;
pub mod blip2;
pub mod certify;
pub mod config;
pub mod error;
pub mod folder;
mod generate;
mod language;
pub mod layers;
pub mod linear;
pub mod llama;
pub mod masks;
pub mod opt;
pub mod presets;
pub mod published;
pub mod qformer;
pub mod raw;
pub mod scope;
pub mod t5;
pub mod vit;
pub mod vlm;
pub mod weights;

pub use adapters::AdapterSet;
pub use blip2::Blip2;
pub use config::{Blip2Config, Family, SpecialTokens};
pub use error::ModelError;
pub use folder::{load_blip2, load_folder, load_folder_with, load_streamed, save_folder, save_folder_with};
pub use generate::settings::{EarlyStopping, Search};
pub use linear::{Adapter, LayerId, Linear, Observer, TapGuard};
pub use masks::MaskSet;
pub use raw::{ForwardInputs, ForwardOutputs};
pub use ressa_experiment::Tower;
pub use scope::{Scope, Shapes, TensorMap, TensorSource};
pub use vlm::{Answer, Flow, Forced, Prompts, Sample, TextBatch, VisionLanguage};
pub use weights::{LoadOptions, Pages, Storage, Weights};

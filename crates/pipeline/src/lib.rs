//! Execute one stage, from its typed configuration to its published output.
//!
//! This is the one place where metrics, restorations and benchmarks meet: `prune`, `restore` and `eval` cannot see each other.

mod adapt;
mod calibration;
mod changes;
mod dense;
mod error;
mod evaluate;
mod executor;
mod export;
mod features;
mod loading;
mod memory;
mod merge;
mod prune;
mod reconstruct;
mod refine;
mod rescale;
mod resident;
mod resumed;
mod samples;
mod sensitivity;
mod statistics;
mod structure;
mod teaching;

pub use calibration::calibration_input;
pub use error::PipelineError;
pub use executor::Executor;
pub use export::RunWeights;
pub use loading::Loading;
pub use samples::calibration_texts;

//! What an experiment will take on a card that is not here: memory and time, before anything is downloaded or run.
//!
//! [`card`] says what a card reaches, [`model`] what a model's sizes are, `program` what the program does with them (all constants are there), `pass`
//! and the modules of the stage kinds put them together, [`Predictor`] does it for the stages of a plan. No tensor library, nothing measured here.

mod calibration;
pub mod card;
pub mod error;
mod evaluation;
pub mod model;
mod pass;
mod predictor;
mod program;
mod reconstruction;
mod shared;
mod stage;
mod training;
mod work;

pub use card::{Card, Cards};
pub use error::PredictError;
pub use model::Model;
pub use predictor::{Host, Predictor};
pub use shared::Shared;
pub use stage::Prediction;

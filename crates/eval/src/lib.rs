//! Score a model on a benchmark exactly as the benchmark's authors do.
//!
//! Predicting and scoring are apart. [`Prepared`] holds a benchmark's tensors, made once per process; [`predict`] runs a model over
//! them and returns one or more [`Prediction`]s per item, which are stored; [`score`] is a pure function over stored predictions.

pub mod batching;
mod encoder;
pub mod error;
pub mod external;
pub mod features;
mod likelihood;
pub mod matching;
pub mod metrics;
pub mod perplexity;
pub mod predict;
pub mod prediction;
pub mod prepared;
pub mod retrieved;
pub mod score;
pub mod smoothing;

pub use batching::Batching;
pub use error::EvalError;
pub use features::FeatureCache;
pub use matching::{MatchOptions, match_both_ways};
pub use perplexity::{Windows, perplexity};
pub use predict::{PredictOptions, predict};
pub use prediction::{Aided, CopyAnswer, Direction, Prediction, from_json_lines, to_json_lines};
pub use prepared::Prepared;
pub use retrieved::{CaptionPool, nearest};
pub use score::{Lemmas, ScoreOptions, score};
pub use smoothing::{Copies, Filled, fill, vote};

//! The language of an experiment: what is asked, what it expands to, what comes back.
//!
//! No tensors, no data frames, no command line: both the torch-free front program and the workers speak these types.

pub mod cell;
pub mod config;
pub mod model;
pub mod output;
pub mod pattern;
pub mod protocol;
pub mod record;
pub mod stage;
pub mod task;
pub mod tower;

pub use cell::Cell;
pub use config::RunConfig;
pub use pattern::Pattern;
pub use stage::{Stage, StageKey, StageNode};
pub use task::Task;
pub use tower::Tower;

//! From weights and calibration statistics to masks.
//!
//! [`prune_tower`] walks one tower block by block: [`calibrate`] shows a block's inputs to [`statistics`], a [`metric`] turns
//! weights and statistics into importance, [`select`] turns importance into keep masks, and [`certificate`] recounts the result.
//! Methods that do more than rank, such as changing the weights that stay, are [`solver`]s of one layer's problem.

pub mod calibrate;
pub mod certificate;
mod error;
pub mod metric;
mod rows;
pub mod select;
pub mod solver;
pub mod statistics;
mod tower;

pub use certificate::certify_tower;
pub use error::PruneError;
pub use tower::{PruneRequest, TowerPruning, prune_tower, solve_block};

//! From weights and calibration statistics to masks.
//!
//! [`prune_tower`] walks one tower block by block: [`calibrate`] shows a block's inputs to [`statistics`], a [`metric`] turns
//! weights and statistics into importance, [`select`] turns importance into keep masks, and [`certificate`] recounts the result.
//! [`allocation`] divides a budget among the layers before that, where they are not all to get the same.
//! Methods that do more than rank, such as changing the weights that stay, are [`solver`]s of one layer's problem.

pub mod allocation;
pub mod block;
pub mod calibrate;
pub mod certificate;
mod error;
pub mod method;
pub mod metric;
mod rows;
pub mod select;
pub mod solver;
pub mod statistics;
mod tokens;
mod tower;

pub use certificate::{certify_tower, certify_tower_divided};
pub use error::PruneError;
pub use tokens::{TokenWeights, Visible};
pub use tower::{
    PruneRequest, Stored, TowerInputs, TowerPruning, prune_tower, prune_tower_divided, prune_tower_with, solve_block,
    solve_tower,
};

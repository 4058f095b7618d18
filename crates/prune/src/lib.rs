//! From weights and calibration statistics to masks.
//!
//! [`prune_tower`] prunes one tower block by block: the [`walk`] shows a block's inputs to [`statistics`], a [`metric`] turns
//! weights and statistics into importance, [`select`] turns importance into keep masks, and [`certificate`] recounts the result.
//! [`allocation`] divides a budget among the layers before that, where they are not all to get the same.
//! Methods that do more than rank, such as changing the weights that stay, are [`solver`]s of one layer's problem. What was pruned is bettered by [`refine`], layer by layer, or by
//! [`reconstruct`], a window at a time; whole heads, channels and blocks are removed by [`structure`].

pub mod allocation;
pub mod certificate;
mod error;
pub mod method;
pub mod metric;
pub mod reconstruct;
pub mod refine;
mod request;
mod rows;
pub mod select;
pub mod solver;
pub mod statistics;
pub mod structure;
mod tokens;
mod tower;
pub mod walk;

pub use certificate::{certify_tower, certify_tower_divided, certify_tower_within};
pub use error::PruneError;
pub use request::PruneRequest;
pub use tokens::{TokenWeights, Visible};
pub use tower::{
    Stored, TowerInputs, TowerPruning, TowerSolution, collect, join_projection, prune_tower, prune_tower_divided,
    prune_tower_with, solve_tower,
};

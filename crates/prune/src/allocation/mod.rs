//! Allocation: how much of a budget each layer gives.
//!
//! [`solver`] meets a total to one weight.

mod error;
pub mod solver;

pub use error::AllocationError;

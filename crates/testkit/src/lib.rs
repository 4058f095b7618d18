//! Tolerant tensor assertions, golden files, tidy checks, devices that are not there.

mod assert;
mod golden;
pub mod tidy;

pub use assert::{Difference, assert_close, difference};
pub use golden::Golden;

pub mod stage_sources;
pub mod stand_in;

//! Integration tests of the crate.

mod benchmarks;
mod processor;
mod questions;
mod world;

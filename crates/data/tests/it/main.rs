//! Integration tests of the crate.

mod benchmarks;
mod processor;
mod published;
mod questions;
mod world;

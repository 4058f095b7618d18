//! Integration tests of the crate.

mod benchmarks;
mod images;
mod processor;
mod questions;
mod tokenizers;
mod world;

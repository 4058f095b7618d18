//! Integration tests of the crate.

mod benchmarks;
mod images;
mod processor;
mod published;
mod questions;
mod tokenizers;
mod world;

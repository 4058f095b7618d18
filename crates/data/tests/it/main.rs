//! Integration tests of the crate.

mod any_size;
mod benchmarks;
mod held_out;
mod images;
mod next;
mod processor;
mod published;
mod questions;
mod tiles;
mod today;
mod tokenizers;
mod world;

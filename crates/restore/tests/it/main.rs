//! Integration tests of restoration, one binary.

mod golden;
mod merging;
mod training;
mod world;

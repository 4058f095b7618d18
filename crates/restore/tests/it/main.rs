//! Integration tests of restoration, one binary.

mod golden;
mod layouts;
mod merging;
mod training;
mod world;

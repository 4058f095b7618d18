//! Integration tests of restoration, one binary.

mod distilling;
mod golden;
mod layouts;
mod merging;
mod teaching;
mod training;
mod world;

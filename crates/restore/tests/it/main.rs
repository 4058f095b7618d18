//! Integration tests of restoration, one binary.

mod distilling;
mod evolving;
mod golden;
mod layouts;
mod loading;
mod merging;
mod padded;
mod perturbing;
mod scaling;
mod teaching;
mod training;
mod world;

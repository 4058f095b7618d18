//! Integration tests of the crate.

mod echo;
mod metrics;
mod predicting;
mod scoring;

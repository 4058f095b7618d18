//! Integration tests of the crate.

mod batching;
mod echo;
mod metrics;
mod predicting;
mod scoring;

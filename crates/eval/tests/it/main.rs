//! Integration tests of the crate.

mod batching;
mod echo;
mod external;
mod metrics;
mod predicting;
mod scoring;

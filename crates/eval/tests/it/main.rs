//! Integration tests of the crate.

mod aided;
mod any_size;
mod batching;
mod benchmarks;
mod echo;
mod external;
mod likelihood;
mod meteor;
mod metrics;
mod perplexity;
mod predicting;
mod scoring;

//! Single steps on model folders.

mod experiments;
mod pruning;
mod random;
mod scoring;

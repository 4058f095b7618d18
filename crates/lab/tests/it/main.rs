//! Single steps on model folders.

mod any_size;
mod bytes;
mod conversations;
mod experiments;
mod pruning;
mod queries;
mod random;
mod reconstructed;
mod scoring;
mod structure;

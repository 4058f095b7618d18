//! Single steps on model folders.

mod pruning;
mod random;

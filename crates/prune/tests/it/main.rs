//! Integration tests of pruning, one binary.

mod golden;
mod properties;
mod tower;

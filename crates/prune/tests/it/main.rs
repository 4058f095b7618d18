//! Integration tests of pruning, one binary.

mod budget;
mod golden;
mod properties;
mod tower;

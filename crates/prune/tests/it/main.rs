//! Integration tests of pruning, one binary.

mod golden;
mod properties;
mod solvers;
mod tower;

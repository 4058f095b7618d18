//! Integration tests of pruning, one binary.

mod allocation;
mod budget;
mod golden;
mod properties;
mod refine;
mod rescaled;
mod solvers;
mod structure;
mod tower;

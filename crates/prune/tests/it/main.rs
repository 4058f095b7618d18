//! Integration tests of pruning, one binary.

mod allocation;
mod budget;
mod conversations;
mod golden;
mod properties;
mod reconstruct;
mod refine;
mod rescaled;
mod solvers;
mod structure;
mod tower;

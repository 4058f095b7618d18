//! The networks as the rest of the program uses them.

mod batches;
mod common;
mod files;
mod flows;
mod generation;
mod goldens;
mod linears;
mod transformers;

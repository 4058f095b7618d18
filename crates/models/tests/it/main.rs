//! The networks as the rest of the program uses them.

mod batches;
mod common;
mod families;
mod files;
mod flows;
mod generation;
mod goldens;
mod linears;
mod loading;
mod raw;
mod transformers;

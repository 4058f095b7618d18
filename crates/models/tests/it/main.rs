//! The networks as the rest of the program uses them.

mod batches;
mod checkpoints;
mod common;
mod conversations;
mod families;
mod files;
mod flows;
mod folders;
mod generation;
mod goldens;
mod linears;
mod loading;
mod next;
mod qwen;
mod raw;
mod rescaling;
mod tiles;
mod transformers;

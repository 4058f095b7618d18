//! Tests of rendering, from published stages to files.

mod claims;
mod costs;
mod evidence;
mod figures;
mod folders;
mod labels;
mod logged;
mod losses;
mod probe;
mod rendering;
mod study;
mod world;

#[path = "../../../experiment/tests/it/names.rs"]
mod names;

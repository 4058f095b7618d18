//! The language of an experiment: what is asked, what it expands to, what comes back.
//!
//! No tensors, no data frames, no command line: both the torch-free front program and the workers speak these types.
//!
//! A file becomes a plan in this order, one module each: [`source`] reads, `yaml` gives every key and value a place, `document` types
//! them by the tables in [`settings`] and `grammar`, `load` merges the files it extends, [`overrides`] applies the command line,
//! [`expand`] multiplies axes out and takes exclusions away, [`canonical`] makes runs comparable, and [`chain`] turns runs into stages.
//! Every mistake on the way is an [`ExperimentError`] that points at the text.

mod address;
pub mod aids;
pub mod allocation;
pub mod asking;
pub mod canonical;
pub mod cell;
pub mod chain;
pub mod config;
mod conflict;
pub mod corpora;
pub mod distill;
mod document;
pub mod error;
pub mod evolve;
mod exclude;
pub mod expand;
pub mod experiment;
pub mod filter;
mod flow;
pub mod gate;
mod grammar;
mod interner;
pub mod job;
pub mod json;
pub mod key;
pub mod layout;
mod load;
pub mod loading;
pub mod method;
pub mod model;
mod naming;
pub mod origin;
pub mod output;
pub mod overrides;
pub mod partition;
pub mod path;
pub mod pattern;
pub mod penalty;
pub mod percent;
pub mod perturb;
pub mod places;
pub mod prompt;
pub mod protocol;
pub mod provenance;
mod range;
pub mod reading;
pub mod recompute;
pub mod reconstruct;
pub mod record;
pub mod refine;
pub mod schema;
pub mod search;
pub mod settings;
mod shape;
pub mod shared;
pub mod source;
mod spelling;
pub mod stage;
pub mod steps;
pub mod strict;
pub mod structure;
mod suggest;
pub mod task;
pub mod tokens;
pub mod tower;
mod trace;
pub mod value;
pub mod yaml;
mod zip;

pub use cell::Cell;
pub use config::RunConfig;
pub use document::AxisKind;
pub use error::ExperimentError;
pub use experiment::{AxisInfo, Experiment};
pub use filter::Filter;
pub use gate::Gate;
pub use key::{KeyError, KeyMap, StageKey};
pub use origin::Origin;
pub use partition::Partition;
pub use pattern::Pattern;
pub use percent::{percent, rounded_percent};
pub use provenance::SourceFile;
pub use reading::{Reading, ReadingKind, Readings};
pub use stage::{Stage, StageNode};
pub use task::{Asks, Task};
pub use tower::Tower;
pub use trace::{Traced, WrittenBy};

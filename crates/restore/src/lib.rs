//! Recover what pruning cost without reviving a single pruned weight.
//!
//! [`train_adapters`] trains low-rank adapters on a masked model, with task losses and distillation from the dense model; [`merge`] makes them
//! part of the weights and certifies what came out. The paper's SparseLoRA is both with the update masked by the keep mask; plain LoRA
//! is the same code without the mask and shows, in its certificate, the density it ends with.

pub mod adapters;
mod attention;
mod batch;
mod checkpoint;
mod error;
mod evolve;
mod exchange;
mod gradient;
mod loading;
pub mod loss;
mod merge;
mod micro;
mod pass;
mod penalty;
mod perturb;
mod probe;
mod states;
mod step;
mod stepper;
mod teacher;
mod traced;
mod train;
mod words;

pub use batch::{BatchSource, TrainingBatch};
pub use checkpoint::{Checkpoints, Interval};
pub use error::RestoreError;
pub use evolve::{Budgets, Evolution, departures};
pub use loading::{Mixture, reweighed};
pub use merge::{MergeRequest, Merged, Probe, certify_merged, merge, merged_weight};
pub use penalty::ZeroGroups;
pub use ressa_experiment::layout::Layout;
pub use step::StepLoss;
pub use teacher::{Output, Teacher, TeacherOutputs, TeacherStore};
pub use traced::Inside;
pub use train::{Restoration, TrainingOptions, train_adapters, train_with};
